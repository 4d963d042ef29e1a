// The loop: one activation of a loop step, from its frozen collection to its one loop.done.
import { Bitmap } from "../../schemas/bitmap.ts";
import {
  decideClaim,
  decideRelease,
  disowned,
  evolveCommand,
  exhausted,
  expired,
  expiryOf,
  fenced,
  handOff,
  heldBy,
  heldOf,
  leaseDeadline,
  ofCommand,
  releaseOf,
  rings,
  settled,
  type ClaimInput,
  type Command,
  type OutcomeInput,
  type ReleaseInput,
} from "../../schemas/command.ts";
import type { Effect, Machine, TurnContext } from "../../schemas/decider.ts";
import { Rejected } from "../../schemas/errors.ts";
import type { LoopStats, NewEvent, OutcomeResult, ResultReference } from "../../schemas/events.ts";
import type { FrozenScope, Grant, PlaybookPin } from "../../schemas/frozen-scope.ts";
import { commandId, parseCommandId } from "../../schemas/ids.ts";
import type { Json, JsonObject } from "../../schemas/json.ts";
import { openLoop, type LoopPlan } from "../../schemas/playbook/loop-plan.ts";
import { needValue } from "../../schemas/playbook/stored-result.ts";

/** Sent by the execution when a loop step is entered. */
export interface LoopStart {
  type: "start";
  execution_id: string;
  loop_id: string;
  step: string;
  activation: number;
  playbook: PlaybookPin;
  scope: FrozenScope;
}

export type LoopInput =
  | LoopStart
  | ClaimInput
  | OutcomeInput
  | ReleaseInput
  | { type: "cancel"; reason: string }
  | { type: "wake" };

/** What a loop tells its execution, until that says it knows. */
export interface LoopReport {
  type: "loop_done";
  loop_id: string;
  step: string;
  activation: number;
  status: "ok" | "failed" | "cancelled";
  stats: LoopStats;
  /** Ctx writes of the iterations, in order of acceptance. */
  ctx: JsonObject;
  error?: OutcomeResult["error"];
}

interface Identity {
  execution_id: string;
  loop_id: string;
  step: string;
  activation: number;
  playbook: PlaybookPin;
}

interface Progress {
  plan: Omit<LoopPlan, "items">;
  collection?: Json[];
  collection_ref?: ResultReference;
  scope?: FrozenScope;
  scope_ref?: ResultReference;
  /** The next index to issue; those below it are open, done or failed. */
  next: number;
  open: Map<string, Command>;
  done: Bitmap;
  failed: Bitmap;
  doneCount: number;
  failedCount: number;
  overlay: JsonObject;
  firstError?: OutcomeResult["error"];
}

export type LoopState =
  | { status: "none" }
  | ({ status: "running" } & Identity & Progress)
  | ({ status: "done" } & Identity & { report: LoopReport });

type Running = Extract<LoopState, { status: "running" }>;

/** Told to a claim: the grant; to any other input: whether it changed anything. */
export type LoopAnswer = { changed: boolean; grant?: Grant };

function decide(input: LoopInput, state: LoopState, context: TurnContext): NewEvent[] {
  if (input.type === "start") return state.status === "none" ? start(input, context) : [];
  if (state.status !== "running") return decideOver(input, state);
  switch (input.type) {
    case "claim":
      itemsOf(state, context);
      return decideClaim(input, state.open.get(input.command_id), state.loop_id);
    case "release":
      return decideRelease(input, state.open.get(input.command_id), state.loop_id);
    case "outcome":
      if (input.next) itemsOf(state, context);
      return decideOutcome(input, state);
    case "cancel":
      return cancel(input.reason, state);
    case "wake":
      return expireAll(state, context);
  }
}

function decideOver(input: Exclude<LoopInput, LoopStart>, state: LoopState): NewEvent[] {
  if (input.type === "wake" || input.type === "cancel") return [];
  const known = state.status === "done" && parseCommandId(input.command_id);
  throw known ? settled(input.command_id) : new Rejected("no such loop", 404, { reason: "unknown" });
}

