/** What a loop and a fan-out decide alike: at their doors, by the time, and in what they say. */
import {
  decideClaim,
  heldBy,
  ofDropped,
  paused,
  rings,
  settled,
  type ClaimInput,
  type Command,
  type OutcomeInput,
  type ReleaseInput,
} from "./command.ts";
import type { ActorKind, Effect } from "./decider.ts";
import { Rejected } from "./errors.ts";
import type { NewEvent } from "./events.ts";
import type { Grant } from "./frozen-scope.ts";
import type { LoopEnd, LoopIdentity, LoopPause, LoopStart } from "./loop-begun.ts";
import { refuseParked, ringing, type Parkable } from "./loop-parked.ts";
import type { Besides } from "./loop-pause.ts";
import type { LoopReport } from "./loop-report.ts";
import { lateAt } from "./time-limits.ts";

export type LoopInput =
  LoopStart | ClaimInput | OutcomeInput | ReleaseInput | LoopEnd | LoopPause | { type: "wake" };

/** Told to a claim: the grant; to any other input: whether it changed anything. */
export type LoopAnswer = { changed: boolean; grant?: Grant };

/** The life of one activation; `Progress` is what its kind keeps while it runs. */
export type LoopLife<Progress> =
  | { status: "none" }
  | ({ status: "running" } & Progress)
  | ({ status: "done" } & LoopIdentity & { report: LoopReport });

/** Its first input: a message about it begins it. Throws Rejected 404 for others. */
export function decideFirst(
  input: LoopInput,
  what: string,
  start: (input: LoopStart, besides?: Besides) => NewEvent[],
): NewEvent[] {
  switch (input.type) {
    case "start":
      return start(input);
    case "cancel":
    case "stop":
      return start(input.start, { end: input.reason });
    case "pause":
      return start(input.start, { pause: input.pause });
    case "resume":
      return start(input.start, { resumed: input.pause });
    case "wake":
      return [];
    default:
      throw new Rejected(`no such ${what}`, 404, { reason: "unknown" });
  }
}

/** Any input after its end. Throws Rejected 409 for one about a command. */
export function decideOver(input: LoopInput): NewEvent[] {
  switch (input.type) {
    case "claim":
    case "release":
    case "outcome":
      throw settled(input.command_id);
    default:
      return [];
  }
}

/** Throws Rejected 409 while a pause or an outage holds the command back, or another has it. */
export function claimIn(state: Parkable, input: ClaimInput): NewEvent[] {
  const command = state.open.get(input.command_id);
  // Who has claimed it before the pause is answered again.
  if (state.paused && command?.holder?.claim_id !== input.claim_id) throw paused(input.command_id);
  refuseParked(command, state);
  return decideClaim(input, command, state.loop_id);
}

/**
 * The command that a claim or the `next` of an outcome holds by now: inputs of one turn follow on
 * it.
 */
function granted<One extends Command>(
  input: ClaimInput | OutcomeInput,
  open: Map<string, One>,
): One | undefined {
  if (input.type === "outcome") return heldBy(open.values(), input.next?.claim_id);
  const command = open.get(input.command_id);
  return command?.holder?.claim_id === input.claim_id ? command : undefined;
}

/** What the sender is told; `open` is that of the state while it runs. */
export function answerTo<One extends Command>(
  input: LoopInput,
  changed: boolean,
  open: Map<string, One> | undefined,
  grantOf: (command: One) => Grant,
): LoopAnswer {
  if (!open || (input.type !== "claim" && input.type !== "outcome")) return { changed };
  const command = granted(input, open);
  return command ? { changed, grant: grantOf(command) } : { changed };
}

/** Commands nobody shall run any more; who runs one is refused its outcome. */
export function dropped(
  commands: Iterable<Command>,
  { step, loop_id }: Pick<LoopIdentity, "step" | "loop_id">,
): NewEvent[] {
  return [...commands].map(command => ({
    event_type: "command.cancelled",
    node_name: step,
    meta: { ...ofDropped(command), loop_id },
  }));
}

/** Rings while it runs, and its report to the execution when it is done. */
export function* pendingOf(
  state: LoopLife<Parkable & LoopIdentity>,
  actor: ActorKind,
): Iterable<Effect> {
  if (state.status === "none") return;
  const { execution_id } = state;
  if (state.status === "running" && !state.paused) {
    yield* rings(ringing(state), { execution_id, stream_id: state.loop_id, actor });
  }
  if (state.status === "done") {
    const to = { actor: "executions" as const, execution_id, stream_id: execution_id };
    yield { kind: "message", key: "report", to, input: { ...state.report } };
  }
}

/** Those that time judges: held ones, and those that wait for a worker and for nothing else. */
function judged<One extends Command>(state: Parkable<One>): One[] {
  const rung: Iterable<One> = state.paused ? [] : ringing(state);
  const waiting = [...rung].filter(({ holder }) => !holder);
  return [...[...state.open.values()].filter(({ holder }) => holder), ...waiting];
}

/** The first command that is late; undefined while none is. */
export function firstLate<One extends Command>(state: Parkable<One>, now: number): One | undefined {
  const { limits } = state.plan;
  return limits && judged(state).find(command => lateAt(command, limits) <= now);
}

/** When the first command will be late; Infinity when none can be. */
export function earliestLate(state: Parkable): number {
  const { limits } = state.plan;
  if (!limits) return Infinity;
  return Math.min(Infinity, ...judged(state).map(command => lateAt(command, limits)));
}
