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

/** Its statements go one after the other: nothing of one holder is changed twice at once. */
export function reservedProvider(options: ReservedOptions): CapacityProvider {
  const { database, clock, name, holder, limit, ratio, leaseMs } = options;
  const mine = { name, holder };
  const inTurn = createTurns();
  const waiters = new Set<() => void>();
  let held = 0;
  let lost = 0;
  let cancel = () => {};
  let isOpen = false;

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
      const look = async () => freeOf({ limit, used: await readQuota(database, name) }, ratio);
      const seen = await look();
      if (seen.free > 0) return seen;
      return inTurn(() => expireQuota(database, name)).then(look);
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
        .finally(() => waiters.forEach(wake => wake()));
    },
    onChange: wake => (waiters.add(wake), () => waiters.delete(wake)),
    overshoot: () => lost,
    async close() {
      cancel();
      isOpen = false;
      await inTurn(() => releaseQuota(database, mine, held)).catch(() => undefined);
    },
  };
}

/** Runs one thing after the other, whether the one before went well or not. */
function createTurns() {
  let last: Promise<unknown> = Promise.resolve();
  return <T>(act: () => Promise<T>): Promise<T> => {
    const turn = last.then(act, act);
    last = turn.catch(() => undefined);
    return turn;
  };
}
