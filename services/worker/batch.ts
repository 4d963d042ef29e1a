// What a frame has done since it last told its owner.
import type { FrameReport, OutcomeInput } from "../../schemas/command.ts";
import { INLINE_RESULT_BYTES_MAX, type OutcomeResult } from "../../schemas/events.ts";
import { fits, roughBytes, type Json, type JsonObject } from "../../schemas/json.ts";
import { toRanges } from "../../schemas/ranges.ts";
import { isTooLarge, tooLargeFailure } from "./failures.ts";
import type { PipelineOutcome } from "./pipeline.ts";
import { cutError, keep, nameOf, type OpenCommand } from "./run.ts";

/** What is done is told this often, or when it has become this much (design §9). */
const FLUSH_MS = 2_000;
const FLUSH_BYTES = 65_536;

/** What a frame tells its owner. */
export type ToldFrame = Required<Pick<OutcomeInput, "result" | "frame" | "stats">> &
  Pick<OutcomeInput, "ctx">;

export interface Batch {
  count: number;
  /** Results by the item's number. */
  ok: Map<number, Json>;
  failed: number[];
  errors: JsonObject;
  /** Of failed items those that nobody else keeps. */
  items: JsonObject;
  /** Items that a rule ended early, as a success. */
  broke: number;
  /** Variables that these items wrote. */
  ctx: JsonObject;
  first?: OutcomeResult["error"];
  bytes: number;
  task_runs: number;
  retries: number;
  since: number;
}

export function emptyBatch(): Batch {
  return {
    ...{ count: 0, ok: new Map(), failed: [], errors: {}, items: {}, broke: 0, ctx: {} },
    ...{ bytes: 0, task_runs: 0, retries: 0 },
    since: performance.now(),
  };
}

export function isDue({ count, since, bytes }: Batch): boolean {
  return count > 0 && (performance.now() - since > FLUSH_MS || bytes > FLUSH_BYTES);
}

/** Of one item's result, in the report of a frame. */
const ITEM_BYTES_MAX = 32 * 1024 * 1024;

/** A report holds many results: one that is too large fails its item, and none of the others. */
export function withinBounds(outcome: PipelineOutcome): PipelineOutcome {
  try {
    const bytes = roughBytes(outcome.result);
    if (bytes <= ITEM_BYTES_MAX) return outcome;
    throw new RangeError(`the result of an item has ${bytes} bytes, ${ITEM_BYTES_MAX} are allowed`);
  } catch (error) {
    if (!isTooLarge(error)) throw error;
    return { ...outcome, status: "error", error: tooLargeFailure(error), result: null, ctx: {} };
  }
}

/** Takes in what an item came to, and what it wrote. Gives the bytes that it added. */
export function record(
  batch: Batch,
  index: number,
  outcome: PipelineOutcome,
  ctx: JsonObject,
): number {
  batch.count += 1;
  batch.task_runs += outcome.task_runs;
  batch.retries += outcome.retries;
  batch.ctx = { ...batch.ctx, ...ctx };
  const before = batch.bytes;
  if (outcome.status === "ok") {
    batch.ok.set(index, outcome.result);
    batch.broke += outcome.broke ? 1 : 0;
    batch.bytes += roughBytes(outcome.result);
  } else {
    batch.failed.push(index);
    const error = outcome.error && cutError(outcome.error);
    if (error) {
      batch.first ??= error;
      batch.errors[index] = { ...error };
      batch.bytes += error.message.length;
    }
  }
  return batch.bytes - before;
}

type Report = Omit<ToldFrame, "frame"> & { numbers: Pick<FrameReport, "ok" | "failed"> };

/** Results in the order of `ok`, and errors by number: inline when they fit in a row. */
export async function reportOf(command: OpenCommand, batch: Batch, place: string): Promise<Report> {
  const { errors, items, ctx, first, task_runs, retries, since } = batch;
  const ok = ascending(batch.ok.keys());
  const failed = ascending(batch.failed);
  const results = ok.map(index => batch.ok.get(index) ?? null);
  const data: Json = {
    ok: results,
    ...(failed.length > 0 && { errors }),
    ...(Object.keys(items).length > 0 && { items }),
  };
  return {
    result: {
      status: "ok",
      ...(await keptOf(command, data, place)),
      ...(first && { error: first }),
    },
    numbers: { ok: toRanges(ok), failed: toRanges(failed) },
    ...(Object.keys(ctx).length > 0 && { ctx }),
    stats: { task_runs, retries, duration_ms: Math.round(performance.now() - since) },
  };
}

/** A value of a report: inline when it fits in a row, else in a tier. */
export async function keptOf(
  command: OpenCommand,
  data: Json,
  place: string,
): Promise<Pick<OutcomeResult, "context" | "reference">> {
  if (fits(data, INLINE_RESULT_BYTES_MAX)) return { context: data };
  return { reference: await keep(command, nameOf(command.grant, "result", place), data) };
}

function ascending(numbers: Iterable<number>): number[] {
  return [...numbers].sort((one, other) => one - other);
}
