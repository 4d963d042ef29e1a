/** Taking a connection out of a pool: bounded, abortable, patient with a server that is away. */
import { setTimeout as delay } from "node:timers/promises";
import type pg from "pg";
import { isUnavailable } from "./index.ts";

/** No connection came free in time. */
export class AcquireTimeout extends Error {
  readonly waitedMs: number;

  constructor(waitedMs: number) {
    super(`no connection came free within ${waitedMs / 1000} s`);
    this.name = "AcquireTimeout";
    this.waitedMs = waitedMs;
  }
}

export interface AcquireOptions {
  timeoutMs: number;
  connectPatienceMs: number;
  signal?: AbortSignal | undefined;
}

const PAUSE_MS = 100;

/**
 * A client of the pool, or AcquireTimeout, or the signal's reason. A server that is away for a
 * moment (it restarts, it fails over) costs a call time and no attempt of its playbook: nothing was
 * sent yet, so connecting again is safe.
 */
export async function acquire(
  pool: pg.Pool,
  { timeoutMs, connectPatienceMs, signal }: AcquireOptions,
): Promise<pg.PoolClient> {
  const started = performance.now();
  for (;;) {
    const waited = performance.now() - started;
    try {
      return await take(pool, Math.max(1, timeoutMs - waited), signal);
    } catch (error) {
      const patience = Math.min(connectPatienceMs, timeoutMs);
      const late = performance.now() - started + PAUSE_MS >= patience;
      if (late || error instanceof AcquireTimeout || !isUnavailable(error)) throw error;
      await delay(PAUSE_MS, undefined, { signal });
    }
  }
}

/** One try; a client that comes too late goes back. */
async function take(
  pool: pg.Pool,
  timeoutMs: number,
  signal?: AbortSignal,
): Promise<pg.PoolClient> {
  const { promise, resolve, reject } = Promise.withResolvers<pg.PoolClient>();
  let waiting = true;
  const give = (act: () => void): void => {
    waiting = false;
    clearTimeout(timer);
    signal?.removeEventListener("abort", onAbort);
    act();
  };
  const onAbort = (): void => give(() => reject(signal?.reason as Error));
  const timer = setTimeout(() => give(() => reject(new AcquireTimeout(timeoutMs))), timeoutMs);
  signal?.addEventListener("abort", onAbort, { once: true });
  pool.connect().then(
    client => (waiting ? give(() => resolve(client)) : client.release()),
    (error: Error) => {
      if (waiting) give(() => reject(error));
    },
  );
  return promise;
}
