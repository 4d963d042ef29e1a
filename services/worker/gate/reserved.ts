// A quota of which no worker takes what another one has: kept in Postgres, by reservation.
import type { Clock } from "../../../mixins/clock.ts";
import type { Database } from "../../../mixins/postgres/index.ts";
import {
  expireQuota,
  openQuota,
  readQuota,
  releaseQuota,
  renewQuota,
  reserveQuota,
} from "../../../mixins/postgres/capacity.ts";
import { freeOf, usable } from "../../../schemas/capacity.ts";
import type { CapacityProvider } from "./provider.ts";

export interface ReservedOptions {
  database: Database;
  clock: Clock;
  name: string;
  limit: number;
  ratio: number;
  /** The worker's incarnation. */
  holder: string;
  /** What a dead holder has is free again after this. */
  leaseMs: number;
}

/** How often a lease is renewed in its time. */
const RENEWALS = 3;

/** Its statements go one after the other: the sums of one holder are never changed twice at once. */
export function reservedProvider(options: ReservedOptions): CapacityProvider {
  const { database, clock, name, holder, limit, ratio, leaseMs } = options;
  const mine = { name, holder };
  const waiters = new Set<() => void>();
  let held = 0;
  let lost = 0;
  let last: Promise<unknown> = Promise.resolve();
  let cancel = () => {};
  let isOpen = false;

  function inTurn<T>(act: () => Promise<T>): Promise<T> {
    const turn = last.then(act, act);
    last = turn.catch(() => undefined);
    return turn;
  }

  async function opened(): Promise<void> {
    if (isOpen) return;
    await openQuota(database, name);
    isOpen = true;
    renewLater();
  }

  function renewLater(): void {
    cancel = clock.after(leaseMs / RENEWALS, () => {
      void inTurn(renew)
        .catch(() => undefined)
        .then(renewLater);
    });
  }

  /** What a lease has lost while it was silent is counted: that work runs beyond the quota. */
  async function renew(): Promise<void> {
    if (held === 0) return;
    const left = await renewQuota(database, mine, leaseMs);
    if (left >= held) return;
    lost += held - left;
    held = left;
  }

  return {
    name: `quota:${name}`,
    async snapshot() {
      await opened();
      const free = freeOf({ limit, used: await readQuota(database, name) }, ratio);
      if (free.free > 0) return free;
      await inTurn(() => expireQuota(database, name));
      return freeOf({ limit, used: await readQuota(database, name) }, ratio);
    },
    reserve: count =>
      inTurn(async () => {
        await opened();
        const wish = { count, limit: usable(limit, ratio), leaseMs };
        const got = await reserveQuota(database, mine, wish);
        held += got;
        return got;
      }),
    release(count) {
      if (count <= 0) return;
      void inTurn(async () => {
        await releaseQuota(database, mine, count);
        held = Math.max(0, held - count);
      })
        // Not renewed for so much, the lease is worth too much until it expires: nothing is lost.
        .catch(() => undefined)
        .finally(() => {
          for (const wake of waiters) wake();
        });
    },
    onChange(wake) {
      waiters.add(wake);
      return () => waiters.delete(wake);
    },
    overshoot: () => lost,
    async close() {
      cancel();
      isOpen = false;
      await inTurn(() => releaseQuota(database, mine, held)).catch(() => undefined);
    },
  };
}
