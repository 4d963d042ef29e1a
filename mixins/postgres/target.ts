/** Pools to users' databases: one per target, bounded in size, waiters, time and number. */
import { createHash } from "node:crypto";
import pg from "pg";
import { Busy } from "../../schemas/errors.ts";
import { acquire } from "./target-acquire.ts";
import { OpenConnection, clientOptions } from "./target-connection.ts";
import type { Target, TargetConnection } from "./target-connection.ts";
import { DirectConnections } from "./target-direct.ts";

/** Limits of every pool; a caller may ask for less of the first four. */
export interface TargetPoolsOptions {
  /** Idle connections that a pool keeps. */
  poolMin: number;
  /** Connections of one pool. */
  poolMax: number;
  /** Callers that may wait for a connection of one pool; the next gets Busy. */
  maxWaiting: number;
  /** Longest wait for a connection, making one included. */
  timeoutMs: number;
  /** How long a call waits for a server that is away, before it fails; part of `timeoutMs`. */
  connectPatienceMs: number;
  /** A connection older than this is replaced. */
  maxLifetimeMs: number;
  /** An idle connection beyond `poolMin` closes after this, and a whole pool unused for so long. */
  maxIdleMs: number;
  /** Pools at once; the least recently used idle one makes room. */
  maxPools: number;
  /** Connections at once of callers that want no pool, and how often each tries to connect. */
  directMax: number;
  directAttempts: number;
  /** Told when an idle connection breaks; the pool heals itself. */
  onIdleError?: (pool: string, code: string) => void;
}

export const TARGET_DEFAULTS: TargetPoolsOptions = {
  poolMin: 1,
  poolMax: 12,
  maxWaiting: 200,
  timeoutMs: 60_000,
  connectPatienceMs: 5_000,
  maxLifetimeMs: 3_600_000,
  maxIdleMs: 600_000,
  maxPools: 32,
  directMax: 4,
  directAttempts: 3,
};

/** What one caller asks for; bounded by the options. Sizes count when the pool is first made. */
export interface PoolTuning {
  min?: number;
  max?: number;
  maxWaiting?: number;
  timeoutMs?: number;
  maxLifetimeMs?: number;
  maxIdleMs?: number;
}

export interface WithConnectionOptions {
  /** false opens a connection for this call alone. */
  pool: boolean;
  tuning?: PoolTuning;
  signal?: AbortSignal;
}

export interface TargetPoolStats {
  /** Digest of host, port, database, user and ssl mode; `direct` for connections without a pool. */
  pool: string;
  total: number;
  idle: number;
  waiting: number;
  max: number;
}

interface Entry {
  id: string;
  pool: pg.Pool;
  max: number;
  active: number;
  usedAtMs: number;
}

/** How soon a refused caller may come back. */
const RETRY_AFTER_MS = 500;
const SWEEP_MS = 60_000;

/** Names a target in logs and metrics. Holds no secret. */
export function targetId({ host, port, database, user, sslmode }: Target): string {
  const parts = [host, port, database, user, sslmode ?? ""].join("\n");
  return createHash("sha256").update(parts).digest("hex").slice(0, 12);
}

/** Tells pools apart, two passwords too: never shown, unlike the id. */
function keyOf({ host, port, database, user, sslmode, password }: Target): string {
  return [host, port, database, user, sslmode, password].join("\0");
}

/**
 * The pools of this process. Safe behind PgBouncer in transaction mode: no named statements, no
 * startup options.
 */
export class TargetPools {
  readonly #options: TargetPoolsOptions;
  /**
   * In order of use, least recent first. A changed password is another key, so it makes a new pool.
   */
  readonly #pools = new Map<string, Entry>();
  readonly #direct: DirectConnections;
  readonly #sweeper: NodeJS.Timeout;
  #closed = false;

  constructor(options: Partial<TargetPoolsOptions> = {}) {
    this.#options = { ...TARGET_DEFAULTS, ...options };
    this.#direct = new DirectConnections(this.#options);
    this.#sweeper = setInterval(() => this.#closeUnused(), SWEEP_MS).unref();
  }

