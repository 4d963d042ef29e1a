// Going on with a fan-out: the next shards to issue, the end of an attempt, and the one fan-in.
import { acceptance, type Sets } from "../../schemas/accepted.ts";
import { Bitmap } from "../../schemas/bitmap.ts";
import type { OutcomeInput } from "../../schemas/command.ts";
import type { EventOf, NewEvent, OutcomeResult } from "../../schemas/events.ts";
import { commandId } from "../../schemas/ids.ts";
import { WORKER_LOST } from "../../schemas/lease.ts";
import { dropped } from "../../schemas/loop-turns.ts";
import { digestText, plus } from "../../schemas/loop-digest.ts";
import { needing } from "../../schemas/needs.ts";
import { toRanges } from "../../schemas/ranges.ts";
import { backoffMs } from "../../schemas/backoff.ts";
import { itemsOf, leftOf, limitsOf, type Retry, type Running, type Shard } from "./state.ts";

/** How far a fan-out is: the state's own counts, or those after facts just decided. */
export interface Tally {
  open: number;
  retries: number;
  /** Items. */
  success: number;
  failed: number;
  /** Shards. */
  succeeded: number;
  lost: number;
  digest?: bigint | undefined;
  error?: OutcomeResult["error"];
}

/** The counts of the state itself. */
export function tallyOf(state: Running): Tally {
  const { open, retries, doneCount: success, failedCount: failed, succeeded, lost } = state;
  return {
    ...{ open: open.size, retries: retries.size, success, failed, succeeded, lost },
    ...{ digest: state.digest, error: state.firstError },
  };
}

/** Whether nothing more is issued. Items that failed before and do not run again stop nothing. */
export function isStopped(state: Running, { failed }: Pick<Tally, "failed">): boolean {
  if (state.stopReason !== undefined) return true;
  const own = failed - (state.inheritedFailed ?? 0);
  const { fail_fast, tolerated = Infinity } = limitsOf(state);
  return (fail_fast && own > 0) || own > tolerated;
}

/**
 * Issues up to the window, in which also shards count that wait to be tried again: so an upstream
 * that is down parks the work. Ends the fan-out when nothing is left to do. A paused one does
 * neither.
 */
export function goOn(state: Running, tally: Tally): NewEvent[] {
  if (state.paused) return [];
  const stops = isStopped(state, tally);
  const issued = stops ? [] : issueUpTo(state.plan.window - tally.open - tally.retries, state);
  const waits = tally.open > 0 || (!stops && tally.retries > 0);
  return issued.length > 0 || waits ? issued : [fanIn(state, tally)];
}

function issueUpTo(room: number, state: Running): NewEvent[] {
  const { plan, done, failed } = state;
  const { batch } = limitsOf(state);
  const issued: NewEvent[] = [];
  for (let next = state.next; issued.length < room; next += 1) {
    const item = Bitmap.firstFree(done, failed, next * batch);
    if (item >= plan.size) break;
    // What an earlier fan-out has settled is not run again.
    next = Math.floor(item / batch);
    issued.push(issue(state, next, 1));
  }
  return issued;
}

/** Shards whose pause after a failed attempt is over. */
export function retriesDue(state: Running, now: number): NewEvent[] {
  if (state.paused || isStopped(state, tallyOf(state))) return [];
  const due = [...state.retries.values()].filter(({ retry_at }) => retry_at <= now);
  return due.map(({ shard, attempt }: Retry) => issue(state, shard, attempt));
}

/** A shard's identity is its loop, its place and the items' keys: the same in every attempt. */
function issue(state: Running, shard: number, attempt: number): EventOf<"command.issued"> {
  const { execution_id, step, activation, loop_id, plan } = state;
  const frame = itemsOf(shard, state);
  const items = limitsOf(state).batch === 1 ? { iter_index: shard } : { frame };
  const command_id = commandId({ execution_id, step, activation, attempt, ...items });
  return {
    event_type: "command.issued",
    node_name: step,
    meta: {
      ...{ command_id, step, activation, attempt, kind: plan.kind, loop_id },
      ...needing(plan.requires),
      ...("frame" in items ? frame : items),
      ...ofShard(shard, attempt, state),
    },
  };
}

function ofShard(shard: number, attempt: number, state: Running) {
  const { first, count } = itemsOf(shard, state);
  const iter_key = count === 1 ? String(first) : `${first}-${first + count - 1}`;
  return { shard_id: String(shard), iter_key, shard_attempt: attempt };
}

/** What an attempt came to: of its items those that succeeded now. */
export interface Ended extends Pick<OutcomeInput, "result" | "worker_id" | "stats"> {
  ok: number[];
}

/**
 * The end of a shard's attempt, and what it makes room for. A failure that nothing forbids to try
 * again is a failure of the attempt only; the shard fails in its last one.
 */
