// The fold of an execution's facts. Total: it never throws, logs or asks the time.
import { evolveCommand, issuedAs } from "../../schemas/command.ts";
import type { EventOf, NewEvent, OutcomeResult } from "../../schemas/events.ts";
import type { FrozenScope } from "../../schemas/frozen-scope.ts";
import type { JsonObject } from "../../schemas/json.ts";
import { dropWaiting, noteExit, type ExitEvent } from "./lapse.ts";
import { pauseAsked, resumed } from "./paused.ts";
import { redriven } from "./redriven.ts";
import {
  isLive,
  tokenKey,
  wholeScope,
  type ExecutionState,
  type Failure,
  type Running,
  type Token,
} from "./state.ts";

/** Folds one fact into a state the caller owns; `at` is when it was recorded. */
export function evolve(state: ExecutionState, event: NewEvent, at: number): ExecutionState {
  if (event.event_type === "playbook.initialized") {
    return state.status === "none" ? initialized(event, at) : state;
  }
  if (state.status === "none") return state;
  if (!isLive(state))
    return event.event_type === "execution.redriven" ? redriven(state, event) : state;
  switch (event.event_type) {
    case "command.issued":
      return issued(state, event, at);
    case "step.enter":
      return entered(state, event, at);
    case "step.skipped":
      if (isOld(state, event.meta)) return state;
      state.waiting.delete(event.meta.step);
      state.activations.set(event.meta.step, event.meta.activation);
      return state;
    case "command.claimed":
    case "command.expired":
    case "command.released": {
      const command = state.commands.get(event.meta.command_id);
      if (command) state.commands.set(command.command_id, evolveCommand(command, event, at));
      return state;
    }
    case "command.completed":
    case "command.failed":
    case "command.cancelled":
      state.commands.delete(event.meta.command_id);
      return exited(state, event);
    case "step.exit":
    case "step.failed":
      return exited(state, event);
    case "execution.cancel_requested":
      state.waiting.clear();
      return {
        ...{ ...state, status: "cancelling", cancelReason: event.meta.reason },
        ...(event.meta.timeout_ms !== undefined && { overran: event.meta.timeout_ms }),
      };
    case "execution.pause_requested":
      return pauseAsked(state, event, at);
    case "execution.paused":
      return state.pause ? { ...state, pause: { ...state.pause, whole: true } } : state;
    case "execution.resumed":
      return resumed(state, at);
    case "playbook.completed":
      return over(state, "completed", event);
    case "playbook.failed":
      return over(state, "failed", event);
    case "execution.cancelled":
      return over(state, "cancelled", event);
    default:
      return state;
  }
}

function initialized(event: EventOf<"playbook.initialized">, at: number): ExecutionState {
  const { path, playbook_version: version, hash, parent_execution_id, generation } = event.meta;
  const { requested_by, request_id, timeout_ms } = event.meta;
  const context = event.context;
  const caller = {
    ...(requested_by !== undefined && { requested_by }),
    ...(request_id !== undefined && { request_id }),
    ...(context.meta && { meta: context.meta }),
  };
  return {
    status: "running",
    execution_id: context.execution_id,
    playbook: { path, version, hash },
    ...(parent_execution_id === undefined ? {} : { parent_execution_id }),
    ...(Object.keys(caller).length > 0 && { caller }),
    ...(timeout_ms !== undefined && { timeout_ms, due_at: at + timeout_ms }),
    generation,
    workload: context.workload,
    ctx: event.context.ctx ?? {},
    activations: new Map(),
    results: new Map(),
    tokens: new Map(),
    waiting: new Map([[event.node_name ?? "", undefined]]),
    commands: new Map(),
    lapsed: new Map(),
    again: new Map(),
  };
}

function issued(state: Running, event: EventOf<"command.issued">, at: number): ExecutionState {
  const { command_id, step, activation, attempt, kind } = event.meta;
  if (event.meta.enter) {
    if (isOld(state, event.meta)) return state;
    enter(state, event.meta, at, { command_id });
  }
  const command = { command_id, step, activation, attempt, kind };
  state.commands.set(command_id, issuedAs(command, event.meta, at));
  return state;
}

