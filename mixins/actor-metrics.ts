// What the actors of one kind count on this node.
import type { ActorCounters } from "./actor.ts";
import type { Metrics } from "./metrics.ts";

interface Counted {
  readonly counters: ActorCounters;
  size(): number;
}

/** Registers the actors of `kind`. */
export function countActors(metrics: Metrics, kind: string, host: Counted): void {
  const labels = { kind };
  const { counters } = host;
  const counted = [
    ["noetl_actor_conflicts_total", "Decisions made again because a rival came first", "conflicts"],
    ["noetl_actor_refusals_total", "Inputs that a machine refused", "refusals"],
    ["noetl_actor_loads_total", "Streams taken into memory", "loads"],
  ] as const;
  for (const [name, help, key] of counted) {
    metrics.counter({ name, help }, () => [{ labels, value: counters[key] }]);
  }
  metrics.gauge({ name: "noetl_actor_mailboxes", help: "Streams in memory" }, () => [
    { labels, value: host.size() },
  ]);
}
