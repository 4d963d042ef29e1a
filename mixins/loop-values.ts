// What the log keeps of a loop that is over: its results, and what a redrive inherits of it.
import { Bitmap } from "../schemas/bitmap.ts";
import { Rejected } from "../schemas/errors.ts";
import type { EventOf, OutcomeResult, ResultReference } from "../schemas/events.ts";
import { isObject, type Json } from "../schemas/json.ts";
import { fromRanges } from "../schemas/ranges.ts";
import { readStream } from "./postgres/event.ts";
import { countRows, pageLoopOutcomes, type LoopOutcome } from "./postgres/loop-outcome.ts";
import type { Query } from "./postgres/index.ts";

/** A loop's results as one list, at most: above it a template must not ask for the whole. */
const LOOP_RESULTS_BYTES_MAX = 64 * 1024 * 1024;

const PAGE = 2_000;

export interface LoopName {
  execution_id: string;
  loop_id: string;
}

type Load = (reference: ResultReference) => Promise<Json>;

/** The value behind a reference of the tier `log`. */
export async function fetchFromLog(
  database: Query,
  reference: ResultReference,
  load: Load,
): Promise<Json> {
  const match = /execution\/([0-9]+)\/loop\/([0-9]+)\/(results|origin)$/.exec(reference.ref);
  if (!match) throw new Rejected(`${reference.ref} names nothing of the log`, 404);
  const [, execution_id = "0", loop_id = "0", what] = match;
  const loop = { execution_id, loop_id };
  if (what === "origin") return fetchOrigin(database, loop);
  const stats = (reference.extract?.["stats"] ?? {}) as { total?: number };
  const { results, frames } = await fetchResults(database, loop, stats.total ?? 0, load);
  const isCursor = reference.extract?.["frame_count"] !== undefined;
  return { ...reference.extract, results, data: results, ...(isCursor && { frames }) };
}

/**
 * In input order; an iteration that failed or never ran is null. What a step gave for all rows of a
 * cursor's frame (`process: frame`) is one result, in order of acceptance.
 */
async function fetchResults(database: Query, loop: LoopName, total: number, load: Load) {
  const results = Array.from<Json>({ length: total }).fill(null);
  const whole: Json[] = [];
  const frames: Json[] = [];
  let bytes = 0;
  for (const one of await familyOf(database, loop)) {
    for await (const row of outcomesOf(database, one)) {
      const outcome = row.result as unknown as OutcomeResult;
      if (outcome.status !== "ok") continue;
      if (row.frame) frames.push(row.frame as Json);
      bytes += outcome.reference?.bytes ?? 64;
      if (bytes > LOOP_RESULTS_BYTES_MAX) {
        throw new Rejected(
          `the results of loop ${loop.loop_id} are larger than ` +
            `${LOOP_RESULTS_BYTES_MAX} bytes together`,
          413,
        );
      }
      const value = outcome.reference ? await load(outcome.reference) : (outcome.context ?? null);
      if (row.iter_index !== null) results[row.iter_index] = value;
      else if (isObject(value) && value["frame"] !== undefined) whole.push(value["frame"]);
      else placeFrame(results, row, value);
    }
  }
  return { results: whole.length > 0 ? whole : results, frames };
}

/** A frame's results lie in the order of its successful items. */
function placeFrame(results: Json[], row: LoopOutcome, value: Json): void {
  const values = (value as { ok?: Json[] }).ok ?? [];
  for (const [at, index] of indexesOf(row, row.ok).entries()) results[index] = values[at] ?? null;
}

/** The indexes of one of a frame's sets. */
export function indexesOf({ first, count }: LoopOutcome, ranges: string | null): number[] {
  return fromRanges(ranges ?? "", first ?? 0, (first ?? 0) + (count ?? 0)) ?? [];
}

/** How a loop started. Throws Rejected 404 when its log is kept no longer. */
export async function readLoopStart(
  database: Query,
  { execution_id, loop_id }: LoopName,
): Promise<EventOf<"loop.started">> {
  const [first] = await readStream(database, { execution_id, stream_id: loop_id }, 0, 1);
  if (first?.event_type === "loop.started") return first;
  throw new Rejected(`the log of loop ${loop_id} is kept no longer`, 404);
}

/** The loops that a loop goes on with, the first one first, and itself. */
export async function familyOf(
  database: Query,
  { execution_id, loop_id }: LoopName,
): Promise<LoopName[]> {
  const family: LoopName[] = [];
  for (let next: string | undefined = loop_id; next !== undefined;) {
    family.unshift({ execution_id, loop_id: next });
    next = (await readLoopStart(database, { execution_id, loop_id: next })).meta.redrive_of;
  }
  return family;
}

/** Accepted outcomes of a loop's own iterations, in order of acceptance. */
export async function* outcomesOf(
  database: Query,
  loop: LoopName,
  only: { failed?: boolean } = {},
): AsyncIterable<LoopOutcome> {
  let after = 0;
  for (;;) {
    const rows = await pageLoopOutcomes(database, { ...loop, ...only, after, limit: PAGE });
    yield* rows;
    if (rows.length < PAGE) return;
    after = rows.at(-1)?.version ?? after;
  }
}

/** `LoopOrigin` of the language: plan and collection, and what is settled. */
async function fetchOrigin(database: Query, loop: LoopName): Promise<Json> {
  const { ok, failed, start } = await readSettled(database, loop);
  const { plan = null, collection, collection_ref } = start.context ?? {};
  return {
    plan,
    ...(collection !== undefined && { collection }),
    ...(collection_ref !== undefined && { collection_ref }),
    ...{ ok: ok.toText(), failed: failed.toText() },
  };
}

/** How a loop started, and what of it is settled: by itself, or before it. */
export async function readSettled(database: Query, loop: LoopName) {
  const start = await readLoopStart(database, loop);
  const inherited = start.context?.["inherited"] as { ok: string; failed: string } | undefined;
  const isCursor = start.meta.mode === "cursor";
  const size = isCursor ? await countRows(database, loop) : start.meta.collection_size;
  const empty = () => Bitmap.ofSize(size);
  const ok = inherited ? Bitmap.fromText(inherited.ok) : empty();
  const failed = inherited ? Bitmap.fromText(inherited.failed) : empty();
  for await (const row of outcomesOf(database, loop)) {
    if (row.iter_index !== null) (row.isOk ? ok : failed).add(row.iter_index);
    for (const index of indexesOf(row, row.ok)) ok.add(index);
    for (const index of indexesOf(row, row.failed)) failed.add(index);
  }
  return { ok, failed, start };
}