export function endAttempt(shard: Shard, outcome: Ended, state: Running, now: number): NewEvent[] {
  const left = leftOf(shard.shard, state);
  const succeeded = new Set(outcome.ok);
  const broken = left.filter(index => !succeeded.has(index));
  const before = tallyOf(state);
  const isDone = broken.length === 0;
  const goesOn = !isDone && mayRetry(shard, outcome, state, before);
  const sets = { ok: outcome.ok, failed: goesOn ? [] : broken };
  const { digest, fact } = acceptance(shard, outcome, { loop_id: state.loop_id, sets });
  const ids = ofShard(shard.shard, shard.attempt, state);
  const named = shard.frame && { ok: toRanges(outcome.ok), failed: toRanges(broken) };
  const meta = { ...fact.meta, ...ids, ...named };
  const after: Tally = {
    ...before,
    open: before.open - 1,
    success: before.success + outcome.ok.length,
    digest: plus(before.digest, digest),
  };
  if (goesOn) {
    const retry_at = now + backoffMs(shard, outcome.result.error);
    const { digest: text, ...rest } = meta;
    const facts = { ...rest, retry_at, ...(outcome.ok.length > 0 && { digest: text }) };
    const failed: NewEvent = { ...fact, event_type: "command.failed", meta: facts };
    return [failed, ...goOn(state, { ...after, retries: before.retries + 1 })];
  }
  const event_type = isDone ? "loop.shard.done" : "loop.shard.failed";
  after[isDone ? "succeeded" : "lost"] += 1;
  after.failed += broken.length;
  if (!isDone) after.error ??= outcome.result.error;
  return [{ ...fact, event_type, meta }, ...quicklyOn(shard, state, after)];
}

/** What killed its workers would kill more of them: it is not tried again. */
function mayRetry(shard: Shard, { result }: Ended, state: Running, tally: Tally): boolean {
  if (result.error?.code === WORKER_LOST || isStopped(state, tally)) return false;
  return shard.attempt <= limitsOf(state).max_retries;
}

/** With `fail_fast` the first lost shard also drops those that wait for a worker. */
function quicklyOn(ended: Shard, state: Running, tally: Tally): NewEvent[] {
  const isFirst = limitsOf(state).fail_fast && !isStopped(state, tallyOf(state));
  if (!isFirst || !isStopped(state, tally)) return goOn(state, tally);
  const idle = [...state.open.values()].filter(one => !one.holder && one !== ended);
  return [...dropped(idle, state), ...goOn(state, { ...tally, open: tally.open - idle.length })];
}

/** The facts of a part of a shard's report that does not end it: what succeeded so far. */
export function partOf(shard: Shard, input: OutcomeInput, sets: Sets, state: Running): NewEvent[] {
  const { frame } = shard;
  if (!frame || sets.ok.length === 0) return [];
  const { ctx: _ctx, ...outcome } = input;
  const accepted = { ok: sets.ok, failed: [] };
  const { fact } = acceptance(shard, outcome, { loop_id: state.loop_id, sets: accepted });
  const meta = { ...fact.meta, ...frame, final: false, ok: toRanges(sets.ok), failed: "" };
  return [{ ...fact, event_type: "frame.committed", meta }];
}

/** The one end of a fan-out that went its way. */
export function fanIn(state: Running, tally: Tally): NewEvent {
  const { plan, stopReason } = state;
  const { allow_partial, tolerated = Infinity } = limitsOf(state);
  const isWhole = tally.success + tally.failed === plan.size;
  if (isWhole && tally.failed === 0) return completed(state, tally, "complete");
  if (stopReason !== undefined && !isWhole) return cut(state, tally, stopReason);
  const mayBePartial = allow_partial && tally.failed <= tolerated;
  if (mayBePartial && tally.success > 0) return completed(state, tally, "partial");
  return completed(state, tally, "failed", tally.error ?? leftFailed(tally));
}

function leftFailed({ failed }: Tally): OutcomeResult["error"] {
  const message = `${failed} items that failed before were not run again`;
  return { kind: "logic", retryable: false, code: "FANOUT", message };
}

/** The end of a fan-out that was not allowed to go on. */
export function cut(state: Running, tally: Tally, reason: string): NewEvent {
  const error = { kind: "cancelled", retryable: false, code: "CANCELLED", message: reason };
  return completed(state, tally, "cancelled", error);
}

export function completed(
  state: Running,
  { success, failed: items, succeeded, lost: failed, digest }: Tally,
  status: EventOf<"loop.fanin.completed">["meta"]["status"],
  error?: OutcomeResult["error"],
): NewEvent {
  const { loop_id, step, activation, plan } = state;
  const stats = { total: plan.size, success, failed: items, not_run: plan.size - success - items };
  return {
    event_type: "loop.fanin.completed",
    node_name: step,
    meta: {
      ...{ loop_id, step, activation, status, total: limitsOf(state).shards },
      ...{ done: succeeded, succeeded, failed, collection_size: plan.size, stats },
      ...(digest !== undefined && { digest: digestText(digest) }),
    },
    ...(error ? { result: { status: "error", error } } : {}),
  };
}
