/** What a loop's log says of it: its results in input order, and what a redrive inherits. */
import { Bitmap } from "../../schemas/bitmap.ts";
import type { StoredEvent } from "../../schemas/events.ts";
import type { Json } from "../../schemas/json.ts";
import { fromRanges } from "../../schemas/ranges.ts";

type LogOf = (loopId: string) => StoredEvent[];

/** By a loop's id. Of a redriven loop, over the results of the one it goes on with. */
export function resultsOf(loopId: string, log: LogOf): Json[] {
  const { meta } = startOf(loopId, log);
  const results = meta.redrive_of
    ? resultsOf(meta.redrive_of, log)
    : Array.from<Json>({ length: meta.collection_size }).fill(null);
  for (const event of log(loopId)) {
    if (event.event_type === "command.completed") {
      results[event.meta.iter_index ?? 0] = event.result.context ?? null;
    } else if (event.event_type === "frame.committed") {
      const values = (event.result.context as { ok: Json[] }).ok;
      const indexes = fromRanges(event.meta.ok, 0, Infinity) ?? [];
      for (const [at, index] of indexes.entries()) results[index] = values[at] ?? null;
    }
  }
  return results;
}

function startOf(loopId: string, log: LogOf) {
  const [first] = log(loopId);
  if (first?.event_type !== "loop.started") throw new Error(`loop ${loopId} never started`);
  return first;
}

/** The plan, the collection and what is settled, as `LoopOrigin` has it. */
export function originOf(loopId: string, log: LogOf): Json {
  const { context = {}, meta } = startOf(loopId, log);
  const { plan = null, collection, collection_ref, inherited } = context;
  const before = inherited as { ok: string; failed: string } | undefined;
  const sets = {
    ok: Bitmap.ofSize(meta.collection_size),
    failed: Bitmap.ofSize(meta.collection_size),
  };
  if (before) sets.ok.join(Bitmap.fromText(before.ok));
  if (before) sets.failed.join(Bitmap.fromText(before.failed));
  for (const event of log(loopId)) {
    if (event.event_type === "command.completed") sets.ok.add(event.meta.iter_index ?? 0);
    if (event.event_type === "command.failed") sets.failed.add(event.meta.iter_index ?? 0);
    if (event.event_type !== "frame.committed") continue;
    for (const index of fromRanges(event.meta.ok, 0, Infinity) ?? []) sets.ok.add(index);
    for (const index of fromRanges(event.meta.failed, 0, Infinity) ?? []) sets.failed.add(index);
  }
  return {
    plan,
    ...(collection !== undefined && { collection }),
    ...(collection_ref !== undefined && { collection_ref }),
    ...{ ok: sets.ok.toText(), failed: sets.failed.toText() },
  };
}
