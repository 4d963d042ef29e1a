// The fold of a loop's facts. Total: it never throws, logs or asks the time.
import { evolveCommand, issuedAs, type Command } from "../../schemas/command.ts";
import type { EventOf, LoopStats, NewEvent, OutcomeResult } from "../../schemas/events.ts";
import type { JsonObject } from "../../schemas/json.ts";
import { begunAs, type Fresh } from "../../schemas/loop-begun.ts";
import { waitAnew } from "../../schemas/time-limits.ts";
import { parseDigest, plus } from "../../schemas/loop-digest.ts";
import type { LoopReport } from "../../schemas/loop-report.ts";
import { fromRanges } from "../../schemas/ranges.ts";
import { foldCursor, freshCursor } from "./cursor-fold.ts";
import { answer, freshThrottle, park, tryAgain } from "../../schemas/loop-parked.ts";
import { learn } from "./pacing.ts";
import { isClaiming, type LoopState, type Running } from "./state.ts";

/** Folds one fact into a state the caller owns; `at` is when it was recorded. */
export function evolve(state: LoopState, event: NewEvent, at = 0, fresh?: Fresh): LoopState {
  if (event.event_type === "loop.started") {
    return state.status === "none" ? begun(event, fresh) : state;
  }
  if (state.status !== "running") return state;
  if (isClaiming(state) && foldCursor(state, event, at)) {
    merge(state, event);
    return state;
  }
  switch (event.event_type) {
    case "command.issued":
      return issued(state, event, at);
    case "command.claimed":
    case "command.expired":
    case "command.released": {
      const command = state.open.get(event.meta.command_id);
      if (!command) return state;
      if (event.event_type === "command.released") park(state, command, event);
      state.open.set(command.command_id, evolveCommand(command, event, at));
      return state;
    }
    case "loop.probed":
      tryAgain(state, event);
      return state;
    case "command.completed":
    case "command.failed":
      return settle(state, event.meta.iter_index ?? 0, event.meta.command_id, event, at);
    case "frame.committed":
      return committed(state, event, at);
    case "command.cancelled":
      giveUp(state, event.meta.command_id);
      return state;
    case "execution.cancel_requested":
      state.stopReason = event.meta.reason ?? "the execution asked for it";
      return state;
    case "execution.paused":
      return { ...state, pauses: event.meta.pause ?? 1, paused: true };
    case "execution.resumed":
      waitAnew(state.open, at);
      return { ...state, pauses: event.meta.pause ?? 1, paused: false };
    case "loop.done":
      return over(
        state,
        event.meta.status,
        event.meta.stats,
        event.result as OutcomeResult | undefined,
      );
    default:
      return state;
  }
}

function begun(event: EventOf<"loop.started">, fresh?: Fresh): LoopState {
  const loop = begunAs(event, fresh);
  const plan = loop.plan as typeof loop.plan | undefined;
  const cursor = freshCursor(plan);
  return {
    status: "running",
    ...loop,
    next: 0,
    open: new Map(),
    digest: 0n,
    again: [],
    frame_size: 1,
    overlay: {},
    ...(cursor && { cursor }),
    ...freshThrottle(plan),
  };
}

function issued(state: Running, event: EventOf<"command.issued">, at: number): Running {
  const { command_id, step, activation, attempt, iter_index, first, count, kind } = event.meta;
  const index = first ?? iter_index ?? 0;
  const isAgain = state.again[0] === index;
  // Issued in order: a lower index was folded before, or is issued again.
  if (index < state.next && !isAgain) return state;
  const item =
    first === undefined || count === undefined ? { iter_index } : { frame: { first, count } };
  const ids = { command_id, step, activation, attempt, ...item };
  state.open.set(command_id, issuedAs({ ...ids, kind }, event.meta, at));
  if (isAgain) state.again.shift();
  else state.next = index + (count ?? 1);
  return state;
}

/** A frame that is dropped leaves its items to be issued one by one, if the loop goes on. */
function giveUp(state: Running, id: string): void {
  const command = state.open.get(id);
  state.open.delete(id);
  if (command?.frame) leaveAgain(state, command.frame);
}

function leaveAgain(state: Running, { first, count }: NonNullable<Command["frame"]>): void {
  for (let index = first; index < first + count; index += 1) {
    if (!state.done.has(index) && !state.failed.has(index)) state.again.push(index);
  }
  state.again.sort((one, other) => one - other);
}

function committed(state: Running, event: EventOf<"frame.committed">, at: number): Running {
  const { command_id, first, count, ok, failed, final } = event.meta;
  // After the frame's last report its items are settled, or issued again.
  const command = state.open.get(command_id);
  if (!command) return state;
  const end = first + count;
  const before = state.doneCount + state.failedCount;
  for (const index of fromRanges(ok, first, end) ?? []) {
    if (state.done.has(index) || state.failed.has(index)) continue;
    state.done.add(index);
    state.doneCount += 1;
  }
  for (const index of fromRanges(failed, first, end) ?? []) {
    if (state.done.has(index) || state.failed.has(index)) continue;
    state.failed.add(index);
    state.failedCount += 1;
  }
  const items = state.doneCount + state.failedCount - before;
  if (items > 0) {
    state.digest = plus(state.digest, parseDigest(event.meta.digest));
    learn(state, { items, event, command, at });
  }
  if (event.result.error && failed !== "") state.firstError ??= event.result.error;
  merge(state, event);
  if (!final && (ok !== "" || failed !== "")) answer(state, at);
  if (!final) return state;
  state.open.delete(command_id);
  answer(state, at);
  leaveAgain(state, { first, count });
  return state;
}

function merge(state: Running, event: NewEvent): void {
  const writes = event.context?.["ctx"] as JsonObject | undefined;
  if (writes) state.overlay = { ...state.overlay, ...writes };
}

function settle(
  state: Running,
  index: number,
  id: string,
  event: EventOf<"command.completed" | "command.failed">,
  at: number,
): Running {
  const command = state.open.get(id);
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
  state.digest = plus(state.digest, parseDigest(event.meta.digest));
  merge(state, event);
  learn(state, { items: 1, event, command, at });
  answer(state, at);
  return state;
}

function over(
  state: Running,
  status: LoopReport["status"],
  stats: LoopStats,
  result: OutcomeResult | undefined,
): LoopState {
  const { execution_id, loop_id, step, activation, playbook, overlay: ctx, cursor } = state;
  const report: LoopReport = {
    type: "loop_done",
    loop_id,
    step,
    activation,
    status,
    stats,
    ctx,
    ...(cursor && { cursor: { broke: cursor.broke, frames: cursor.frames } }),
    ...(result?.error ? { error: result.error } : {}),
  };
  return { status: "done", execution_id, loop_id, step, activation, playbook, report };
}
