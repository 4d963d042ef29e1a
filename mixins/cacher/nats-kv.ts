// A Moleculer cacher in a NATS KV bucket: shared by all nodes, and never worth more than a miss.
import { randomUUID } from "node:crypto";
import { Cachers, type ServiceBroker } from "moleculer";
import type { ConnectionOptions, KV, KvEntry } from "nats";
import { codec, KvBucket, type Entry } from "./kv-bucket.ts";
import { fromKvKey, isMeant, toKvKey, toLockKey } from "./kv-keys.ts";

export interface NatsKvCacherOptions {
  connection: ConnectionOptions;
  /** Name of the bucket: letters, digits, `_` and `-`. */
  bucket: string;
  /** Seconds that an entry lives when nobody says it; also the longest that any does. */
  ttl?: number;
  [option: string]: unknown;
}

/** How Moleculer types what is kept; it is any JSON. */
type Cached = Record<string, unknown> | null;
/** As Moleculer's cachers: ends a lock. */
type Unlock = () => Promise<void>;

const TTL_SECONDS = 3_600;
/** A lock whose holder died ends after this, milliseconds; as in Moleculer's Redis cacher. */
const LOCK_MS = 15_000;
const LOCK_POLL_MS = 50;
/** Deletes on their way at once. */
const DELETES_MAX = 64;
/** Patterns whose cleaning is owed to a bucket that is away; beyond it everything is. */
const OWED_MAX = 1_000;
/** The value must fit into a message of NATS, with its key. */
const VALUE_MAX_BYTES = 900_000;

/**
 * For a broker's `cacher`. What goes wrong is a miss, and never an error: without NATS `connected`
 * is false, and Moleculer asks the action itself. What should have been deleted meanwhile is
 * deleted before anybody reads again here. Values are JSON, as with Moleculer's Redis cacher.
 */
export class NatsKvCacher extends Cachers.Base<NatsKvCacherOptions> {
  readonly #owed = new Set<string>();
  #bucket: KvBucket | undefined;

  constructor(options: NatsKvCacherOptions) {
    super({ ...options });
  }

