// The execution: tokens walk the playbook's steps; every decision and every fact of a run is here.
import {
  decideClaim,
  decideRelease,
  disowned,
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
import type { NewEvent, OutcomeResult } from "../../schemas/events.ts";
import type { Grant, PlaybookPin } from "../../schemas/frozen-scope.ts";
import type { JsonObject } from "../../schemas/json.ts";
import type { Playbook, Step } from "../../schemas/playbook/model.ts";
import { renderValue } from "../../schemas/playbook/render.ts";
import { createScope, type ScopeParts } from "../../schemas/playbook/scope.ts";
import { cutScope } from "../../schemas/playbook/step-reads.ts";
import { needPlaybook } from "../../schemas/playbook/stored-result.ts";
import { enterAll } from "./enter.ts";
import { evolve } from "./evolve.ts";
import { routeExit, type Finished } from "./route.ts";
import {
  fork,
  freeze,
  isLive,
  thaw,
  tokenKey,
  wholeScope,
  type ExecutionState,
  type Running,
  type Token,
} from "./state.ts";

export interface ExecutionStart {
  type: "start";
  execution_id: string;
  playbook: PlaybookPin;
  payload: JsonObject;
  parent_execution_id?: string;
  start_key?: string;
}

/** A loop of this execution is over (sent by `loops` until it is acknowledged). */
export interface LoopDone {
  type: "loop_done";
  loop_id: string;
  step: string;
  activation: number;
  status: "ok" | "failed" | "cancelled";
  stats: { total: number; success: number; failed: number; not_run: number };
  ctx: JsonObject;
  error?: OutcomeResult["error"];
}

export type ExecutionInput =
  | ExecutionStart
  | ClaimInput
  | OutcomeInput
  | ReleaseInput
  | LoopDone
  | { type: "cancel"; reason?: string; requested_by?: string }
  | { type: "children_gone" }
  | { type: "describe" }
  | { type: "wake" };

export interface ExecutionAnswer {
  changed: boolean;
  status: string;
  grant?: Grant;
}

function decide(input: ExecutionInput, state: ExecutionState, context: TurnContext): NewEvent[] {
  if (input.type === "start") return state.status === "none" ? start(input, context) : [];
  if (state.status === "none") throw new Rejected("no such execution", 404, { reason: "unknown" });
  if (!isLive(state)) return decideOver(input, state);
  switch (input.type) {
    case "claim":
      return state.status === "running"
        ? decideClaim(input, state.commands.get(input.command_id))
        : refuseClaim(input);
    case "release":
      return decideRelease(input, state.commands.get(input.command_id));
    case "outcome":
      // The same report again: its answer, with the next command, was lost.
      if (heldBy(state.commands.values(), input.next?.claim_id)) return [];
      return handOff(
        settle(fenced(input, state.commands.get(input.command_id)), input, state, context),
        input,
      );
    case "loop_done":
      return loopDone(input, state, context);
    case "cancel":
      return state.status === "cancelling" ? [] : cancel(input, state);
    case "children_gone":
      return state.status === "cancelling" && state.tokens.size === 0 ? [cancelled(state)] : [];
    case "wake":
      return wake(state, context);
    case "describe":
      return [];
  }
}

function decideOver(
  input: Exclude<ExecutionInput, ExecutionStart>,
  state: Exclude<ExecutionState, Running | { status: "none" }>,
): NewEvent[] {
  switch (input.type) {
    case "claim":
    case "release":
    case "outcome":
      throw settled(input.command_id);
    case "cancel":
      if (state.status === "cancelled") return [];
      throw new Rejected(`the execution is already ${state.status.toUpperCase()}`, 409, {
        status: state.status.toUpperCase(),
      });
    default:
      return [];
  }
}

function refuseClaim(input: ClaimInput): never {
  throw new Rejected(`command ${input.command_id} belongs to a cancelled execution`, 409, {
    reason: "cancelled",
  });
}

function start(input: ExecutionStart, context: TurnContext): NewEvent[] {
  const playbook = needPlaybook(input.playbook, context);
  const { path, version, hash } = input.playbook;
  const initialized: NewEvent = {
    event_type: "playbook.initialized",
    node_name: playbook.entry,
    meta: {
      path,
      playbook_version: version,
      hash,
      generation: 0,
      ...(input.parent_execution_id && { parent_execution_id: input.parent_execution_id }),
      ...(input.start_key && { start_key: input.start_key }),
    },
    context: { workload: workloadOf(input, playbook), execution_id: input.execution_id },
  };
  const state = evolve({ status: "none" }, initialized, context.now) as Running;
  return [initialized, ...enterAll(state, playbook, context)];
}

/** Defaults rendered, then the payload over them, key by key: the payload is data and never rendered. */
function workloadOf(input: ExecutionStart, playbook: Playbook): JsonObject {
  const parts = {
    execution: { id: input.execution_id, path: input.playbook.path },
    workload: { ...(playbook.workload as JsonObject), ...input.payload },
    ctx: {},
    steps: {},
  };
  const scope = createScope(parts as ScopeParts);
  const defaults = renderValue(playbook.workload, scope, "typed") as JsonObject;
  return { ...defaults, ...input.payload };
}

/** A command's outcome: its terminal, the exit of its step, and whatever that lets in. */
function settle(
  command: Command,
  outcome: Pick<OutcomeInput, "result" | "ctx" | "worker_id" | "stats">,
  state: Running,
  context: TurnContext,
): NewEvent[] {
  const { result, worker_id, stats } = outcome;
  const finished: Finished = {
    step: command.step,
    activation: command.activation,
    result,
    event: result.status === "ok" ? "call.done" : "call.error",
    ctx: outcome.ctx ?? {},
  };
  const { routing, written } = exit(finished, state, context);
  const terminal: NewEvent = {
    event_type: result.status === "ok" ? "command.completed" : "command.failed",
    node_name: command.step,
    meta: { ...ofCommand(command), delivery: command.delivery, worker_id, ...routing },
    context: { ...written, ...(stats && { stats }) },
    result,
  };
  return follow([terminal], state, context);
}

function loopDone(input: LoopDone, state: Running, context: TurnContext): NewEvent[] {
  const { step, activation, loop_id, stats, error } = input;
  const token = state.tokens.get(tokenKey(step, activation));
  // Already so: the report is repeated until it is acknowledged.
  if (token?.loop_id !== loop_id) return [];
  const reference = {
    ref: `noetl://execution/${state.execution_id}/loop/${loop_id}/results`,
    bytes: 0,
    tier: "log",
    extract: { stats: { ...stats }, status: input.status },
  };
  const status = input.status === "ok" ? ("ok" as const) : ("error" as const);
  const result: OutcomeResult = { status, reference, ...(error ? { error } : {}) };
  const finished: Finished = { step, activation, result, event: "loop.done", ctx: input.ctx };
  const { routing, written } = exit(finished, state, context);
  const event: NewEvent = {
    event_type: "step.exit",
    node_name: step,
    meta: { step, activation, loop_id, stats, ...routing },
    context: written,
    result,
  };
  return follow([event], state, context);
}

/** How a finished step exits, as the event that ends it says so. A cancelled execution routes nothing. */
function exit(finished: Finished, state: Running, context: TurnContext) {
  if (state.status === "cancelling" || state.failure) {
    const step_status = finished.result.status === "ok" ? ("ok" as const) : ("failed" as const);
    return { routing: { next: [], step_status }, written: { ctx: finished.ctx } as JsonObject };
  }
  const { next, ctx, step_status, handled, failure } = routeExit(
    finished,
    state,
    needPlaybook(state.playbook, context),
    context,
  );
  const written: JsonObject = {};
  if (Object.keys(ctx).length > 0) written["ctx"] = ctx;
  if (failure) written["failure"] = failure as unknown as JsonObject;
  return { routing: { next, step_status, ...(handled && { handled }) }, written };
}

/** Facts just decided, then everything they let in: steps entered, or the end of the execution. */
function follow(events: NewEvent[], state: Running, context: TurnContext): NewEvent[] {
  let after: ExecutionState = fork(state);
  for (const event of events) after = evolve(after, event, context.now);
  if (!isLive(after)) return events;
  if (after.status === "cancelling") return events;
  const playbook = needPlaybook(after.playbook, context);
  return [...events, ...enterAll(after, playbook, context)];
}

function cancel(
  input: { reason?: string; requested_by?: string },
  state: Running,
): NewEvent[] {
  const requested: NewEvent = {
    event_type: "execution.cancel_requested",
    meta: {
      ...(input.reason && { reason: input.reason }),
      ...(input.requested_by && { requested_by: input.requested_by }),
    },
  };
  const open = [...state.commands.values()].map(
    (command): NewEvent => ({
      event_type: "command.cancelled",
      node_name: command.step,
      meta: { ...ofCommand(command), next: [], step_status: "cancelled" },
    }),
  );
  return [requested, ...open];
}

function cancelled(state: Running): NewEvent {
  return { event_type: "execution.cancelled", meta: { generation: state.generation } };
}

/** Lost commands one after the other, each on the state the one before left; else the first late step. */
function wake(state: Running, context: TurnContext): NewEvent[] {
  const events = [...disowned(state.commands.values(), context)].map(one => releaseOf(one));
  let after: ExecutionState = fork(state);
  for (const lost of expired(state.commands.values(), context)) {
    const command = isLive(after) ? after.commands.get(lost.command_id) : undefined;
    if (!isLive(after) || !command) break;
    const facts = expire(command, after, context);
    events.push(...facts);
    for (const fact of facts) after = evolve(after, fact, context.now);
  }
  if (events.length > 0) return events;
  const late = timedOut(state, context);
  if (!late) return [];
  const { token, limitMs } = late;
  const command = state.commands.get(token.command_id ?? "") as Command;
  const error = {
    kind: "timeout",
    retryable: false,
    code: "STEP_TIMEOUT",
    message: `step '${token.step}' did not end within ${limitMs} ms`,
  };
  return settle(command, { result: { status: "error", error }, worker_id: "" }, state, context);
}

function expire(command: Command, state: Running, context: TurnContext): NewEvent[] {
  const lost = expiryOf(command);
  if (command.deaths + 1 < context.settings.max_attempts) return [lost];
  const worker_id = command.holder?.worker_id ?? "";
  return [lost, ...settle(command, { result: exhausted(command), worker_id }, state, context)];
}

/** The first token of a command step that is older than its step's `spec.timeout`. */
function timedOut(state: Running, context: TurnContext): { token: Token; limitMs: number } | undefined {
  const playbook = needPlaybook(state.playbook, context);
  for (const token of state.tokens.values()) {
    const limitMs = (playbook.steps[token.step] as Step).timeoutMs;
    if (limitMs === undefined || token.command_id === undefined) continue;
    if (token.entered_at + limitMs <= context.now) return { token, limitMs };
  }
  return undefined;
}

function answer(
  input: ExecutionInput,
  state: ExecutionState,
  context: TurnContext,
  changed: boolean,
): ExecutionAnswer {
  const status = statusWord(state);
  if (!isLive(state) || (input.type !== "claim" && input.type !== "outcome")) return { changed, status };
  const command =
    input.type === "claim"
      ? state.commands.get(input.command_id)
      : heldBy(state.commands.values(), input.next?.claim_id);
  if (!command) return { changed, status };
  const playbook = needPlaybook(state.playbook, context);
  const token = state.tokens.get(tokenKey(command.step, command.activation));
  const { execution_id } = state;
  return {
    changed,
    status,
    grant: {
      command_id: command.command_id,
      execution_id,
      stream_id: execution_id,
      step: command.step,
      activation: command.activation,
      attempt: command.attempt,
      delivery: command.delivery,
      playbook: state.playbook,
      scope: cutScope(playbook, command.step, wholeScope(state, token?.upstream)),
    },
  };
}

/** The status everybody reads (design §2). */
export function statusWord(state: ExecutionState): string {
  if (state.status === "none" || state.status === "cancelling") return "RUNNING";
  return state.status.toUpperCase();
}

function* pending(state: ExecutionState): Iterable<Effect> {
  if (!isLive(state)) return;
  const { execution_id } = state;
  if (state.status === "running") {
    const stream = { execution_id, stream_id: execution_id, actor: "executions" as const };
    yield* rings(state.commands.values(), stream);
  }
  for (const token of state.tokens.values()) {
    if (token.loop_id !== undefined) yield* toLoop(token, state);
  }
  if (state.status === "cancelling" && state.tokens.size === 0) {
    const to = { actor: "executions" as const, execution_id, stream_id: execution_id };
    yield { kind: "message", key: "children", to, input: { type: "cancel_children" } };
  }
}

function* toLoop(token: Token, state: Running): Iterable<Effect> {
  const { execution_id, playbook } = state;
  const loop_id = token.loop_id as string;
  const { step, activation } = token;
  const to = { actor: "loops" as const, execution_id, stream_id: loop_id };
  const input = { type: "start", execution_id, loop_id, step, activation, playbook, scope: token.scope };
  yield { kind: "message", key: `loop:${loop_id}`, to, input };
  const reason = state.status === "cancelling" ? (state.cancelReason ?? "cancelled") : state.failure?.error.message;
  if (reason === undefined) return;
  yield { kind: "message", key: `stop:${loop_id}`, to, input: { type: "cancel", reason } };
}

function deadline(state: ExecutionState, context: TurnContext): number | undefined {
  if (!isLive(state)) return undefined;
  const lease = leaseDeadline(state.commands.values(), context) ?? Infinity;
  const timeout = earliestTimeout(state, context);
  const due = Math.min(lease, timeout);
  return due === Infinity ? undefined : due;
}

function earliestTimeout(state: Running, context: TurnContext): number {
  const { path, version, hash } = state.playbook;
  const playbook = context.loaded.get(`noetl://catalog/${path}@${version}#${hash}`);
  if (playbook === undefined) return Infinity;
  let earliest = Infinity;
  for (const token of state.tokens.values()) {
    const limitMs = (playbook as unknown as Playbook).steps[token.step]?.timeoutMs;
    if (limitMs !== undefined) earliest = Math.min(earliest, token.entered_at + limitMs);
  }
  return earliest;
}

export const executionMachine: Machine<ExecutionState, ExecutionInput, ExecutionAnswer> = {
  initial: () => ({ status: "none" }),
  fork,
  decide,
  evolve,
  answer,
  pending,
  deadline,
  held: state => (isLive(state) ? heldOf(state.commands.values()) : []),
  isOver: state => state.status !== "none" && !isLive(state),
  freeze,
  thaw,
};