function entered(state: Running, event: EventOf<"step.enter">, at: number): ExecutionState {
  const { step, loop_id, loop_mode } = event.meta;
  if (isOld(state, event.meta)) return state;
  const kind = loop_mode === "fanout" ? { is_fanout: true } : {};
  enter(state, event.meta, at, { loop_id, ...kind, scope: frozen(state, step) });
  return state;
}

/** An entry that was folded before. */
function isOld(
  state: Running,
  { step, activation }: { step: string; activation: number },
): boolean {
  return activation <= (state.activations.get(step) ?? 0);
}

/** The step whose arc leads here; the final step follows the last one that exited. */
function upstreamOf(state: Running, step: string): string | undefined {
  return state.waiting.has(step) ? state.waiting.get(step) : state.last;
}

/** All tokens that waited at a step become one running token. */
function enter(
  state: Running,
  meta: { step: string; activation: number },
  at: number,
  what: Pick<Token, "command_id" | "loop_id" | "is_fanout" | "scope">,
): void {
  const { step, activation } = meta;
  const upstream = upstreamOf(state, step);
  state.waiting.delete(step);
  state.activations.set(step, activation);
  const from = upstream === undefined ? {} : { upstream };
  const redrive = state.again.get(step);
  state.again.delete(step);
  state.lapsed.delete(step);
  if (state.owedFinal === step) state.owedFinal = undefined;
  state.tokens.set(tokenKey(step, activation), {
    step,
    activation,
    entered_at: at,
    ...from,
    ...(redrive && { redrive }),
    ...what,
  });
}

/** The scope as it is now, for a loop that must not see later writes. */
function frozen(state: Running, step: string): FrozenScope {
  const { results, ...rest } = wholeScope(state, upstreamOf(state, step));
  return { ...rest, steps: Object.fromEntries(results) };
}

function exited(state: Running, event: ExitEvent): ExecutionState {
  const { step, activation, next, step_status, handled } = event.meta;
  const key = tokenKey(step, activation);
  const token = state.tokens.get(key);
  if (next === undefined) return late(state, key, event);
  if (!token && event.event_type !== "step.failed") return state;
  noteExit(state, event, token);
  // A step that could not be entered never had a token, only one that waited.
  if (event.event_type === "step.failed") state.waiting.delete(step);
  state.tokens.delete(key);
  if (event.result) {
    state.results.set(step, event.result as OutcomeResult);
    state.last = step;
  }
  const writes = event.context?.["ctx"] as JsonObject | undefined;
  if (writes) state.ctx = { ...state.ctx, ...writes };
  const failure = event.context?.["failure"] as unknown as Failure | undefined;
  if (step_status === "failed" && failure) {
    if (handled === "arc") state.handled ??= failure;
    else state.failure ??= failure;
  }
  if (state.failure) dropWaiting(state);
  else if (state.status === "running") for (const target of next) state.waiting.set(target, step);
  return state;
}

/** A failed step without an exit: a loop that has passed its limit and is being stopped. */
function late(state: Running, key: string, event: ExitEvent): ExecutionState {
  const token = state.tokens.get(key);
  const timed_out_ms = event.context?.["timed_out_ms"];
  if (token && typeof timed_out_ms === "number") state.tokens.set(key, { ...token, timed_out_ms });
  return state;
}

function over(
  state: Running,
  status: "completed" | "failed" | "cancelled",
  event: EventOf<"playbook.completed" | "playbook.failed" | "execution.cancelled">,
): ExecutionState {
  const { status: _status, ...live } = state;
  const { execution_id, generation, parent_execution_id } = live;
  return {
    status,
    live,
    execution_id,
    generation,
    path: state.playbook.path,
    ...(parent_execution_id === undefined ? {} : { parent_execution_id }),
    steps: [...state.activations.values()].reduce((sum, entries) => sum + entries, 0),
    ...(event.result && { result: event.result }),
  };
}
