/** Connections without a pool: one per call, few at once, with patient connecting. */
import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import { Busy } from "../../schemas/errors.ts";
import { isUnavailable } from "./index.ts";
import { OpenConnection, clientOptions } from "./target-connection.ts";
import type { Target, TargetConnection } from "./target-connection.ts";

interface DirectLimits {
  directMax: number;
  directAttempts: number;
  maxWaiting: number;
}

/** First pause between two tries to connect; it doubles, and half of it is random. */
const BACKOFF_MS = 200;
const RETRY_AFTER_MS = 500;

/** Bounded concurrency for calls that say `pool: false`. */
export class DirectConnections {
  readonly #limits: DirectLimits;
  readonly #waiting: (() => void)[] = [];
  #active = 0;

  constructor(limits: DirectLimits) {
    this.#limits = limits;
  }

  stats() {
    const { directMax } = this.#limits;
    return {
      pool: "direct",
      total: this.#active,
      idle: 0,
      waiting: this.#waiting.length,
      max: directMax,
    };
  }

  /**
   * Throws Busy when too many wait, the last connection error, the signal's reason, and what
   * `work` throws.
   */
  async withConnection<T>(
    target: Target,
    timeoutMs: number,
    signal: AbortSignal | undefined,
    work: (connection: TargetConnection) => Promise<T>,
  ): Promise<T> {
    await this.#enter(signal);
    try {
      const client = await this.#connect(target, timeoutMs, signal);
      const connection = new OpenConnection(client, target);
      try {
        return await work(connection);
      } finally {
        connection.finish();
        // end() destroys the socket when a statement still runs; a goodbye that fails changes
        // nothing.
        client.on("error", () => undefined);
        void client.end().catch(() => undefined);
      }
    } finally {
      this.#leave();
    }
  }

  async #enter(signal: AbortSignal | undefined): Promise<void> {
    if (this.#active < this.#limits.directMax) {
      this.#active += 1;
      return;
    }
    if (this.#waiting.length >= this.#limits.maxWaiting) {
      const message = `${this.#waiting.length} callers already wait for a direct connection`;
      throw new Busy(message, { retry_after_ms: RETRY_AFTER_MS });
    }
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const onAbort = (): void => {
      const place = this.#waiting.indexOf(resolve);
      if (place >= 0) this.#waiting.splice(place, 1);
      reject(signal?.reason as Error);
    };
    this.#waiting.push(resolve);
    signal?.addEventListener("abort", onAbort, { once: true });
    // Whoever leaves hands its place over, so #active stays as it is.
    await promise.finally(() => signal?.removeEventListener("abort", onAbort));
  }

  #leave(): void {
    const next = this.#waiting.shift();
    if (next) next();
    else this.#active -= 1;
  }

  async #connect(target: Target, timeoutMs: number, signal?: AbortSignal): Promise<pg.Client> {
    const deadlineMs = performance.now() + timeoutMs;
    for (let attempt = 1; ; attempt++) {
      const leftMs = Math.max(1, Math.ceil(deadlineMs - performance.now()));
      const client = new pg.Client({ ...clientOptions(target), connectionTimeoutMillis: leftMs });
      client.on("error", ignore);
      try {
        await client.connect();
        client.off("error", ignore);
        return client;
      } catch (error) {
        void client.end().catch(() => undefined);
        signal?.throwIfAborted();
        const pauseMs = BACKOFF_MS * 2 ** (attempt - 1) * (0.5 + Math.random() / 2);
        const noTime = performance.now() + pauseMs >= deadlineMs;
        if (attempt >= this.#limits.directAttempts || noTime || !isUnavailable(error)) throw error;
        await delay(pauseMs, undefined, { signal }).catch(() => signal?.throwIfAborted());
      }
    }
  }
}

function ignore(): void {
  // The rejected connect() says the same.
}
