// What the log keeps of a loop that is over: its results, and what a redrive inherits of it.
import { Rejected } from "../schemas/errors.ts";
import type { OutcomeResult, ResultReference } from "../schemas/events.ts";
import { isObject, type Json } from "../schemas/json.ts";
import { RESULTS_BLOCK } from "../schemas/playbook/stored-result.ts";
import { firstFailures } from "./loop-failures.ts";
import { familyOf, indexesOf, outcomesOf, readSettled, type LoopName } from "./loop-log.ts";
import type { LoopOutcome } from "./postgres/loop-outcome.ts";
import type { Query } from "./postgres/index.ts";
import type { ValueLoader } from "./values.ts";

/** A loop's results as one list, at most: above it a template must not ask for the whole. */
const RESULTS_BYTES_MAX = 64 * 1024 * 1024;

/**
 * The value behind a reference of the tier `log`: a loop's results, a block of them or of the
 * references to them, one of them, its first failures, or its origin.
 */
export async function fetchFromLog(
  database: Query,
  reference: ResultReference,
  values: ValueLoader,
): Promise<Json> {
  const match = /execution\/([0-9]+)\/loop\/([0-9]+)\/(results|origin)(?:\/(.+))?$/.exec(
    reference.ref,
  );
  const [, execution_id = "0", loop_id = "0", what, part] = match ?? [];
  const loop = { execution_id, loop_id };
  if (what === "origin") return fetchOrigin(database, loop);
  if (part === "failures") return firstFailures(database, loop, values);
  const [, kind, number = ""] = /^(refs\/|item\/)?(\d{1,7})$/.exec(part ?? "") ?? [];
  if (kind === "item/") {
    const index = Number(number);
    const one = await fetchResults(database, loop, { from: index, to: index + 1 }, values);
    return one.results[0] ?? null;
  }
  if (number !== "") {
    const from = Number(number) * RESULTS_BLOCK;
    const block = { from, to: from + RESULTS_BLOCK };
    if (kind === "refs/") return fetchRefs(database, loop, block);
    return (await fetchResults(database, loop, block, values)).results;
  }
  if (!match || part !== undefined) throw new Rejected(`${reference.ref} names nothing`, 404);
  const { total = 0 } = (reference.extract?.["stats"] ?? {}) as { total?: number };
  const { results, frames } = await fetchResults(database, loop, { from: 0, to: total }, values);
  const isCursor = reference.extract?.["frame_count"] !== undefined;
  return { ...reference.extract, results, data: results, ...(isCursor && { frames }) };
}

/**
 * Of the indexes `from` … `to - 1`, in input order; null for an item that failed or never ran. What
 * a step gave for all rows of a cursor's frame (`process: frame`) is one result, in order of
 * acceptance.
 */
async function fetchResults(
  database: Query,
  loop: LoopName,
  { from, to }: { from: number; to: number },
  values: ValueLoader,
): Promise<{ results: Json[]; frames: Json[] }> {
  const results = Array.from<Json>({ length: to - from }).fill(null);
  const whole: Json[] = [];
  const frames: Json[] = [];
  const place = (index: number, value: Json) => {
    if (index >= from && index < to) results[index - from] = value;
  };
  let bytes = 0;
  for (const one of await familyOf(database, loop)) {
    for await (const row of outcomesOf(database, one, { from, to })) {
      const outcome = row.result as unknown as OutcomeResult;
      // A shard that failed says so of the whole; items of it may have succeeded.
      if (outcome.status !== "ok" && !row.ok) continue;
      if (row.frame) frames.push(row.frame as Json);
      bytes += outcome.reference?.bytes ?? 64;
      if (bytes > RESULTS_BYTES_MAX) throw tooLarge(loop);
      const { reference, context = null } = outcome;
      const value = reference ? await values.load(reference) : context;
      if (row.iter_index !== null) place(row.iter_index, value);
      else if (isObject(value) && value["frame"] !== undefined) whole.push(value["frame"]);
      else placeFrame(row, value, place);
    }
  }
  return { results: whole.length > 0 ? whole : results, frames };
}

/**
 * Where the result of each item is, in input order; null for one that failed or never ran. A result
 * that lies in the log has a reference there.
 */
async function fetchRefs(
  database: Query,
  loop: LoopName,
  { from, to }: { from: number; to: number },
): Promise<Json[]> {
  const refs = Array.from<Json>({ length: to - from }).fill(null);
  const results = `noetl://execution/${loop.execution_id}/loop/${loop.loop_id}/results`;
  const place = (index: number, kept?: ResultReference) => {
    if (index < from || index >= to) return;
    const { ref, tier, bytes } = kept ?? { ref: `${results}/item/${index}`, tier: "log", bytes: 0 };
    refs[index - from] = { ref, tier, bytes };
  };
  for (const one of await familyOf(database, loop)) {
    for await (const row of outcomesOf(database, one, { from, to })) {
      const { reference } = row.result as unknown as OutcomeResult;
      if (row.iter_index !== null && row.isOk) place(row.iter_index, reference);
      // The results of a shard that has several are kept together.
      for (const index of indexesOf(row, row.ok)) place(index);
    }
  }
  return refs;
}

function tooLarge({ loop_id }: LoopName): Rejected {
  return new Rejected(
    `the results of loop ${loop_id} are larger than ${RESULTS_BYTES_MAX} bytes together; ` +
      "name single ones: results[i]",
    413,
  );
}

/** A frame's results lie in the order of its successful items. */
function placeFrame(
  row: LoopOutcome,
  value: Json,
  place: (index: number, value: Json) => void,
): void {
  const values = (value as { ok?: Json[] }).ok ?? [];
  for (const [at, index] of indexesOf(row, row.ok).entries()) place(index, values[at] ?? null);
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