function start(input: LoopStart, context: TurnContext): NewEvent[] {
  const { loop_id, step, activation, execution_id, playbook } = input;
  const opened = openLoop(input, context);
  const started: NewEvent = {
    event_type: "loop.started",
    node_name: step,
    meta: {
      loop_id,
      step,
      activation,
      collection_size: opened.plan.size,
      mode: opened.plan.mode,
      max_in_flight: opened.plan.window,
    },
    context: { ...opened.kept, execution_id, plan: opened.plan as unknown as Json, playbook: { ...playbook } },
  };
  const state = evolve({ status: "none" }, started, context.now, {
    execution_id,
    scope: opened.scope,
    ...(opened.items ? { collection: opened.items } : {}),
  }) as Running;
  const tally = tallyOf(state);
  const rest = opened.error ? [done(state, tally, "failed", opened.error)] : goOn(state, tally);
  return [started, ...rest];
}

/** How far a loop is: the state's own counts, or those it will have after a terminal just decided. */
interface Tally {
  open: number;
  success: number;
  failed: number;
  error?: OutcomeResult["error"];
}

function tallyOf(state: Running): Tally {
  const { open, doneCount: success, failedCount: failed, firstError: error } = state;
  return { open: open.size, success, failed, error };
}

/** Issues up to the window, or ends the loop when nothing is open and nothing is left to issue. */
function goOn(state: Running, tally: Tally): NewEvent[] {
  const { plan } = state;
  const stopped = tally.failed > plan.tolerance;
  const room = stopped ? 0 : Math.min(plan.window - tally.open, plan.size - state.next);
  const issued: NewEvent[] = [];
  for (let offset = 0; offset < room; offset += 1) issued.push(issue(state, state.next + offset));
  if (issued.length > 0 || tally.open > 0) return issued;
  return [done(state, tally, stopped ? "failed" : "ok", stopped ? tally.error : undefined)];
}

function issue(state: Running, index: number): NewEvent {
  const { execution_id, step, activation, loop_id } = state;
  const command_id = commandId({ execution_id, step, activation, iter_index: index, attempt: 1 });
  return {
    event_type: "command.issued",
    node_name: step,
    meta: {
      command_id,
      step,
      activation,
      attempt: 1,
      kind: state.plan.kind,
      loop_id,
      iter_index: index,
    },
  };
}

function done(
  state: Running,
  { success, failed }: Tally,
  status: LoopReport["status"],
  error: OutcomeResult["error"] | undefined,
): NewEvent {
  const { loop_id, step, activation, plan } = state;
  const stats = { total: plan.size, success, failed, not_run: plan.size - success - failed };
  return {
    event_type: "loop.done",
    node_name: step,
    meta: { loop_id, step, activation, collection_size: plan.size, stats, status },
    ...(error ? { result: { status: "error", error } } : {}),
  };
}

function decideOutcome(input: OutcomeInput, state: Running): NewEvent[] {
  // The same report again: its answer, with the next command, was lost.
  if (heldBy(state.open.values(), input.next?.claim_id)) return [];
  const name = parseCommandId(input.command_id);
  const index = name?.iter_index ?? -1;
  if (state.done.has(index) || state.failed.has(index)) throw settled(input.command_id);
  const command = fenced(input, state.open.get(input.command_id));
  return handOff(end(command, input, state), input, state.loop_id);
}

/** A terminal of one iteration, and what it makes room for. */
function end(
  command: Command,
  outcome: Pick<OutcomeInput, "result" | "ctx" | "worker_id" | "stats">,
  state: Running,
): NewEvent[] {
  const { result, ctx, worker_id, stats } = outcome;
  const context: JsonObject = { ...(ctx && { ctx }), ...(stats && { stats }) };
  const terminal: NewEvent = {
    event_type: result.status === "ok" ? "command.completed" : "command.failed",
    node_name: command.step,
    meta: {
      ...ofCommand(command),
      loop_id: state.loop_id,
      delivery: command.delivery,
      worker_id,
    },
    ...(Object.keys(context).length > 0 ? { context } : {}),
    result,
  };
  const { open, success, failed, error } = tallyOf(state);
  const after =
    result.status === "ok"
      ? { open: open - 1, success: success + 1, failed, error }
      : { open: open - 1, success, failed: failed + 1, error: error ?? result.error };
  return [terminal, ...goOn(state, after)];
}

