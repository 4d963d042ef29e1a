// The items of a loop that failed, each with its error and its value, read from the log.
import type { OutcomeResult, ResultReference } from "../schemas/events.ts";
import type { Json, JsonObject } from "../schemas/json.ts";
import { chunkAt, type ChunkIndex } from "../schemas/playbook/collection.ts";
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
      const errors = await errorsOf(row, values);
      for (const [index, error] of errors) {
        if (!left.has(index)) continue;
        left.delete(index);
        yield { index, item: await itemAt(start.context ?? {}, index, values), error };
      }
    }
  }
}

type Errors = [number, OutcomeResult["error"] | null][];

async function errorsOf(row: LoopOutcome, values: Pick<ValueStore, "load">): Promise<Errors> {
  const outcome = row.result as unknown as OutcomeResult;
  if (row.iter_index !== null) return [[row.iter_index, outcome.error ?? null]];
  const kept = outcome.reference ? await values.load(outcome.reference) : outcome.context;
  const { errors = {} } = (kept ?? {}) as { errors?: Record<string, OutcomeResult["error"]> };
  return indexesOf(row, row.failed).map(index => [index, errors[index] ?? null]);
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
