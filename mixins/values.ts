// Values behind references: playbooks of the catalog, stored results, and the results of loops in
// the log.
import { Rejected, errorType } from "../schemas/errors.ts";
import type { Needs } from "../schemas/decider.ts";
import type { OutcomeResult, ResultReference } from "../schemas/events.ts";
import { isObject, type Json } from "../schemas/json.ts";
import { parsePlaybook } from "../schemas/playbook/parse.ts";
import { fromRanges } from "../schemas/ranges.ts";
import { CATALOG_PREFIX, LostValue } from "../schemas/playbook/stored-result.ts";
import type { Values } from "./actor.ts";
import { findPlaybook } from "./postgres/catalog.ts";
import { readLoopOutcomes, type LoopOutcome } from "./postgres/event.ts";
import type { Query } from "./postgres/index.ts";
import type { ResultStore } from "./result-store/index.ts";

/** Bytes of loaded values kept in memory; the least recently loaded go first. */
const KEPT_BYTES_MAX = 64 * 1024 * 1024;
/** A decision asks for its values one by one: each stays until it has had time for the others. */
const KEPT_MS = 5_000;
/** A loop's results as one list, at most: above it a template must not ask for the whole. */
const LOOP_RESULTS_BYTES_MAX = 64 * 1024 * 1024;
const PLAYBOOK_BYTES = 65_536;
const LOST_BYTES = 256;
/** Names of stored values remembered: more than one decision ever asks for (chunks of a loop). */
const STORED_MAX = 20_000;
const STORES_AT_ONCE = 8;

export interface ValueStore extends Values {
  /** The value behind a reference, from memory or its tier. */
  load(reference: ResultReference): Promise<Json>;
}

/** Values in memory, within a bound; the least recently loaded go first. */
function createMemory() {
  const loaded = new Map<string, Json | LostValue>();
  const kept = new Map<string, { size: number; until: number }>();
  let bytes = 0;

  function keep(ref: string, value: Json | LostValue, size: number): void {
    if (loaded.has(ref)) return;
    const now = performance.now();
    loaded.set(ref, value);
    kept.set(ref, { size, until: now + KEPT_MS });
    bytes += size;
    for (const [oldest, one] of kept) {
      if (bytes <= KEPT_BYTES_MAX || one.until > now) break;
      bytes -= one.size;
      loaded.delete(oldest);
      kept.delete(oldest);
    }
  }

  return { loaded, keep };
}

/** The values of one process. `loaded` and `stored` are read by decisions; `provide` fills them. */
export function createValues(from: { database: Query; results: ResultStore }): ValueStore {
  const { loaded, keep } = createMemory();
  const stored = new Map<string, ResultReference>();
  const loading = new Map<string, Promise<Json>>();

  async function fetch(reference: ResultReference): Promise<Json> {
    const { ref } = reference;
    if (ref.startsWith(CATALOG_PREFIX)) {
      const playbook = await fetchPlaybook(from.database, ref);
      keep(ref, playbook, PLAYBOOK_BYTES);
      return playbook;
    }
    const value =
      reference.tier === "log"
        ? await fetchLoopResults(from.database, reference, load)
        : await from.results.get(reference);
    // A loop's size is not in its reference: only that it is over, so it no longer changes.
    keep(ref, value, reference.bytes || JSON.stringify(value).length);
    return value;
  }

  async function load(reference: ResultReference): Promise<Json> {
    const known = loaded.get(reference.ref);
    if (known instanceof LostValue) throw new Rejected(known.message, 404);
    if (known !== undefined) return known;
    let promise = loading.get(reference.ref);
    if (!promise) {
      promise = fetch(reference).finally(() => loading.delete(reference.ref));
      loading.set(reference.ref, promise);
    }
    return promise;
  }

  async function keepNew({ name, value }: Needs["store"][number]): Promise<void> {
    const reference = await from.results.put(name, value);
    stored.set(name, reference);
    keep(reference.ref, value, reference.bytes);
    if (stored.size > STORED_MAX) stored.delete(stored.keys().next().value as string);
  }

  return {
    loaded,
    stored,
    load,
    async provide(needs: Needs) {
      for (const reference of needs.load) {
        // Gone for good: the decision that asks again is told so, and its step fails.
        await load(reference).catch((error: unknown) => {
          if (errorType(error) !== "REJECTED") throw error;
          keep(reference.ref, new LostValue((error as Error).message), LOST_BYTES);
        });
      }
      for (let at = 0; at < needs.store.length; at += STORES_AT_ONCE) {
        await Promise.all(needs.store.slice(at, at + STORES_AT_ONCE).map(keepNew));
      }
    },
  };
}

async function fetchPlaybook(database: Query, ref: string): Promise<Json> {
  const match = /^(.*)@([0-9]+)#[0-9a-f]+$/.exec(ref.slice(CATALOG_PREFIX.length));
  const [, path = "", version = "0"] = match ?? [];
  const entry = await findPlaybook(database, path, Number(version));
  if (!entry)
    throw new Rejected(`playbook '${path}' version ${version} is not in the catalog`, 404);
  return parsePlaybook(entry.content) as unknown as Json;
}

/**
 * `{results, data, stats, status}` in input order; an iteration that failed or never ran is null.
 */
async function fetchLoopResults(
  database: Query,
  reference: ResultReference,
  load: (reference: ResultReference) => Promise<Json>,
): Promise<Json> {
  const match = /execution\/([0-9]+)\/loop\/([0-9]+)\/results$/.exec(reference.ref);
  const [, execution_id = "0", loop_id = "0"] = match ?? [];
  const stats = (reference.extract?.["stats"] ?? {}) as { total?: number };
  const outcomes = await readLoopOutcomes(database, { execution_id, loop_id });
  const results = Array.from<Json>({ length: stats.total ?? 0 }).fill(null);
  const whole: Json[] = [];
  let bytes = 0;
  for (const row of outcomes) {
    const outcome = row.result as unknown as OutcomeResult;
    if (outcome.status !== "ok") continue;
    bytes += outcome.reference?.bytes ?? 64;
    if (bytes > LOOP_RESULTS_BYTES_MAX) {
      const limit = LOOP_RESULTS_BYTES_MAX;
      throw new Rejected(
        `the results of loop ${loop_id} are larger than ${limit} bytes together`,
        413,
      );
    }
    const value = outcome.reference ? await load(outcome.reference) : (outcome.context ?? null);
    if (row.iter_index !== null) results[row.iter_index] = value;
    else if (isWholeFrame(value)) whole.push(value.frame);
    else placeFrame(results, row, value);
  }
  const data = whole.length > 0 ? whole : results;
  const frames = outcomes.flatMap(row => (row.frame ? [row.frame as Json] : []));
  const isCursor = reference.extract?.["frame_count"] !== undefined;
  return { ...reference.extract, results: data, data, ...(isCursor && { frames }) };
}

/** What `process: frame` gave for all rows of a frame: one result, in order of acceptance. */
function isWholeFrame(value: Json): value is { frame: Json } {
  return isObject(value) && value["frame"] !== undefined && value["ok"] === undefined;
}

/** A frame's results lie in the order of its successful items. */
function placeFrame(results: Json[], { ok, first, count }: LoopOutcome, value: Json): void {
  const indexes = fromRanges(ok ?? "", first ?? 0, (first ?? 0) + (count ?? 0)) ?? [];
  const values = (value as { ok?: Json[] }).ok ?? [];
  for (const [at, index] of indexes.entries()) results[index] = values[at] ?? null;
}
