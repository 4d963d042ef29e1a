/** The results of a loop as its log has them, in input order. */
import type { StoredEvent } from "../../schemas/events.ts";
import type { Json, JsonObject } from "../../schemas/json.ts";
import { fromRanges } from "../../schemas/ranges.ts";

export function resultsOf(events: StoredEvent[], extract: JsonObject | undefined): Json[] {
  const { total } = extract?.["stats"] as { total: number };
  const results = Array.from<Json>({ length: total }).fill(null);
  for (const event of events) {
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
