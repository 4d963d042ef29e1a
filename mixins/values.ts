// Values behind references: playbooks of the catalog, stored results, and what the log keeps of
// loops.
import { Rejected, errorType } from "../schemas/errors.ts";
import type { Needs } from "../schemas/decider.ts";
import type { ResultReference } from "../schemas/events.ts";
import type { Json } from "../schemas/json.ts";
import { chunkAt, type ChunkIndex } from "../schemas/playbook/collection.ts";
import { parsePlaybook } from "../schemas/playbook/parse.ts";
import { CATALOG_PREFIX, LostValue } from "../schemas/playbook/stored-result.ts";
import type { Values } from "./actor.ts";
import { fetchFromLog } from "./loop-values.ts";
import { keepNewest } from "./newest.ts";
import { findPlaybook } from "./postgres/catalog.ts";
import type { Query } from "./postgres/index.ts";
import type { ResultStore } from "./result-store/index.ts";

/** Bytes of loaded values kept in memory; the least recently loaded go first. */
const KEPT_BYTES_MAX = 64 * 1024 * 1024;
/** A decision asks for its values one by one: each stays until it has had time for the others. */
const KEPT_MS = 5_000;
const PLAYBOOK_BYTES = 65_536;
const LOST_BYTES = 256;
/** Names of stored values remembered: more than one decision ever asks for (chunks of a loop). */
const STORED_MAX = 20_000;
const STORES_AT_ONCE = 8;

export interface ValueStore extends Values {
  /** The value behind a reference, from memory or its tier. */
  load(reference: ResultReference): Promise<Json>;
  /** One item of the collection behind a reference. Throws Rejected 404 when it has none there. */
  item(reference: ResultReference, index: number): Promise<Json>;
}

/** Where values come from that no result tier keeps. */
export interface ValueSources {
  /** A playbook of the catalog by its reference. Throws Rejected 404. */
  playbook(ref: string): Promise<Json>;
  /** What the log keeps of a loop. */
  fromLog(reference: ResultReference, values: ValueLoader): Promise<Json>;
}

/** The sources over Postgres. */
export function valuesOf(database: Query): ValueSources {
  return {
    playbook: ref => fetchPlaybook(database, ref),
    fromLog: (reference, values) => fetchFromLog(database, reference, values),
  };
}

/** What reads values for others. */
export type ValueLoader = Pick<ValueStore, "load" | "item">;

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
export function createValues(from: ValueSources & { results: ResultStore }): ValueStore {
  const { loaded, keep } = createMemory();
  const stored = new Map<string, ResultReference>();
  const loading = new Map<string, Promise<Json>>();

  async function fetch(reference: ResultReference): Promise<Json> {
    const { ref } = reference;
    if (ref.startsWith(CATALOG_PREFIX)) {
      const playbook = await from.playbook(ref);
      keep(ref, playbook, PLAYBOOK_BYTES);
      return playbook;
    }
    const value =
      reference.tier === "log"
        ? await from.fromLog(reference, { load, item })
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

  async function item(reference: ResultReference, index: number): Promise<Json> {
    const chunks = (await load(reference)) as unknown as ChunkIndex;
    const chunk = chunkAt(chunks, index);
    if (!chunk) throw new Rejected(`the collection '${reference.ref}' has no item ${index}`, 404);
    const items = (await load(chunk.reference)) as Json[];
    return items[index - chunk.first] ?? null;
  }

  async function keepNew({ name, value }: Needs["store"][number]): Promise<void> {
    const reference = await from.results.put(name, value);
    stored.set(name, reference);
    keep(reference.ref, value, reference.bytes);
    keepNewest(stored, STORED_MAX);
  }

  return {
    loaded,
    stored,
    load,
    item,
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