  /**
   * Runs `work` with a connection and gives it back, destroying it when it broke, was tainted or
   * is still in a transaction. Throws Busy when too many wait, AcquireTimeout, the driver's
   * connection errors, the signal's reason, and whatever `work` throws.
   */
  async withConnection<T>(
    target: Target,
    { pool, tuning = {}, signal }: WithConnectionOptions,
    work: (connection: TargetConnection) => Promise<T>,
  ): Promise<T> {
    signal?.throwIfAborted();
    if (this.#closed) throw new Busy("the pools are closing", { retry_after_ms: RETRY_AFTER_MS });
    const timeoutMs = atMost(this.#options.timeoutMs, tuning.timeoutMs);
    if (!pool) return this.#direct.withConnection(target, timeoutMs, signal, work);
    const entry = this.#entry(target, tuning);
    const maxWaiting = atMost(this.#options.maxWaiting, tuning.maxWaiting);
    const full = entry.pool.idleCount === 0 && entry.pool.totalCount >= entry.max;
    if (full && entry.pool.waitingCount >= maxWaiting) {
      const message = `${maxWaiting} callers already wait for pool ${entry.id}`;
      throw new Busy(`${message} (NOETL_POSTGRES_POOL_MAX_WAITING)`, {
        retry_after_ms: RETRY_AFTER_MS,
      });
    }
    entry.active += 1;
    try {
      const { connectPatienceMs } = this.#options;
      const client = await acquire(entry.pool, { timeoutMs, connectPatienceMs, signal });
      const connection = new OpenConnection(client, target);
      try {
        return await work(connection);
      } finally {
        client.release(connection.finish());
      }
    } finally {
      entry.active -= 1;
      entry.usedAtMs = performance.now();
    }
  }

  /** One line per pool, and one for the connections without a pool. */
  stats(): TargetPoolStats[] {
    const lines = [...this.#pools.values()].map(({ id, pool, max }) => ({
      pool: id,
      total: pool.totalCount,
      idle: pool.idleCount,
      waiting: pool.waitingCount,
      max,
    }));
    return [...lines, this.#direct.stats()];
  }

  /** Ends all pools; connections in use end when they are given back. */
  async close(): Promise<void> {
    this.#closed = true;
    clearInterval(this.#sweeper);
    const entries = [...this.#pools.values()];
    this.#pools.clear();
    await Promise.all(entries.map(({ pool }) => pool.end()));
  }

  #entry(target: Target, tuning: PoolTuning): Entry {
    const key = keyOf(target);
    const found = this.#pools.get(key);
    if (found) {
      this.#pools.delete(key);
      this.#pools.set(key, found);
      return found;
    }
    this.#makeRoom();
    const entry = this.#open(target, tuning);
    this.#pools.set(key, entry);
    return entry;
  }

  #open(target: Target, tuning: PoolTuning): Entry {
    const options = this.#options;
    const id = targetId(target);
    const max = Math.max(1, atMost(options.poolMax, tuning.max));
    const pool = new pg.Pool({
      ...clientOptions(target),
      min: Math.min(max, atMost(options.poolMin, tuning.min)),
      max,
      connectionTimeoutMillis: options.timeoutMs,
      idleTimeoutMillis: Math.max(1, atMost(options.maxIdleMs, tuning.maxIdleMs)),
      maxLifetimeSeconds: Math.ceil(atMost(options.maxLifetimeMs, tuning.maxLifetimeMs) / 1000),
      allowExitOnIdle: true,
    });
    pool.on("error", error => {
      options.onIdleError?.(id, (error as { code?: string }).code ?? "CLOSED");
    });
    return { id, pool, max, active: 0, usedAtMs: performance.now() };
  }

  #makeRoom(): void {
    if (this.#pools.size < this.#options.maxPools) return;
    for (const [key, entry] of this.#pools) {
      if (entry.active > 0) continue;
      this.#retire(key, entry);
      return;
    }
    const message = `all ${this.#options.maxPools} pools are in use`;
    throw new Busy(`${message} (NOETL_POSTGRES_POOL_MAX_POOLS)`, {
      retry_after_ms: RETRY_AFTER_MS,
    });
  }

  #closeUnused(): void {
    const oldest = performance.now() - this.#options.maxIdleMs;
    for (const [key, entry] of this.#pools) {
      if (entry.active === 0 && entry.usedAtMs < oldest) this.#retire(key, entry);
    }
  }

  #retire(key: string, { pool }: Entry): void {
    this.#pools.delete(key);
    // Nobody uses it; its connections say goodbye on their own time.
    void pool.end().catch(() => undefined);
  }
}

function atMost(limit: number, asked: number | undefined): number {
  return asked === undefined ? limit : Math.min(limit, asked);
}
