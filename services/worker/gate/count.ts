// What the gates of a worker do, as numbers. Every series is there from the start, at zero.
import type { Metrics, Sample } from "../../../mixins/metrics.ts";
import { WORK_CLASSES } from "../../../schemas/work-class.ts";
import type { Gates } from "./open.ts";
import type { Watched } from "./watched.ts";

export function countGates(metrics: Metrics, gates: Gates): void {
  const each = (samples: (watched: Watched, labels: Record<string, string>) => Sample[]) => () =>
    WORK_CLASSES.flatMap(consumer =>
      gates.of[consumer].watched.flatMap(watched =>
        samples(watched, { consumer, provider: watched.provider.name }),
      ),
    );
  metrics.gauge(
    { name: "noetl_prefetch_blocked", help: "1 while a provider keeps the gate of a class closed" },
    each((watched, labels) => [{ labels, value: watched.blocked ? 1 : 0 }]),
  );
  metrics.counter(
    { name: "noetl_prefetch_blocked_seconds_total", help: "Time a provider kept a gate closed" },
    each((watched, labels) => [{ labels, value: watched.blockedMs / 1_000 }]),
  );
  metrics.counter(
    { name: "noetl_prefetch_checks_total", help: "Looks at providers: ok, full or error" },
    each(({ checks }, labels) =>
      Object.entries(checks).map(([result, value]) => ({ labels: { ...labels, result }, value })),
    ),
  );
  metrics.gauge(
    { name: "noetl_prefetch_degraded", help: "1 while a provider cannot be asked for too long" },
    each((watched, labels) => [{ labels, value: watched.degraded ? 1 : 0 }]),
  );
  metrics.gauge({ name: "noetl_prefetch_budget", help: "Items the last pull was for" }, () =>
    WORK_CLASSES.map(consumer => ({
      labels: { consumer },
      value: gates.of[consumer].gate.budget,
    })),
  );
  countProviders(metrics, gates);
}

/** What providers themselves say: each once, whichever gates it stands at. */
function countProviders(metrics: Metrics, gates: Gates): void {
  const all = WORK_CLASSES.flatMap(consumer => gates.of[consumer].watched);
  const asked = [...new Set(all.map(watched => watched.asked))];
  const each = (value: (one: (typeof asked)[0]) => number) => () =>
    asked.map(one => ({ labels: { provider: one.provider.name }, value: value(one) }));
  metrics.gauge(
    { name: "noetl_prefetch_capacity_used", help: "Of a provider, as it said last" },
    each(({ last }) => last.used ?? 0),
  );
  metrics.gauge(
    { name: "noetl_prefetch_capacity_limit", help: "Of a provider, as it said last" },
    each(({ last }) => last.limit ?? 0),
  );
  metrics.counter(
    { name: "noetl_prefetch_overshoot_total", help: "Items whose reservation ended before them" },
    each(({ provider }) => provider.overshoot?.() ?? 0),
  );
}