  override init(broker: ServiceBroker): void {
    super.init(broker);
    this.connected = false;
    const { connection, bucket } = this.opts;
    const ttl = this.opts.ttl ?? TTL_SECONDS;
    this.#bucket = new KvBucket({
      ...{ connection, bucket, ttlMs: ttl * 1_000 },
      log: (fields, message) => this.logger.debug(message, fields),
      onState: isThere => void this.#become(isThere),
    });
  }

  /** Resolves when the bucket is there for the first time. */
  async ready(): Promise<void> {
    await this.#bucket?.opened;
    while (this.connected === false && this.#bucket) await pause(5);
  }

  async close(): Promise<void> {
    const bucket = this.#bucket;
    this.#bucket = undefined;
    this.connected = false;
    await bucket?.close();
  }

  async get(key: string): Promise<Cached> {
    return (await this.#find(key)).data;
  }

  /** → `{data, ttl}`, the latter in seconds; null for an entry without an end. */
  async getWithTTL(key: string): Promise<Cached> {
    return { ...(await this.#find(key)) };
  }

  /** `ttl` in seconds. A value that is no JSON, or too large, is not kept. */
  async set(key: string, data: unknown, ttl?: number | null): Promise<void> {
    const seconds = ttl ?? this.opts.ttl;
    const entry: Entry = { d: data, ...(seconds && { e: Date.now() + seconds * 1_000 }) };
    const value = encoded(entry);
    if (value) await this.#ask(kv => kv.put(toKvKey(key), value));
  }

  async del(key: string | string[]): Promise<void> {
    const keys = Array.isArray(key) ? key : [key];
    await this.#delete(keys.map(toKvKey));
  }

  async clean(match: string | string[] = "**"): Promise<void> {
    const patterns = Array.isArray(match) ? match : [match];
    const keys = await this.#ask(kv => keysOf(kv));
    if (keys === undefined) return this.#owe(patterns);
    await this.#delete(keys.filter(key => patterns.some(pattern => isMeant(key, pattern))));
  }

  override async getCacheKeys(): Promise<{ key: string; expiresAt: number | null }[]> {
    const keys = (await this.#ask(kv => keysOf(kv))) ?? [];
    const entries = await Promise.all(keys.map(key => this.#read(key)));
    return entries.flatMap((entry, place) =>
      entry
        ? [{ key: fromKvKey(keys[place] ?? ""), expiresAt: codec.decode(entry.value).e ?? null }]
        : [],
    );
  }

  /**
   * Waits for a lock among all nodes; `ttl` in milliseconds. While NATS is away everybody has it:
   * then two nodes may ask for the same.
   */
  async lock(key: string | string[], ttl: number = LOCK_MS): Promise<Unlock> {
    for (;;) {
      const unlock = await this.#tryLock(key, ttl);
      if (unlock) return unlock;
      await pause(LOCK_POLL_MS * (0.5 + Math.random()));
    }
  }

  /** Rejects when somebody has it. */
  async tryLock(key: string | string[], ttl: number = LOCK_MS): Promise<Unlock> {
    const unlock = await this.#tryLock(key, ttl);
    if (!unlock) throw new Error("Locked.");
    return unlock;
  }

  async #tryLock(key: string | string[], ttl: number): Promise<Unlock | undefined> {
    const name = toLockKey(Array.isArray(key) ? key.join("|") : key);
    const value = codec.encode({ d: randomUUID(), e: Date.now() + ttl });
    const before = await this.#read(name);
    const held = before && codec.decode(before.value);
    if (held?.e !== undefined && held.e > Date.now()) return undefined;
    try {
      const take = (kv: KV) =>
        before ? kv.update(name, value, before.revision) : kv.create(name, value);
      const revision = await this.#ask(take, isTaken);
      return async () => {
        if (revision === undefined) return;
        // Somebody else's by now, when it took longer than `ttl`: then it stays.
        await this.#ask(kv => kv.delete(name, { previousSeq: revision }), isTaken).catch(
          () => undefined,
        );
      };
    } catch {
      return undefined;
    }
  }

  async #find(key: string): Promise<{ data: Cached; ttl: number | null }> {
    const entry = await this.#read(toKvKey(key));
    const value = entry && codec.decode(entry.value);
    const leftMs = value?.e === undefined ? null : value.e - Date.now();
    if (value === undefined || (leftMs !== null && leftMs <= 0)) {
      return { data: this.opts["missingResponse"] as Cached, ttl: null };
    }
    return { data: value.d as Cached, ttl: leftMs === null ? null : leftMs / 1_000 };
  }

  async #read(kvKey: string): Promise<KvEntry | undefined> {
    const entry = await this.#ask(kv => kv.get(kvKey));
    return entry && entry.operation === "PUT" ? entry : undefined;
  }

  async #delete(kvKeys: string[]): Promise<void> {
    for (let first = 0; first < kvKeys.length; first += DELETES_MAX) {
      const some = kvKeys.slice(first, first + DELETES_MAX);
      const done = await this.#ask(kv => Promise.all(some.map(key => kv.delete(key))));
      // A key is no pattern: everything goes, which costs time only.
      if (done === undefined) return this.#owe(["**"]);
    }
  }

  async #ask<T>(
    work: (kv: KV) => Promise<T>,
    isAnswer?: (error: unknown) => boolean,
  ): Promise<T | undefined> {
    return this.#bucket?.ask(work, isAnswer);
  }

  /** The bucket may live on without us: what was to go must not be read from it later. */
  #owe(patterns: string[]): void {
    for (const pattern of patterns) this.#owed.add(pattern);
    if (this.#owed.size <= OWED_MAX) return;
    this.#owed.clear();
    this.#owed.add("**");
  }

  async #become(isThere: boolean): Promise<void> {
    if (!isThere) {
      this.connected = false;
      return;
    }
    const owed = [...this.#owed];
    this.#owed.clear();
    if (owed.length > 0) await this.clean(owed);
    this.connected = true;
  }
}

async function keysOf(kv: KV): Promise<string[]> {
  const keys: string[] = [];
  for await (const key of await kv.keys("cache.>")) keys.push(key);
  return keys;
}

function encoded(entry: Entry): Uint8Array | undefined {
  try {
    const value = codec.encode(entry);
    return value.length <= VALUE_MAX_BYTES ? value : undefined;
  } catch {
    return undefined;
  }
}

/** Somebody else wrote the key first: "wrong last sequence" of JetStream. */
function isTaken(error: unknown): boolean {
  const { api_error } = error as { api_error?: { err_code?: number } };
  return api_error?.err_code === 10071;
}

function pause(ms: number): Promise<void> {
  return new Promise(resolve => setTimeout(resolve, ms));
}
