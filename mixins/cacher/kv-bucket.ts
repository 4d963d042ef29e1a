// One NATS KV bucket on a connection of its own: there or away, and made again when it is lost.
import {
  connect,
  Events,
  JSONCodec,
  StorageType,
  type ConnectionOptions,
  type KV,
  type NatsConnection,
} from "nats";
import { setTimeout as pause } from "node:timers/promises";
import { backoffMs } from "../clock.ts";

export interface BucketOptions {
  connection: ConnectionOptions;
  bucket: string;
  /** Whatever is older is gone, milliseconds. */
  ttlMs: number;
  /** Told when it comes and goes. */
  onState: (isThere: boolean) => void;
  log: (fields: object, message: string) => void;
}

/** What one entry holds; `e` is when it ends, milliseconds since 1970. */
export interface Entry {
  d?: unknown;
  e?: number;
}

export const codec = JSONCodec<Entry>();

/** No answer within this is a miss. */
const ANSWER_MS = 1_000;
const RETRY_MAX_MS = 5_000;

export class KvBucket {
  readonly #options: BucketOptions;
  readonly #closing = new AbortController();
  #connection: NatsConnection | undefined;
  #kv: KV | undefined;
  #opening: Promise<void>;

  /** Begins to connect, and goes on until it has, however long NATS stays away. */
  constructor(options: BucketOptions) {
    this.#options = options;
    this.#opening = this.#open();
  }

  /** Resolves when the first connection stands, or it was closed. */
  get opened(): Promise<void> {
    return this.#opening;
  }

  /**
   * Asks the bucket; undefined when it is away or does not answer. One that is gone is made again
   * for the next who asks. Never throws, but for what `isAnswer` says is one.
   */
  async ask<T>(
    work: (kv: KV) => Promise<T>,
    isAnswer: (error: unknown) => boolean = () => false,
  ): Promise<T | undefined> {
    if (!this.#kv) return undefined;
    try {
      return await work(this.#kv);
    } catch (error) {
      if (isAnswer(error)) throw error;
      this.#options.log({ err: error }, "cacher.away");
      this.#makeAgain();
      return undefined;
    }
  }

  async close(): Promise<void> {
    this.#closing.abort();
    await this.#opening;
    this.#kv = undefined;
    await this.#connection?.close();
  }

  async #open(): Promise<void> {
    const { signal } = this.#closing;
    for (let tries = 0; !signal.aborted; tries += 1) {
      try {
        this.#connection ??= await this.#connect();
        this.#kv = await this.#make(this.#connection);
        return this.#options.onState(true);
      } catch (error) {
        if (tries === 0) this.#options.log({ err: error }, "cacher.absent");
        const waitMs = backoffMs(tries, 100, RETRY_MAX_MS);
        await pause(waitMs, undefined, { signal, ref: false }).catch(() => undefined);
      }
    }
  }

  async #connect(): Promise<NatsConnection> {
    const connection = await connect({
      ...{ maxReconnectAttempts: -1, reconnectTimeWait: 250, name: "noetl cacher" },
      ...{ pingInterval: 5_000, maxPingOut: 2, noAsyncTraces: true },
      ...this.#options.connection,
    });
    void this.#follow(connection);
    return connection;
  }

  /** In memory: what is lost with NATS is read again from where it came. */
  #make(connection: NatsConnection): Promise<KV> {
    const { bucket, ttlMs } = this.#options;
    return connection.jetstream({ timeout: ANSWER_MS }).views.kv(bucket, {
      ...{ history: 1, storage: StorageType.Memory, ttl: ttlMs },
      maxBucketSize: 256 * 1024 * 1024,
    });
  }

  #makeAgain(): void {
    if (!this.#kv) return;
    this.#kv = undefined;
    this.#options.onState(false);
    this.#opening = this.#open();
  }

  async #follow(connection: NatsConnection): Promise<void> {
    for await (const { type } of connection.status()) {
      if (type === Events.Disconnect) this.#options.onState(false);
      // It may be another NATS, or an empty one.
      if (type === Events.Reconnect) this.#makeAgain();
    }
  }
}
