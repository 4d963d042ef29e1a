// What the services of one process share: settings, the store and the ports. No global state.
import type { StoredEvent } from "../schemas/events.ts";
import type { Settings } from "../schemas/env.ts";
import { createIds, type IdSource } from "../schemas/ids.ts";
import { createClock, type Clock } from "./clock.ts";
import { createCapacityRegistry, type CapacityRegistry } from "./capacity.ts";
import { createDispatch, type Dispatch, type DispatchPorts } from "./dispatch.ts";
import { createEventStore, type EventStore } from "./event-store.ts";
import type { NatsPort } from "./jetstream.ts";
import { createIngest, type Ingest } from "./ingest.ts";
import { createLocalDoorbell, type Doorbell } from "./notifications.ts";
import { createMetrics, type Metrics } from "./metrics.ts";
import { createLimiter, countTurns } from "./rate-limit/shared.ts";
import type { RateLimiter } from "./rate-limit/limiter.ts";
import { createOffers, type Offers } from "./offers.ts";
import { countProcess, countShared } from "./process-metrics.ts";
import { takeNodeNumber, type ExecutionRow } from "./postgres/execution.ts";
import type { Database } from "./postgres/index.ts";
import { createProjectionStore, type ProjectionStore } from "./projection-store.ts";
import type { ResultStore } from "./result-store/index.ts";
import { createValues, valuesOf, type ValueStore } from "./values.ts";
import { createWorkerRows, type WorkerRows } from "./worker-rows.ts";

export interface Runtime {
  settings: Settings;
  /** Moleculer node id: owner hint of streams and name of this process's worker. */
  nodeId: string;
  database: Database;
  store: EventStore;
  /** Events between two snapshots of a stream at least, where it is not the usual number. */
  snapshotEvents?: number;
  /** Rows of the projection. */
  rows: ProjectionStore;
  workers: WorkerRows;
  clock: Clock;
  ids: IdSource;
  doorbell: Doorbell;
  /** The way of rings to the doorbell; `offers` remembers them until their commands are claimed. */
  dispatch: Dispatch;
  capacity: CapacityRegistry;
  offers: Offers;
  /** Bounds the outcomes that are decided here at a time. */
  ingest: Ingest;
  /** Absent where everything is in one process. */
  nats?: NatsPort;
  results: ResultStore;
  values: ValueStore;
  feed: Feed<StoredEvent[]>;
  /** Turns of calls that are limited, shared with all other processes. */
  limiter: RateLimiter;
  /** What this process counts, for whoever scrapes it. */
  metrics: Metrics;
  /**
   * Executions whose rows were just written: by this process, which gives them, or with what it
   * told the holder.
   */
  shown: Feed<ReadonlyMap<string, ExecutionRow | undefined>>;
}

/** News inside this process, for whoever listens: a hint, never the truth. */
export interface Feed<News> {
  push(news: News): void;
  subscribe(listener: (news: News) => void): () => void;
}

export function createFeed<News>(): Feed<News> {
  const listeners = new Set<(news: News) => void>();
  return {
    push: news => listeners.forEach(listener => listener(news)),
    subscribe(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}

export interface RuntimeOptions {
  settings: Settings;
  nodeId: string;
  database: Database;
  results: ResultStore;
  doorbell?: Doorbell;
  nats?: NatsPort;
}

/** Builds the shared parts over an already migrated database. */
export async function createRuntime(options: RuntimeOptions): Promise<Runtime> {
  const clock = createClock();
  const { node, now } = await takeNodeNumber(options.database);
  clock.observe(now);
  const store = createEventStore(options.database, clock);
  const offers = createOffers(clock);
  const feed = createFeed<StoredEvent[]>();
  feed.subscribe(events => offers.settle(events));
  const doorbell = options.doorbell ?? createLocalDoorbell();
  // In one process there is one worker.
  const isTargeted = options.settings.dispatch.isTargeted && options.nats !== undefined;
  const dispatching = dispatchOf(options.settings, { doorbell, offers, clock, isTargeted });
  feed.subscribe(events => dispatching.dispatch.settle(events));
  const metrics = createMetrics();
  const limiter = createLimiter(options);
  countTurns(metrics, limiter);
  countProcess(metrics, options.nodeId);
  const ingest = createIngest(options.settings.events.ingestMax);
  countShared(metrics, { database: options.database, store, doorbell, ingest });
  return {
    ...options,
    clock,
    store,
    rows: createProjectionStore(options.database),
    workers: createWorkerRows(options.database),
    metrics,
    limiter,
    ids: createIds(node, () => clock.now()),
    doorbell,
    ...dispatching,
    offers,
    ingest,
    values: createValues({ ...valuesOf(options.database), results: options.results }),
    feed,
    shown: createFeed(),
  };
}

/** The way of commands from a process to workers, and what it knows of these. */
export function dispatchOf(
  { dispatch: { patienceMs } }: Settings,
  ports: Pick<DispatchPorts, "doorbell" | "offers" | "clock" | "isTargeted">,
): Pick<Runtime, "dispatch" | "capacity"> {
  const capacity = createCapacityRegistry(ports.clock);
  return { dispatch: createDispatch({ ...ports, registry: capacity, patienceMs }), capacity };
}