/** Lost commands one after the other, each on the state the one before left. */
function expireAll(state: Running, context: TurnContext): NewEvent[] {
  const events = [...disowned(state.open.values(), context)].map(one => releaseOf(one, state.loop_id));
  let after = fork(state);
  for (const lost of expired(state.open.values(), context)) {
    const command = after.status === "running" ? after.open.get(lost.command_id) : undefined;
    if (after.status !== "running" || !command) break;
    const facts = expire(command, after, context);
    events.push(...facts);
    for (const fact of facts) after = evolve(after, fact, context.now);
  }
  return events;
}

function expire(command: Command, state: Running, context: TurnContext): NewEvent[] {
  const lost = expiryOf(command, state.loop_id);
  if (command.deaths + 1 < context.settings.max_attempts) return [lost];
  const worker_id = command.holder?.worker_id ?? "";
  return [lost, ...end(command, { result: exhausted(command), worker_id }, state)];
}

function cancel(reason: string, state: Running): NewEvent[] {
  const cancelled = [...state.open.values()].map(
    (command): NewEvent => ({
      event_type: "command.cancelled",
      node_name: state.step,
      meta: { ...ofCommand(command), loop_id: state.loop_id },
    }),
  );
  const error = { kind: "cancelled", retryable: false, code: "CANCELLED", message: reason };
  return [...cancelled, done(state, tallyOf(state), "cancelled", error)];
}

/** What a start knows beside its event, so that the fold of that same turn need not load it again. */
interface Fresh {
  execution_id: string;
  scope: FrozenScope;
  collection?: Json[];
}

function evolve(state: LoopState, event: NewEvent, at = 0, fresh?: Fresh): LoopState {
  if (event.event_type === "loop.started") return begun(event, fresh);
  if (state.status !== "running") return state;
  switch (event.event_type) {
    case "command.issued": {
      const { command_id, step, activation, attempt, iter_index, kind } = event.meta;
      const command = { command_id, step, activation, attempt, iter_index, kind, delivery: 0, deaths: 0 };
      state.open.set(command_id, command);
      state.next = Math.max(state.next, (iter_index ?? 0) + 1);
      return state;
    }
    case "command.claimed":
    case "command.expired":
    case "command.released": {
      const command = state.open.get(event.meta.command_id);
      if (command) evolveCommand(command, event, at);
      return state;
    }
    case "command.completed":
    case "command.failed":
      return settle(state, event.meta.iter_index ?? 0, event.meta.command_id, event);
    case "command.cancelled":
      state.open.delete(event.meta.command_id);
      return state;
    case "loop.done":
      return over(state, event.meta.status, event.meta.stats, event.result as OutcomeResult | undefined);
    default:
      return state;
  }
}

function begun(event: NewEvent & { event_type: "loop.started" }, fresh?: Fresh): LoopState {
  const kept = (event.context ?? {}) as JsonObject;
  const { loop_id, step, activation, collection_size } = event.meta;
  const scope = fresh?.scope ?? (kept["scope"] as unknown as FrozenScope | undefined);
  return {
    status: "running",
    execution_id: fresh?.execution_id ?? String(kept["execution_id"]),
    loop_id,
    step,
    activation,
    playbook: kept["playbook"] as unknown as PlaybookPin,
    plan: kept["plan"] as unknown as LoopPlan,
    collection: fresh?.collection ?? (kept["collection"] as Json[] | undefined),
    collection_ref: kept["collection_ref"] as unknown as ResultReference | undefined,
    scope,
    scope_ref: kept["scope_ref"] as unknown as ResultReference | undefined,
    next: 0,
    open: new Map(),
    done: Bitmap.ofSize(collection_size),
    failed: Bitmap.ofSize(collection_size),
    doneCount: 0,
    failedCount: 0,
    overlay: {},
  };
}

