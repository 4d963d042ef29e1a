// What the services of one process share: settings, the store and the ports. No global state.
import type { StoredEvent } from "../schemas/events.ts";
import type { Settings } from "../schemas/env.ts";
import { createIds, type IdSource } from "../schemas/ids.ts";
import { createClock, type Clock } from "./clock.ts";
import { createEventStore, type PostgresStore } from "./event-store.ts";
import type { NatsPort } from "./jetstream.ts";
import { createIngest, type Ingest } from "./ingest.ts";
import { createLocalDoorbell, type Doorbell } from "./notifications.ts";
import { createMetrics, type Metrics } from "./metrics.ts";
import { createOffers, type Offers } from "./offers.ts";
import { countProcess, countShared } from "./process-metrics.ts";
import { takeNodeNumber } from "./postgres/execution.ts";
import type { Database } from "./postgres/index.ts";
import type { ResultStore } from "./result-store/index.ts";
import { createValues, type ValueStore } from "./values.ts";

export interface Runtime {
  settings: Settings;
  /** Moleculer node id: owner hint of streams and name of this process's worker. */
  nodeId: string;
  database: Database;
  store: PostgresStore;
  clock: Clock;
  ids: IdSource;
  /** Rings that it is given are remembered in `offers` until their commands are claimed. */
  doorbell: Doorbell;
  offers: Offers;
  /** Bounds the outcomes that are decided here at a time. */
  ingest: Ingest;
  /** Absent where everything is in one process. */
  nats?: NatsPort;
  results: ResultStore;
  values: ValueStore;
  feed: Feed<StoredEvent[]>;
  /** What this process counts, for whoever scrapes it. */
  metrics: Metrics;
  /** Executions whose rows were just written: by this process, or with what it told the holder. */
  shown: Feed<ReadonlySet<string>>;
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
  const doorbell = offering(options.doorbell ?? createLocalDoorbell(), offers);
  const metrics = createMetrics();
  countProcess(metrics, options.nodeId);
  const ingest = createIngest(options.settings.events.ingestMax);
  countShared(metrics, { database: options.database, store, doorbell, ingest });
  return {
    ...options,
    clock,
    store,
    metrics,
    ids: createIds(node, () => clock.now()),
    doorbell,
    offers,
    ingest,
    values: createValues({ database: options.database, results: options.results }),
    feed,
    shown: createFeed(),
  };
}

/** A doorbell whose rings are also remembered, for workers that it does not reach. */
function offering(doorbell: Doorbell, offers: Offers): Doorbell {
  return {
    counters: doorbell.counters,
    ring(ring) {
      offers.add(ring);
      doorbell.ring(ring);
    },
    look: pull => doorbell.look(pull),
    fetch: (pull, signal) => doorbell.fetch(pull, signal),
    waiting: workClass => doorbell.waiting(workClass),
    connected: () => doorbell.connected(),
    lost: () => doorbell.lost(),
  };
}
