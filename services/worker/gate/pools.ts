// The pools of the tools of this process: while calls wait for a connection, more work of the
// database class would only wait with them (S-021, S-022).
import type { ServiceBroker } from "moleculer";
import type { CapacityProvider } from "./provider.ts";

export interface PoolSettings {
  /** Waiters of one pool that are tolerated. */
  threshold: number;
  pollMs: number;
}

/** Closed while more calls than tolerated wait for a connection of a pool of the postgres tool. */
export function poolsProvider(
  broker: ServiceBroker,
  { threshold, pollMs }: PoolSettings,
): CapacityProvider {
  return {
    name: "tool-pool:postgres",
    pollMs,
    async snapshot() {
      const pools = await broker.call<PoolLine[]>("tool.postgres.stats");
      const waiting = Math.max(0, ...pools.map(pool => pool.waiting));
      const isFull = waiting > threshold;
      const reason = isFull ? { reason: `${waiting} calls wait for a connection` } : {};
      return { limit: threshold, used: waiting, free: isFull ? 0 : Infinity, ...reason };
    },
  };
}

interface PoolLine {
  waiting: number;
}
