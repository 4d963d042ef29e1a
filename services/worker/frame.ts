// A frame at its worker: items one after the other, told to the owner as they are done.
import type { OutcomeInput } from "../../schemas/command.ts";
import { INLINE_RESULT_BYTES_MAX, type OutcomeResult } from "../../schemas/events.ts";
import { fits, roughBytes, type Json, type JsonObject } from "../../schemas/json.ts";
import { toRanges } from "../../schemas/ranges.ts";
import { leftOf } from "./items.ts";
import type { PipelineOutcome } from "./pipeline.ts";
import { cutError, keep, nameOf, runItem, writesOf, type OpenCommand } from "./run.ts";

/** What is done is told this often, or when it has become this much (design §9). */
const FLUSH_MS = 2_000;
const FLUSH_BYTES = 65_536;
/** Quick items must not keep the event loop from beats and other commands. */
const TURN_MS = 10;

/** What a frame tells its owner. */
export type FlushedFrame = Required<Pick<OutcomeInput, "result" | "frame" | "stats">> &
  Pick<OutcomeInput, "ctx">;

/** The outcomes of items since the last flush. */
interface Batch {
  ok: number[];
  failed: number[];
  results: Json[];
  errors: JsonObject;
  /** Variables that these items wrote. */
  ctx: JsonObject;
  first?: OutcomeResult["error"];
  bytes: number;
  task_runs: number;
  retries: number;
  since: number;
}

/**
 * Runs a frame's items in order, and stops when more have failed than may. `flush` tells the owner,
 * and answers false when the frame is no longer this worker's. An abort tells what is done, and
 * throws.
 */
export async function runFrame(
  command: OpenCommand,
  flush: (report: FlushedFrame) => Promise<boolean>,
): Promise<void> {
  const { frame } = command.grant;
  const { signal } = command.options;
  let batch = emptyBatch();
  let seen: JsonObject = {};
  let flushes = 0;
  let failures = 0;
  let yieldedAt = performance.now();

  async function tell(final: boolean): Promise<boolean> {
    flushes += 1;
    const report = await reportOf(command, batch, { final, flushes });
    batch = emptyBatch();
    return flush(report);
  }

  for (const item of leftOf(command.grant)) {
    const { index } = item;
    let outcome: PipelineOutcome;
    try {
      signal.throwIfAborted();
      outcome = await runItem(command, item, frame?.sequential ? seen : {});
    } catch (error) {
      if (batch.ok.length + batch.failed.length > 0) await tell(false);
      throw error;
    }
    const { ctx = {} } = await writesOf(command, outcome, index);
    seen = { ...seen, ...ctx };
    batch.ctx = { ...batch.ctx, ...ctx };
    if (outcome.status === "error") failures += 1;
    record(batch, index, outcome);
    if (failures > (frame?.tolerance ?? 0)) break;
    const now = performance.now();
    const isDue = now - batch.since > FLUSH_MS || batch.bytes > FLUSH_BYTES;
    if (isDue && !(await tell(false))) return;
    if (now - yieldedAt > TURN_MS) {
      await new Promise(resolve => setImmediate(resolve));
      yieldedAt = performance.now();
    }
  }
  await tell(true);
}

function emptyBatch(): Batch {
  return {
    ...{ ok: [], failed: [], results: [], errors: {}, ctx: {} },
    ...{ bytes: 0, task_runs: 0, retries: 0 },
    since: performance.now(),
  };
}

function record(batch: Batch, index: number, outcome: PipelineOutcome): void {
  batch.task_runs += outcome.task_runs;
  batch.retries += outcome.retries;
  if (outcome.status === "ok") {
    batch.ok.push(index);
    batch.results.push(outcome.result);
    batch.bytes += roughBytes(outcome.result);
    return;
  }
  batch.failed.push(index);
  const error = outcome.error && cutError(outcome.error);
  if (!error) return;
  batch.first ??= error;
  batch.errors[index] = { ...error };
  batch.bytes += error.message.length;
}

/** Results in the order of `ok`, and errors by index: inline when they fit in a row. */
async function reportOf(
  command: OpenCommand,
  batch: Batch,
  { final, flushes }: { final: boolean; flushes: number },
): Promise<FlushedFrame> {
  const { ok, failed, results, errors, ctx, first, task_runs, retries, since } = batch;
  const data: Json = { ok: results, ...(failed.length > 0 && { errors }) };
  const { grant } = command;
  const place = `f${grant.frame?.first}-${grant.frame?.count}-${flushes}`;
  const kept = fits(data, INLINE_RESULT_BYTES_MAX)
    ? { context: data }
    : { reference: await keep(command, nameOf(grant, "result", place), data) };
  return {
    result: { status: "ok", ...kept, ...(first && { error: first }) },
    frame: { ok: toRanges(ok), failed: toRanges(failed), final },
    ...(Object.keys(ctx).length > 0 && { ctx }),
    stats: { task_runs, retries, duration_ms: Math.round(performance.now() - since) },
  };
}
