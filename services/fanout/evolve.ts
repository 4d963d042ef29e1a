// The fold of a fan-out's facts. Total: it never throws, logs or asks the time.
import { Bitmap } from "../../schemas/bitmap.ts";
import { evolveCommand, issuedAs } from "../../schemas/command.ts";
import type { EventOf, NewEvent, OutcomeResult } from "../../schemas/events.ts";
import { begunAs, type BegunLoop, type Fresh } from "../../schemas/loop-begun.ts";
import { answer, freshThrottle, park, tryAgain } from "../../schemas/loop-parked.ts";
import { parseDigest, plus } from "../../schemas/loop-digest.ts";
import type { LoopReport } from "../../schemas/loop-report.ts";
import { waitAnew } from "../../schemas/time-limits.ts";
import { fromRanges } from "../../schemas/ranges.ts";
import { itemsOf, limitsOf, type FanoutState, type Running, type Shard } from "./state.ts";

/** Folds one fact into a state the caller owns; `at` is when it was recorded. */
export function evolve(state: FanoutState, event: NewEvent, at = 0, fresh?: Fresh): FanoutState {
  if (event.event_type === "loop.fanout.started") {
    return state.status === "none" ? begun(event, fresh) : state;
  }
  if (state.status !== "running") return state;
  switch (event.event_type) {
    case "command.issued":
      return issued(state, event, at);
    case "command.claimed":
    case "command.expired":
    case "command.released":
      moved(state, event, at);
      return state;
    case "loop.probed":
      tryAgain(state, event);
      return state;
    case "command.failed":
      return failedForNow(state, event, at);
    case "frame.committed":
      if (state.open.has(event.meta.command_id)) accept(state, event, event.meta.ok, "done");
      return state;
    case "loop.shard.done":
    case "loop.shard.failed":
      return ended(state, event, at);
    case "command.cancelled":
      state.open.delete(event.meta.command_id);
      return state;
    case "execution.cancel_requested":
      state.stopReason = event.meta.reason ?? "the execution asked for it";
      state.retries.clear();
      return state;
    case "execution.paused":
      return { ...state, pauses: event.meta.pause ?? 1, paused: true };
    case "execution.resumed":
      return resumed(state, event, at);
    case "loop.fanin.completed":
      return over(state, event);
    default:
      return state;
  }
}

function begun(event: EventOf<"loop.fanout.started">, fresh?: Fresh): FanoutState {
  const loop = begunAs(event, fresh);
  const { succeeded, failed: lost } = event.meta.inherited_shards ?? { succeeded: 0, failed: 0 };
  return {
    ...{ status: "running", ...loop, next: 0 },
    ...{ open: new Map(), retries: new Map(), succeeded, lost, digest: 0n },
    ...freshThrottle(loop.plan),
  };
}

/** Shards of which an earlier fan-out has settled every item. */
export function shardsSettled({ plan, done, failed }: Pick<BegunLoop, "plan" | "done" | "failed">) {
  const settled = { succeeded: 0, failed: 0 };
  for (let shard = 0; shard < limitsOf({ plan }).shards; shard += 1) {
    const { first, count } = itemsOf(shard, { plan });
    if (Bitmap.firstFree(done, failed, first) < first + count) continue;
    let isGood = true;
    for (let index = first; index < first + count; index += 1) isGood &&= done.has(index);
    settled[isGood ? "succeeded" : "failed"] += 1;
  }
  return settled;
}

function issued(state: Running, event: EventOf<"command.issued">, at: number): Running {
  const { command_id, step, activation, attempt, iter_index, first, count, kind } = event.meta;
  const shard = Math.floor((first ?? iter_index ?? 0) / limitsOf(state).batch);
  const isRetry = state.retries.get(shard)?.attempt === attempt;
  // Issued in order: a lower one was folded before, or is tried again.
  if (shard < state.next && !isRetry) return state;
  const items =
    first === undefined || count === undefined ? { iter_index } : { frame: { first, count } };
  const ids = { command_id, step, activation, attempt, ...items, kind };
  state.open.set(command_id, { ...issuedAs(ids, event.meta, at), shard });
  state.retries.delete(shard);
  state.next = Math.max(state.next, shard + 1);
  return state;
}

/** What waited while nobody could take it begins to wait now. */
function resumed(state: Running, { meta }: EventOf<"execution.resumed">, at: number): Running {
  waitAnew(state.open, at);
  return { ...state, pauses: meta.pause ?? 1, paused: false };
}

function moved(
  state: Running,
  event: EventOf<"command.claimed" | "command.expired" | "command.released">,
  at: number,
): void {
  const shard = state.open.get(event.meta.command_id);
  if (!shard) return;
  if (event.event_type === "command.released") park(state, shard, event);
  state.open.set(shard.command_id, evolveCommand(shard, event, at));
}

/** An attempt that is made again: what of it succeeded stays so. */
function failedForNow(state: Running, event: EventOf<"command.failed">, at: number): Running {
  const { command_id, ok, retry_at } = event.meta;
  const shard = taken(state, command_id);
  if (!shard || retry_at === undefined) return state;
  answer(state, at);
  accept(state, event, ok, "done");
  const { shard: place, attempt } = shard;
  state.retries.set(place, { shard: place, attempt: attempt + 1, retry_at });
  return state;
}

function ended(
  state: Running,
  event: EventOf<"loop.shard.done" | "loop.shard.failed">,
  at: number,
): Running {
  const { command_id, iter_index, ok, failed } = event.meta;
  if (!taken(state, command_id)) return state;
  answer(state, at);
  const isDone = event.event_type === "loop.shard.done";
  const single = String(iter_index ?? "");
  accept(state, event, isDone ? (ok ?? single) : (ok ?? ""), "done");
  if (isDone) {
    state.succeeded += 1;
    return state;
  }
  mark(state, failed ?? single, "failed");
  state.lost += 1;
  state.firstError ??= event.result.error;
  return state;
}

/** The shard of a command, which is open no longer. */
function taken({ open }: Running, id: string): Shard | undefined {
  const shard = open.get(id);
  open.delete(id);
  return shard;
}

/** Marks what a fact accepts, and adds its digest, which is of all that it accepts. */
function accept(
  state: Running,
  { meta }: { meta: { digest?: string | undefined } },
  ranges: string | undefined,
  word: "done" | "failed",
): void {
  mark(state, ranges ?? "", word);
  if (meta.digest !== undefined) state.digest = plus(state.digest, parseDigest(meta.digest));
}

function mark(state: Running, ranges: string, word: "done" | "failed"): void {
  for (const index of fromRanges(ranges, 0, state.plan.size) ?? []) {
    if (state.done.has(index) || state.failed.has(index)) continue;
    state[word].add(index);
    state[word === "done" ? "doneCount" : "failedCount"] += 1;
  }
}

function over(state: Running, { meta, result }: EventOf<"loop.fanin.completed">): FanoutState {
  const { execution_id, loop_id, step, activation, playbook } = state;
  const { status, total, done, succeeded, failed, stats } = meta;
  const { error } = (result ?? {}) as Partial<OutcomeResult>;
  const report: LoopReport = {
    ...{ type: "loop_done", loop_id, step, activation, stats, ctx: {} },
    status: status === "complete" || status === "partial" ? "ok" : status,
    fanin: { status, total, done, succeeded, failed },
    ...(error && { error }),
  };
  return { status: "done", execution_id, loop_id, step, activation, playbook, report };
}
