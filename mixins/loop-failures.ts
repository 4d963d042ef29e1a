// The items of a loop that failed, each with its error and its value, read from the log.
import type { OutcomeResult, ResultReference } from "../schemas/events.ts";
import type { Json, JsonObject } from "../schemas/json.ts";
import { fromRanges } from "../schemas/ranges.ts";
import { familyOf, indexesOf, outcomesOf, readSettled, type LoopName } from "./loop-log.ts";
import type { LoopOutcome } from "./postgres/loop-outcome.ts";
import type { Query } from "./postgres/index.ts";
import type { ValueLoader } from "./values.ts";

export interface ItemFailure {
  index: number;
  /** Null when the collection is kept no longer. */
  item: Json;
  error: OutcomeResult["error"] | null;
}

/**
 * Failed items in order of acceptance, one page of the log in memory at a time. Of a redriven loop
 * those that failed again, then those that failed before and did not run again.
 */
export async function* failuresOf(
  from: { database: Query; values: ValueLoader },
  loop: LoopName,
): AsyncIterable<ItemFailure> {
  const { database, values } = from;
  const { failed: left, start } = await readSettled(database, loop);
  for (const one of (await familyOf(database, loop)).toReversed()) {
    for await (const row of outcomesOf(database, one, { failed: true })) {
      for (const { index, error, item } of await errorsOf(row, values)) {
        if (!left.has(index)) continue;
        left.delete(index);
        const known = item ?? (await itemAt(start.context ?? {}, index, values));
        yield { index, item: known, error };
      }
    }
  }
}

/** Failures that a template sees: `noetl failures` shows all of them. */
const SHOWN_MAX = 1_000;

/** The first failures that were met, by index. */
export async function firstFailures(
  database: Query,
  loop: LoopName,
  values: ValueLoader,
): Promise<Json> {
  const shown: ItemFailure[] = [];
  for await (const failure of failuresOf({ database, values }, loop)) {
    if (shown.push(failure) >= SHOWN_MAX) break;
  }
  return shown.sort((one, other) => one.index - other.index) as unknown as Json;
}

/** An item with its error; a cursor's row comes with it, as it is in no collection. */
type Failed = Pick<ItemFailure, "index" | "error"> & { item?: Json | undefined };

async function errorsOf(row: LoopOutcome, values: ValueLoader): Promise<Failed[]> {
  const outcome = row.result as unknown as OutcomeResult;
  const { error = null } = outcome;
  if (row.iter_index !== null) return [{ index: row.iter_index, error }];
  const kept = outcome.reference ? await values.load(outcome.reference) : outcome.context;
  const { errors = {}, items = {} } = (kept ?? {}) as {
    errors?: Record<string, OutcomeResult["error"]>;
    items?: JsonObject;
  };
  const indexes = indexesOf(row, row.failed);
  if (row.rows === null) return indexes.map(index => ({ index, error: errors[index] ?? error }));
  const numbers = fromRanges(row.rows, 0, Infinity) ?? [];
  return indexes.map(index => {
    const number = numbers[index - (row.first ?? 0)] ?? -1;
    // Of rows that failed together the report has one error.
    return { index, error: errors[number] ?? error, item: items[number] };
  });
}

/** The item as `loop.started` froze it. */
async function itemAt(
  { plan, collection, collection_ref }: JsonObject,
  index: number,
  values: ValueLoader,
): Promise<Json> {
  if ((plan as { counted?: boolean } | undefined)?.counted) return index;
  if (Array.isArray(collection)) return collection[index] ?? null;
  if (!collection_ref) return null;
  try {
    return await values.item(collection_ref as unknown as ResultReference, index);
  } catch {
    return null;
  }
}
