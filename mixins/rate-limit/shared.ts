// The limiter of a process of the runtime: buckets and limits are in the database, for all workers.
import type { Settings } from "../../schemas/env.ts";
import { LIMITS } from "../../schemas/requests.ts";
import type { Metrics } from "../metrics.ts";
import type { Database } from "../postgres/index.ts";
import { listLimits } from "../postgres/rate.ts";
import { sharedBuckets } from "./buckets.ts";
import { RateLimiter } from "./limiter.ts";

/**
 * Also where everything is in one process: two of them may share a data folder, and a turn costs
 * less than a millisecond and no fsync.
 */
export function createLimiter({ settings, database }: Sharing): RateLimiter {
  return new RateLimiter({
    buckets: sharedBuckets(database),
    fixed: settings.limits.rates,
    stored: () => listLimits(database, LIMITS.listMax),
  });
}

interface Sharing {
  settings: Settings;
  database: Database;
}

export function countTurns(metrics: Metrics, { counters }: RateLimiter): void {
  metrics.counter(
    { name: "noetl_rate_limit_turns_total", help: "Calls under a rate limit, by what they met" },
    () => [
      { labels: { answer: "at_once" }, value: counters.at_once },
      { labels: { answer: "waited" }, value: counters.waited },
      { labels: { answer: "busy" }, value: counters.busy },
    ],
  );
  metrics.counter(
    { name: "noetl_rate_limit_leases_total", help: "Round trips that brought turns" },
    () => counters.leases,
  );
  metrics.counter(
    {
      name: "noetl_rate_limit_pauses_total",
      help: "Pauses that an upstream asked this process for",
    },
    () => counters.pauses,
  );
}
