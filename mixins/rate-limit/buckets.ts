// The port to buckets that calls take their turns in: shared through Postgres, or of one process.
import { leaseRates, pausedRates, pauseRate, type Grant, type Lease } from "../postgres/rate.ts";
import type { Query } from "../postgres/index.ts";

export interface Buckets {
  /** Each bucket once. Throws Unavailable when the shared ones are out of reach. */
  lease(leases: readonly Lease[]): Promise<Map<string, Grant>>;
  /** No turns for so long, for everybody; a longer pause stays. */
  pause(bucket: string, ms: number): Promise<void>;
  /** Buckets that are paused, and for how much longer. */
  paused(): Promise<Map<string, number>>;
}

/**
 * Turns further away than this are not given out: a worker that dies wastes as much, and a pause
 * comes too late for as much.
 */
export const HORIZON_MS = 500;
/** Buckets that one process keeps by itself; beyond it those that are full again are forgotten. */
const LOCAL_MAX = 10_000;
/** Pauses that one look reads. */
const PAUSED_MAX = 1_000;

/** One row a bucket: exact among any number of processes, at one round trip a batch of turns. */
export function sharedBuckets(database: Query): Buckets {
  return {
    lease: leases => leaseRates(database, leases, HORIZON_MS),
    pause: (bucket, ms) => pauseRate(database, bucket, ms),
    paused: () => pausedRates(database, PAUSED_MAX),
  };
}

/** For a tool alone in some app, which has no store to share. `now` in milliseconds. */
export function localBuckets(now: () => number = () => performance.now()): Buckets {
  const buckets = new Map<string, { nextMs: number; pausedMs: number }>();
  function prune(nowMs: number): void {
    if (buckets.size <= LOCAL_MAX) return;
    for (const [bucket, { nextMs }] of buckets) if (nextMs < nowMs) buckets.delete(bucket);
  }
  return {
    lease(leases) {
      const nowMs = now();
      prune(nowMs);
      const grants = leases.map(lease => {
        const { nextMs = -Infinity, pausedMs = 0 } = buckets.get(lease.bucket) ?? {};
        const grant = leased(lease, nextMs, nowMs);
        const next = Math.max(nextMs, nowMs + grant.wait_ms + grant.granted * lease.intervalMs);
        buckets.set(lease.bucket, { nextMs: grant.granted === 0 ? nextMs : next, pausedMs });
        return [lease.bucket, grant] as const;
      });
      return Promise.resolve(new Map(grants));
    },
    pause(bucket, ms) {
      const untilMs = now() + ms;
      const { nextMs = -Infinity, pausedMs = 0 } = buckets.get(bucket) ?? {};
      buckets.set(bucket, {
        nextMs: Math.max(nextMs, untilMs),
        pausedMs: Math.max(pausedMs, untilMs),
      });
      return Promise.resolve();
    },
    paused() {
      const nowMs = now();
      const left = [...buckets].map(
        ([bucket, { pausedMs }]) => [bucket, pausedMs - nowMs] as const,
      );
      return Promise.resolve(new Map(left.filter(([, ms]) => ms > 0)));
    },
  };
}

/**
 * A token bucket told by one number, the time of its next turn (the generic cell rate algorithm,
 * ITU-T I.371): a silence lets that time fall back by `burst - 1` intervals, and no further.
 */
function leased({ wanted, intervalMs, burst }: Lease, nextMs: number, nowMs: number): Grant {
  const startMs = Math.max(nextMs, nowMs - (burst - 1) * intervalMs);
  const fitting = Math.floor((nowMs + HORIZON_MS - startMs) / intervalMs) + 1;
  return { granted: Math.max(0, Math.min(wanted, fitting)), wait_ms: startMs - nowMs };
}
