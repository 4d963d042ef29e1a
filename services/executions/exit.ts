// Exits: a command's outcome or a loop's report ends a step, and what follows is decided with it.
import { ofCommand, type Command, type OutcomeInput } from "../../schemas/command.ts";
import { STEP_TIMEOUT } from "../../schemas/command-failures.ts";
import type { TurnContext } from "../../schemas/decider.ts";
import type { NewEvent, OutcomeResult } from "../../schemas/events.ts";
import type { JsonObject } from "../../schemas/json.ts";
import type { LoopReport } from "../../schemas/loop-report.ts";
import { needPlaybook } from "../../schemas/playbook/stored-result.ts";
import { enterAll } from "./enter.ts";
import { evolve } from "./evolve.ts";
import { routeExit, type Finished } from "./route.ts";
import {
  fork,
  isLive,
  tokenKey,
  type ExecutionState,
  type Failure,
  type Running,
  type Token,
} from "./state.ts";

/** A command's outcome: its terminal, the exit of its step, and whatever that lets in. */
export function settle(
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

/** The exit of a loop step; `[]` when this report was taken before. */
export function loopDone(input: LoopReport, state: Running, context: TurnContext): NewEvent[] {
  const { step, activation, loop_id, stats } = input;
  const token = state.tokens.get(tokenKey(step, activation));
  if (token?.loop_id !== loop_id) return [];
  const late = token.timed_out_ms !== undefined;
  const reference = {
    ref: `noetl://execution/${state.execution_id}/loop/${loop_id}/results`,
    bytes: 0,
    tier: "log",
    extract: {
      ...rowsOf(input),
      ...(input.fanin && { fanin: { ...input.fanin } }),
      ...{ stats: { ...stats }, status: late ? "failed" : wordOf(input) },
    },
  };
  const status = input.status === "ok" && !late ? ("ok" as const) : ("error" as const);
  const error = late ? timeoutError(token) : input.error;
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

/** Rows of a cursor may fail without failing its loop: the word says that some did. */
function wordOf({ cursor, fanin, stats, status }: LoopReport): string {
  if (fanin) return fanin.status;
  return cursor && status === "ok" && stats.failed > 0 ? "partial" : status;
}

/** What a loop over a cursor tells besides (playbook-dsl §1.11.2). */
function rowsOf({ cursor, stats }: LoopReport): JsonObject {
  if (!cursor) return {};
  return {
    processed: stats.success + stats.failed,
    failed: stats.failed,
    breaks: cursor.broke,
    frame_count: cursor.frames,
  };
}

/** The failure of a step that took longer than its `spec.timeout`. */
export function timeoutError(token: Pick<Token, "step" | "timed_out_ms">): Failure["error"] {
  return {
    kind: "timeout",
    retryable: false,
    code: STEP_TIMEOUT,
    message: `step '${token.step}' did not end within ${token.timed_out_ms} ms`,
  };
}

/**
 * How a finished step exits, as the event that ends it says so. A cancelled execution routes
 * nothing.
 */
function exit(finished: Finished, state: Running, context: TurnContext) {
  if (state.status === "cancelling" || state.failure) {
    const step_status = finished.result.status === "ok" ? ("ok" as const) : ("failed" as const);
    return {
      routing: { next: [], step_status },
      written: { ctx: finished.ctx } as JsonObject,
    };
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
  if (!isLive(after) || after.status === "cancelling") return events;
  const playbook = needPlaybook(after.playbook, context);
  return [...events, ...enterAll(after, playbook, context)];
}
