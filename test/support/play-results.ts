/** What a loop's log says of it: its results in input order, and what a redrive inherits. */
import { Bitmap } from "../../schemas/bitmap.ts";
import type { StoredEvent } from "../../schemas/events.ts";
import type { Json, JsonObject } from "../../schemas/json.ts";
import { RESULTS_BLOCK } from "../../schemas/playbook/stored-result.ts";
import { fromRanges } from "../../schemas/ranges.ts";

type LogOf = (loopId: string) => StoredEvent[];

/** What the log keeps under a reference of the tier `log`; undefined when it is no such one. */
export function logValue(ref: string, log: LogOf, extract?: JsonObject): Json | undefined {
  const [, loopId, what, refs, block] =
    /\/loop\/([0-9]+)\/(results|origin)(\/refs)?(?:\/([0-9]+))?$/.exec(ref) ?? [];
  if (loopId === undefined) return undefined;
  if (what === "origin") return originOf(loopId, log);
  const values = resultsOf(loopId, log);
  const named = (at: number) => ({ ref: `${ref.split("/refs")[0]}/item/${at}` });
  const results = refs ? values.map((one, at) => (one === null ? null : named(at))) : values;
  if (block) return results.slice(Number(block) * RESULTS_BLOCK).slice(0, RESULTS_BLOCK);
  return { ...extract, results, data: results };
}

/** By a loop's id. Of a redriven loop, over the results of the one it goes on with. */
function resultsOf(loopId: string, log: LogOf): Json[] {
  const { meta } = startOf(loopId, log);
  const results = meta.redrive_of
    ? resultsOf(meta.redrive_of, log)
    : Array.from<Json>({ length: meta.collection_size }).fill(null);
  for (const event of log(loopId)) {
    const { ok, values } = givenBy(event);
    for (const [at, index] of ok.entries()) results[index] = values[at] ?? null;
  }
  return results;
}

/** The items that a fact accepts as successes, with their results. */
function givenBy(event: StoredEvent): { ok: number[]; values: Json[] } {
  const { iter_index, ok } = event.meta as { iter_index?: number; ok?: string };
  const context = (event.result as { context?: Json } | undefined)?.context ?? null;
  if (ok !== undefined && ok !== "") {
    return { ok: fromRanges(ok, 0, Infinity) ?? [], values: (context as { ok: Json[] }).ok };
  }
  const isOne = /^(command\.completed|loop\.shard\.done)$/.test(event.event_type);
  return isOne && ok === undefined ? { ok: [iter_index ?? 0], values: [context] } : NONE;
}

const NONE = { ok: [], values: [] };

/** Items that a fact accepts as failures: an attempt of a shard that is made again has none. */
function lostBy({ event_type, meta }: StoredEvent): number[] {
  const { iter_index = 0, failed, shard_id } = meta as Record<string, unknown>;
  if (event_type === "command.failed") return shard_id === undefined ? [Number(iter_index)] : [];
  if (event_type !== "loop.shard.failed" && event_type !== "frame.committed") return [];
  if (failed === undefined) return [Number(iter_index)];
  return fromRanges(String(failed), 0, Infinity) ?? [];
}

/** The indexes that a loop's own log settles, as often as it does. */
export function settledBy(loopId: string, log: LogOf): { ok: number[]; failed: number[] } {
  const events = log(loopId);
  return { ok: events.flatMap(event => givenBy(event).ok), failed: events.flatMap(lostBy) };
}

function startOf(loopId: string, log: LogOf) {
  const [first] = log(loopId);
  if (first?.event_type === "loop.started") return first;
  if (first?.event_type === "loop.fanout.started") return first;
  throw new Error(`loop ${loopId} never started`);
}

/** The plan, the collection and what is settled, as `LoopOrigin` has it. */
function originOf(loopId: string, log: LogOf): Json {
  const { context = {}, meta } = startOf(loopId, log);
  const { plan = null, collection, collection_ref, inherited } = context;
  const before = inherited as { ok: string; failed: string } | undefined;
  const sets = {
    ok: Bitmap.ofSize(meta.collection_size),
    failed: Bitmap.ofSize(meta.collection_size),
  };
  if (before) sets.ok.join(Bitmap.fromText(before.ok));
  if (before) sets.failed.join(Bitmap.fromText(before.failed));
  const own = settledBy(loopId, log);
  for (const index of own.ok) sets.ok.add(index);
  for (const index of own.failed) sets.failed.add(index);
  return {
    plan,
    ...(collection !== undefined && { collection }),
    ...(collection_ref !== undefined && { collection_ref }),
    ...{ ok: sets.ok.toText(), failed: sets.failed.toText() },
  };
}
