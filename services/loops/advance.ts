// Going on with a loop: the next iterations to issue, the terminal of one, and the one loop.done.
import type { Command, OutcomeInput } from "../../schemas/command.ts";
import type { NewEvent, OutcomeResult } from "../../schemas/events.ts";
import { needing } from "../../schemas/needs.ts";
import { commandId, type CommandName } from "../../schemas/ids.ts";
import { digestText, plus } from "../../schemas/loop-digest.ts";
import type { LoopReport } from "../../schemas/loop-report.ts";
import { Bitmap } from "../../schemas/bitmap.ts";
import { acceptance } from "../../schemas/accepted.ts";
import { sizeOfFrame, windowOf } from "./pacing.ts";
import type { Running } from "./state.ts";

/**
 * How far a loop is: the state's own counts, or those it will have after a terminal just decided.
 */
export interface Tally {
  open: number;
  success: number;
  failed: number;
  digest?: bigint | undefined;
  error?: OutcomeResult["error"];
}

/** The counts of the state itself. */
export function tallyOf(state: Running): Tally {
  const { open, doneCount: success, failedCount: failed, digest, firstError: error } = state;
  return { open: open.size, success, failed, digest, error };
}

/**
 * Issues up to the window, or ends the loop when nothing is open and nothing is left to issue. A
 * paused loop does neither.
 */
export function goOn(state: Running, tally: Tally): NewEvent[] {
  if (state.paused) return [];
  const { plan, stopReason } = state;
  // Items that failed before and do not run again keep none of the others from running.
  const isSpent = tally.failed - (state.inheritedFailed ?? 0) > plan.tolerance;
  const goesOn = !isSpent && stopReason === undefined;
  const issued = goesOn ? issueUpTo(windowOf(state) - tally.open, state) : [];
  if (issued.length > 0 || tally.open > 0) return issued;
  const isWhole = tally.success + tally.failed === plan.size;
  if (isSpent || (isWhole && tally.failed > plan.tolerance)) {
    return [done(state, tally, "failed", tally.error ?? leftFailed(tally))];
  }
  return [isWhole ? done(state, tally, "ok") : cut(state, tally, stopReason ?? "stopped")];
}

function leftFailed({ failed }: Tally): OutcomeResult["error"] {
  const message = `${failed} items that failed before were not run again`;
  return { kind: "logic", retryable: false, code: "LOOP", message };
}

/** The attempt of an item whose frame was given up: the item of its own is another command. */
const AGAIN = 2;

/** What was given up first, one by one, then the next frames or items. */
function issueUpTo(room: number, state: Running): NewEvent[] {
  const issued = state.again
    .slice(0, Math.max(0, room))
    .map(iter_index => issue(state, { iter_index, attempt: AGAIN }));
  let next = state.next;
  while (issued.length < room) {
    next = Bitmap.firstFree(state.done, state.failed, next);
    if (next >= state.plan.size) break;
    const count = spanOf(sizeOfFrame(state, next), next, state);
    const item = count > 1 ? { frame: { first: next, count } } : { iter_index: next };
    issued.push(issue(state, { ...item, attempt: 1 }));
    next += count;
  }
  return issued;
}

/** From the first of so many items to the last: what is settled between them is not run again. */
function spanOf(items: number, first: number, { done, failed, plan }: Running): number {
  let last = first;
  for (let more = items - 1; more > 0; more -= 1) {
    const next = Bitmap.firstFree(done, failed, last + 1);
    if (next >= plan.size) break;
    last = next;
  }
  return last - first + 1;
}

function issue(
  { execution_id, step, activation, loop_id, plan }: Running,
  item: Pick<CommandName, "iter_index" | "frame" | "attempt">,
): NewEvent {
  const { iter_index, frame, attempt } = item;
  const command_id = commandId({ execution_id, step, activation, ...item });
  const place = iter_index === undefined ? frame : { iter_index };
  const work = { kind: plan.kind, ...needing(plan.requires) };
  return {
    event_type: "command.issued",
    node_name: step,
    meta: { command_id, step, activation, attempt, ...work, loop_id, ...place },
  };
}

/** The one end of a loop. */
export function done(
  state: Running,
  { success, failed, digest }: Tally,
  status: LoopReport["status"],
  error?: OutcomeResult["error"],
): NewEvent {
  const { loop_id, step, activation, plan, cursor } = state;
  // The rows of a cursor are those that came.
  const total = cursor?.accepted ?? plan.size;
  const stats = { total, success, failed, not_run: total - success - failed };
  return {
    event_type: "loop.done",
    node_name: step,
    meta: {
      ...{ loop_id, step, activation, collection_size: total, stats, status },
      ...(digest !== undefined && { digest: digestText(digest) }),
    },
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
  const { result } = outcome;
  const isOk = result.status === "ok";
  const item = [command.iter_index ?? 0];
  const sets = isOk ? { ok: item, failed: [] } : { ok: [], failed: item };
  const { fact, digest } = acceptance(command, outcome, { loop_id: state.loop_id, sets });
  const event_type = isOk ? "command.completed" : "command.failed";
  const terminal: NewEvent = { ...fact, event_type };
  const before = tallyOf(state);
  const after: Tally = {
    open: before.open - 1,
    success: before.success + (isOk ? 1 : 0),
    failed: before.failed + (isOk ? 0 : 1),
    digest: plus(before.digest, digest),
    error: isOk ? before.error : (before.error ?? result.error),
  };
  return [terminal, ...goOn(state, after)];
}