function settle(
  state: Running,
  index: number,
  id: string,
  event: NewEvent & { event_type: "command.completed" | "command.failed" },
): Running {
  state.open.delete(id);
  if (state.done.has(index) || state.failed.has(index)) return state;
  const failed = event.event_type === "command.failed";
  (failed ? state.failed : state.done).add(index);
  if (failed) {
    state.failedCount += 1;
    state.firstError ??= event.result.error;
  } else {
    state.doneCount += 1;
  }
  const writes = event.context?.["ctx"] as JsonObject | undefined;
  if (writes) state.overlay = { ...state.overlay, ...writes };
  return state;
}

function over(
  state: Running,
  status: LoopReport["status"],
  stats: LoopStats,
  result: OutcomeResult | undefined,
): LoopState {
  const { execution_id, loop_id, step, activation, playbook, overlay: ctx } = state;
  const report: LoopReport = {
    type: "loop_done",
    loop_id,
    step,
    activation,
    status,
    stats,
    ctx,
    ...(result?.error ? { error: result.error } : {}),
  };
  return { status: "done", execution_id, loop_id, step, activation, playbook, report };
}

function fork(state: LoopState): LoopState {
  if (state.status !== "running") return state;
  const open = new Map<string, Command>();
  for (const [id, command] of state.open) open.set(id, { ...command });
  return { ...state, open, done: state.done.copy(), failed: state.failed.copy() };
}

function itemsOf(state: Running, context: TurnContext): Json[] {
  return state.collection ?? (needValue(state.collection_ref as ResultReference, context) as Json[]);
}

function answer(input: LoopInput, state: LoopState, context: TurnContext, changed: boolean): LoopAnswer {
  if (state.status !== "running") return { changed };
  if (input.type !== "claim" && input.type !== "outcome") return { changed };
  const command =
    input.type === "claim"
      ? state.open.get(input.command_id)
      : heldBy(state.open.values(), input.next?.claim_id);
  if (!command) return { changed };
  const scope = state.scope ?? (needValue(state.scope_ref as ResultReference, context) as never);
  const index = command.iter_index ?? 0;
  const { execution_id, loop_id, step, activation, playbook, plan } = state;
  const seesWrites = plan.window === 1 && Object.keys(state.overlay).length > 0;
  return {
    changed,
    grant: {
      command_id: command.command_id,
      execution_id,
      stream_id: loop_id,
      step,
      activation,
      attempt: command.attempt,
      delivery: command.delivery,
      playbook,
      scope: seesWrites ? { ...scope, ctx: { ...scope.ctx, ...state.overlay } } : scope,
      iteration: {
        iterator: plan.iterator,
        value: itemsOf(state, context)[index],
        index,
        total: plan.size,
        loop_id,
      },
    },
  };
}

function* pending(state: LoopState): Iterable<Effect> {
  if (state.status === "running") {
    const { execution_id, loop_id: stream_id } = state;
    yield* rings(state.open.values(), { execution_id, stream_id, actor: "loops" });
  }
  if (state.status === "done") {
    const { execution_id, report } = state;
    const to = { actor: "executions" as const, execution_id, stream_id: execution_id };
    yield { kind: "message", key: "report", to, input: { ...report } };
  }
}

function freeze(state: LoopState): Json {
  if (state.status !== "running") return state as unknown as Json;
  const { open, done: ok, failed, ...rest } = state;
  return {
    ...(rest as unknown as JsonObject),
    open: [...open.values()] as unknown as Json,
    done: ok.toText(),
    failed: failed.toText(),
  };
}

function thaw(frozen: Json): LoopState {
  const kept = frozen as unknown as LoopState;
  if (kept.status !== "running") return kept;
  const raw = frozen as unknown as { open: Command[]; done: string; failed: string };
  return {
    ...kept,
    open: new Map(raw.open.map(command => [command.command_id, command])),
    done: Bitmap.fromText(raw.done),
    failed: Bitmap.fromText(raw.failed),
  };
}

export const loopMachine: Machine<LoopState, LoopInput, LoopAnswer> = {
  initial: () => ({ status: "none" }),
  fork,
  decide,
  evolve: (state, event, at) => evolve(state, event, at),
  answer,
  pending,
  deadline: (state, context) =>
    state.status === "running" ? leaseDeadline(state.open.values(), context) : undefined,
  held: state => (state.status === "running" ? heldOf(state.open.values()) : []),
  isOver: state => state.status === "done",
  freeze,
  thaw,
};
