// The items of a loop that failed, each with its error and its value, read from the log.
import type { OutcomeResult, ResultReference } from "../schemas/events.ts";
import type { Json, JsonObject } from "../schemas/json.ts";
import { chunkAt, type ChunkIndex } from "../schemas/playbook/collection.ts";
import { fromRanges } from "../schemas/ranges.ts";
import { familyOf, indexesOf, outcomesOf, readSettled, type LoopName } from "./loop-values.ts";
import type { LoopOutcome } from "./postgres/loop-outcome.ts";
import type { Query } from "./postgres/index.ts";
import type { ValueStore } from "./values.ts";

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
  from: { database: Query; values: Pick<ValueStore, "load"> },
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

/** An item with its error; a cursor's row comes with it, as it is in no collection. */
type Failed = Pick<ItemFailure, "index" | "error"> & { item?: Json | undefined };

async function errorsOf(row: LoopOutcome, values: Pick<ValueStore, "load">): Promise<Failed[]> {
  const outcome = row.result as unknown as OutcomeResult;
  const { error = null } = outcome;
  if (row.iter_index !== null) return [{ index: row.iter_index, error }];
  const kept = outcome.reference ? await values.load(outcome.reference) : outcome.context;
  const { errors = {}, items = {} } = (kept ?? {}) as {
    errors?: Record<string, OutcomeResult["error"]>;
    items?: JsonObject;
  };
  const indexes = indexesOf(row, row.failed);
  if (row.rows === null) return indexes.map(index => ({ index, error: errors[index] ?? null }));
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
  values: Pick<ValueStore, "load">,
): Promise<Json> {
  if ((plan as { counted?: boolean } | undefined)?.counted) return index;
  if (Array.isArray(collection)) return collection[index] ?? null;
  if (!collection_ref) return null;
  try {
    const reference = collection_ref as unknown as ResultReference;
    const chunk = chunkAt((await values.load(reference)) as unknown as ChunkIndex, index);
    if (!chunk) return null;
    return ((await values.load(chunk.reference)) as Json[])[index - chunk.first] ?? null;
  } catch {
    return null;
  }
}
