// What every process says of itself, and of the parts that its services share.
import { monitorEventLoopDelay } from "node:perf_hooks";
import type { PostgresStore } from "./event-store.ts";
import type { Ingest } from "./ingest.ts";
import type { Metrics } from "./metrics.ts";
import type { Doorbell } from "./notifications.ts";
import type { Database } from "./postgres/index.ts";
import { countParked } from "./postgres/stream.ts";
import { packageVersion } from "./version.ts";

/** How often the event loop's lag is looked at. */
const LAG_EVERY_MS = 20;
/** Parked streams are few, or something is very wrong: no more are counted. */
const PARKED_MAX = 10_000;
/** Several scrapers, or a quick one, cost the database one look in this time. */
const PARKED_KEPT_MS = 5_000;

/** The same for the broker that has the rings. */
const LANES_KEPT_MS = 1_000;
/** Rings of each class; no series while NATS is away. */
const LANE_GAUGES = [
  ["noetl_consumer_num_pending", "Rings that no worker has taken", "pending"],
  ["noetl_consumer_num_ack_pending", "Rings taken and not yet decided", "ack_pending"],
  ["noetl_consumer_num_redelivered", "Of those, rings offered before", "redelivered"],
] as const;

/** Memory, time and the event loop. */
export function countProcess(metrics: Metrics, nodeId: string): void {
  metrics.gauge({ name: "noetl_build_info", help: "Version and node; always 1" }, () => [
    { labels: { version: packageVersion(), node_id: nodeId }, value: 1 },
  ]);
  metrics.gauge({ name: "noetl_process_uptime_seconds", help: "Since the process began" }, () =>
    process.uptime(),
  );
  metrics.counter({ name: "noetl_process_cpu_seconds_total", help: "User and system time" }, () => {
    const { user, system } = process.cpuUsage();
    return (user + system) / 1e6;
  });
  metrics.gauge({ name: "noetl_process_resident_memory_bytes", help: "Resident set" }, () =>
    process.memoryUsage.rss(),
  );
  metrics.gauge({ name: "noetl_process_heap_bytes", help: "Heap of JavaScript" }, () => {
    const { heapUsed, heapTotal } = process.memoryUsage();
    return [
      { labels: { state: "used" }, value: heapUsed },
      { labels: { state: "total" }, value: heapTotal },
    ];
  });
  metrics.gauge(
    { name: "noetl_event_loop_lag_seconds", help: "Delay of timers since the last scrape" },
    lagSince(),
  );
}

/** The look at the event loop begins with the first scrape: who is never scraped pays nothing. */
function lagSince() {
  let lag: ReturnType<typeof monitorEventLoopDelay> | undefined;
  return () => {
    if (!lag) {
      lag = monitorEventLoopDelay({ resolution: LAG_EVERY_MS });
      lag.enable();
    }
    const nanos = { 0.5: lag.percentile(50), 0.99: lag.percentile(99), 1: lag.max };
    lag.reset();
    return Object.entries(nanos).map(([quantile, value]) => ({
      labels: { quantile },
      // The interval of the look is part of what it measures.
      value: Math.max(0, value / 1e9 - LAG_EVERY_MS / 1e3),
    }));
  };
}

interface Shared {
  database: Database;
  store: PostgresStore;
  doorbell: Doorbell;
  ingest: Ingest;
}

/** The store, its connections, and the doorbell. */
export function countShared(metrics: Metrics, shared: Shared): void {
  const { database, store, doorbell, ingest } = shared;
  const { counters } = store;
  const counted = [
    ["noetl_append_statements_total", "Grouped appends sent to Postgres", "statements"],
    ["noetl_appends_total", "Appends of streams, committed or not", "appends"],
    ["noetl_append_events_total", "Events committed by this process", "events"],
    ["noetl_append_conflicts_total", "Appends that a rival came before", "conflicts"],
    ["noetl_append_refused_total", "Appends that a guard or a value stopped", "refused"],
    ["noetl_append_repeats_total", "Statements sent again after a deadlock", "repeats"],
  ] as const;
  for (const [name, help, key] of counted) metrics.counter({ name, help }, () => counters[key]);
  metrics.gauge(
    { name: "noetl_append_queue_length", help: "Appends that wait for a statement" },
    () => store.waiting(),
  );
  metrics.histogram(
    { name: "noetl_append_statement_seconds", help: "Duration of grouped appends" },
    () => store.seconds,
  );
  metrics.gauge(
    { name: "noetl_database_connections", help: "Of this process's pool to its own store" },
    () => {
      const { total, idle } = database.stats();
      return [
        { labels: { state: "busy" }, value: total - idle },
        { labels: { state: "idle" }, value: idle },
      ];
    },
  );
  metrics.gauge(
    { name: "noetl_database_waiting", help: "Callers that wait for a connection" },
    () => database.stats().waiting,
  );
  metrics.gauge(
    { name: "noetl_streams_parked", help: "Open streams whose turns keep failing (noetl doctor)" },
    kept(PARKED_KEPT_MS, () => countParked(database, PARKED_MAX)),
  );
  countDoorbell(metrics, doorbell);
  metrics.gauge(
    { name: "noetl_ingest_outcomes", help: "Outcomes of workers that are being decided" },
    () => ingest.held,
  );
  metrics.counter(
    { name: "noetl_ingest_refused_total", help: "Times that a worker was told to come later" },
    () => ingest.refused,
  );
}

function countDoorbell(metrics: Metrics, doorbell: Doorbell): void {
  const { counters } = doorbell;
  metrics.counter(
    { name: "noetl_rings_total", help: "Commands announced to workers" },
    () => counters.rung,
  );
  metrics.counter(
    { name: "noetl_rings_lost_total", help: "Rings that reached nobody; each comes again" },
    () => counters.lost,
  );
  metrics.counter(
    { name: "noetl_rings_malformed_total", help: "Messages that are no rings" },
    () => counters.malformed,
  );
  metrics.counter(
    { name: "noetl_rings_given_up_total", help: "Rings that nobody took; each comes again" },
    () => counters.given_up,
  );
  const lanes = kept(LANES_KEPT_MS, () => doorbell.lanes());
  for (const [name, help, key] of LANE_GAUGES) {
    metrics.gauge({ name, help }, async () =>
      (await lanes()).map(lane => {
        const { consumer, work_class } = lane;
        return { labels: { consumer, work_class }, value: lane[key] };
      }),
    );
  }
  metrics.gauge({ name: "noetl_doorbell_connected", help: "0 while rings reach nobody" }, () =>
    doorbell.connected() ? 1 : 0,
  );
}

/** What costs something, looked up again when it is older. */
function kept<T>(ms: number, look: () => Promise<T>): () => Promise<T> {
  let value: Promise<T> | undefined;
  let until = 0;
  return () => {
    const now = performance.now();
    if (!value || now > until) {
      until = now + ms;
      value = look();
      // Whoever asks is told; a failure is not kept.
      value.catch(() => void (value = undefined));
    }
    return value;
  };
}
