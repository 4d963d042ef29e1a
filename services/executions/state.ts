// The state of an execution: tokens on its steps, open commands, results, and what it has yet to
// say.
import type { Command } from "../../schemas/command.ts";
import type { OutcomeResult } from "../../schemas/events.ts";
import type { FrozenScope, PlaybookPin, StartCaller } from "../../schemas/frozen-scope.ts";
import type { Json, JsonObject } from "../../schemas/json.ts";
import type { WholeScope } from "../../schemas/playbook/step-reads.ts";
import type { Redrive } from "../../schemas/redrive.ts";

/** One running activation of a step: the token that entered it. */
export interface Token {
  step: string;
  activation: number;
  entered_at: number;
  /** The step whose arc led here. */
  upstream?: string;
  command_id?: string;
  loop_id?: string;
  /** Its loop is a fan-out. */
  is_fanout?: boolean;
  /** What the loop's templates see, frozen when the step was entered. */
  scope?: FrozenScope;
  /** The limit that a loop step has passed: its loop is told to stop, and the step has failed. */
  timed_out_ms?: number;
  redrive?: Redrive;
}

/** A step that a redrive would have to run, or to route: its newest activation left it so. */
export interface Lapse {
  /**
   * It failed; it failed, or items of it did, and that was tolerated; it ended well after another
   * failure, so that no arc of it was taken; or its turn to be entered never came.
   */
  why: "failed" | "tolerated" | "unrouted" | "waiting";
  activation: number;
  upstream?: string;
  loop_id?: string;
  /** Of an activation that was a redrive itself: whose idempotency keys it shared. */
  keyed?: number;
  failure?: Failure;
}

export interface Failure {
  step?: string;
  error: NonNullable<OutcomeResult["error"]>;
}

export interface Live {
  execution_id: string;
  playbook: PlaybookPin;
  parent_execution_id?: string;
  caller?: StartCaller;
  generation: number;
  workload: JsonObject;
  ctx: JsonObject;
  /** How often each step was entered. */
  activations: Map<string, number>;
  /** Newest result of each finished step. */
  results: Map<string, OutcomeResult>;
  /** By `step:activation`. */
  tokens: Map<string, Token>;
  /** Steps that tokens wait to enter, with the step each came from; waiting tokens merge. */
  waiting: Map<string, string | undefined>;
  commands: Map<string, Command>;
  /** An unhandled failure: nothing more is entered. */
  failure?: Failure;
  /** A failure found an error arc: work goes on, the end is FAILED. */
  handled?: Failure;
  lapsed: Map<string, Lapse>;
  /** What steps that wait to be entered go on with. */
  again: Map<string, Redrive>;
  /** The final step, when it ran in a generation before this one only. */
  owedFinal?: string;
  /** The last step that exited, whose result is the execution's. */
  last?: string;
  cancelReason?: string;
  /** The limit of the whole run, when it is reached, and that it was. */
  timeout_ms?: number;
  due_at?: number;
  overran?: number;
  /** Pauses so far. */
  pauses?: number;
  pause?: Pause;
}

/** Nothing is entered, issued or claimed; what runs finishes. */
export interface Pause {
  number: number;
  /** Since when; steps do not grow older meanwhile. */
  at: number;
  /** Loops and children know of it. */
  whole: boolean;
  /** The ancestor's pause that it is part of. */
  by?: string;
}

export type ExecutionState =
  | { status: "none" }
  | ({ status: "running" | "cancelling" } & Live)
  | {
      status: "completed" | "failed" | "cancelled";
      execution_id: string;
      generation: number;
      result?: JsonObject;
      /** Absent in snapshots of an older build. */
      path?: string;
      parent_execution_id?: string;
      /** How often steps were entered, all together. */
      steps?: number;
      /** As it was at its end, for a redrive. Absent in snapshots of an older build. */
      live?: Live;
    };

export type Running = Extract<ExecutionState, Live>;
export type Ended = Exclude<ExecutionState, Running | { status: "none" }>;

export function isLive(state: ExecutionState): state is Running {
  return state.status === "running" || state.status === "cancelling";
}

export function tokenKey(step: string, activation: number): string {
  return `${step}:${activation}`;
}

/** A pause's name for those below its execution. */
export function pauseName(executionId: string, number: number): string {
  return `${executionId}:${number}`;
}

/** The execution whose pause has this name. */
export function pausedIn(pause: string): string {
  return pause.slice(0, pause.lastIndexOf(":"));
}

/** A copy whose maps can be changed; what they hold never is. */
export function fork(state: ExecutionState): ExecutionState {
  // What has ended is changed by a redrive only, which copies it.
  return isLive(state) ? { ...state, ...copyOf(state) } : state;
}

export function copyOf(live: Live): Live {
  return {
    ...live,
    activations: new Map(live.activations),
    results: new Map(live.results),
    tokens: new Map(live.tokens),
    waiting: new Map(live.waiting),
    lapsed: new Map(live.lapsed),
    commands: new Map(live.commands),
    again: new Map(live.again),
  };
}

/** Everything the templates of a step could see; `cutScope` cuts it to what they read. */
export function wholeScope(state: Running, upstream?: string): WholeScope {
  const execution: FrozenScope["execution"] = {
    id: state.execution_id,
    path: state.playbook.path,
    ...(state.parent_execution_id === undefined ? {} : { parent_id: state.parent_execution_id }),
    ...(state.caller && { caller: state.caller }),
  };
  return {
    execution,
    workload: state.workload,
    ctx: state.ctx,
    results: state.results,
    ...(upstream === undefined ? {} : { upstream }),
  };
}

const MAPS = [
  "activations",
  "results",
  "tokens",
  "waiting",
  "commands",
  "lapsed",
  "again",
] as const;

export function freeze(state: ExecutionState): Json {
  if (isLive(state)) return freezeMaps(state);
  if (state.status === "none" || !state.live) return state as unknown as Json;
  return { ...state, live: freezeMaps(state.live) };
}

function freezeMaps(live: Live): Json {
  const frozen: Record<string, unknown> = { ...live };
  for (const name of MAPS) frozen[name] = [...live[name]];
  return frozen as Json;
}

export function thaw(frozen: Json): ExecutionState {
  const kept = frozen as unknown as ExecutionState;
  if (isLive(kept)) return thawMaps(kept);
  if (kept.status === "none" || !kept.live) return kept;
  return { ...kept, live: thawMaps(kept.live) };
}

function thawMaps<Kept extends Live>(kept: Kept): Kept {
  const raw = kept as unknown as Record<(typeof MAPS)[number], [string, never][] | undefined>;
  const live = { ...kept };
  for (const name of MAPS) live[name] = new Map<string, never>(raw[name] ?? []);
  // JSON has no undefined: a token that no arc brought comes back as null.
  for (const [step, from] of raw.waiting ?? []) live.waiting.set(step, from ?? undefined);
  return live;
}
