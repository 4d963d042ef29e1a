// Going on with a loop: the next iterations to issue, the terminal of one, and the one loop.done.
import { ofCommand, type Command, type OutcomeInput } from "../../schemas/command.ts";
import type { NewEvent, OutcomeResult } from "../../schemas/events.ts";
import { commandId } from "../../schemas/ids.ts";
import type { JsonObject } from "../../schemas/json.ts";
import type { LoopReport } from "../../schemas/loop-report.ts";
import type { Running } from "./state.ts";

/**
 * How far a loop is: the state's own counts, or those it will have after a terminal just decided.
 */
export interface Tally {
  open: number;
  success: number;
  failed: number;
  error?: OutcomeResult["error"];
}

/** The counts of the state itself. */
export function tallyOf(state: Running): Tally {
  const { open, doneCount: success, failedCount: failed, firstError: error } = state;
  return { open: open.size, success, failed, error };
}

/** Issues up to the window, or ends the loop when nothing is open and nothing is left to issue. */
export function goOn(state: Running, tally: Tally): NewEvent[] {
  const { plan, stopReason } = state;
  const failed = tally.failed > plan.tolerance;
  const left = failed || stopReason !== undefined ? 0 : plan.size - state.next;
  const room = Math.min(plan.window - tally.open, left);
  const issued: NewEvent[] = [];
  for (let offset = 0; offset < room; offset += 1) issued.push(issue(state, state.next + offset));
  if (issued.length > 0 || tally.open > 0) return issued;
  if (failed) return [done(state, tally, "failed", tally.error)];
  const isWhole = tally.success + tally.failed === plan.size;
  return [isWhole ? done(state, tally, "ok") : cut(state, tally, stopReason ?? "stopped")];
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

/** The one end of a loop. */
export function done(
  state: Running,
  { success, failed }: Tally,
  status: LoopReport["status"],
  error?: OutcomeResult["error"],
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

/** The end of a loop that was not allowed to go on. */
export function cut(state: Running, tally: Tally, reason: string): NewEvent {
  const error = { kind: "cancelled", retryable: false, code: "CANCELLED", message: reason };
  return done(state, tally, "cancelled", error);
}

/** A terminal of one iteration, and what it makes room for. */
export function end(
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
