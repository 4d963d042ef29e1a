// One simulated process: our real services over simulated ports, until it is killed.
import type { ServiceBroker, ServiceSchema } from "moleculer";
import { createClock } from "../../mixins/clock.ts";
import { createIngest } from "../../mixins/ingest.ts";
import { createMetrics } from "../../mixins/metrics.ts";
import { createOffers } from "../../mixins/offers.ts";
import type { Doorbell } from "../../mixins/notifications.ts";
import type { Database } from "../../mixins/postgres/index.ts";
import { RateLimiter } from "../../mixins/rate-limit/limiter.ts";
import { createResultStore, type Tier } from "../../mixins/result-store/index.ts";
import { createFeed, dispatchOf, type Runtime } from "../../mixins/runtime.ts";
import { createValues, type ValueSources } from "../../mixins/values.ts";
import { Rejected } from "../../schemas/errors.ts";
import type { Settings } from "../../schemas/env.ts";
import { createIds } from "../../schemas/ids.ts";
import type { SimBroker } from "./broker.ts";
import type { Clocked } from "./globals.ts";
import { memoryRows } from "./memory-rows.ts";
import { memoryStore, memoryWorkers, type Link } from "./memory-store.ts";
import type { MemoryTables } from "./memory-tables.ts";
import type { Scheduler } from "./scheduler.ts";

/** Who a process is to the scheduler. */
export class SimOwner implements Clocked {
  readonly name: string;
  readonly #scheduler: Scheduler;
  alive = true;
  frozenUntil = 0;
  /** Milliseconds by which its clock is wrong. */
  skewMs = 0;
  /** Its clock stands still at this. */
  stoodAt: number | undefined;

  constructor(name: string, scheduler: Scheduler) {
    this.name = name;
    this.#scheduler = scheduler;
  }

  localNow(): number {
    return (this.stoodAt ?? this.#scheduler.now) + this.skewMs;
  }
}

export interface Parts {
  owner: SimOwner;
  broker: SimBroker;
  tables: MemoryTables;
  link: Link;
  doorbell: Doorbell;
  settings: Settings;
  sources: ValueSources;
  /** Bytes of results, which outlive their writers. */
  kept: Map<string, Buffer>;
  /** Of its snowflakes. */
  node: number;
  snapshotEvents: number;
}

/** What a process's services share. */
export function createSimRuntime(parts: Parts): Runtime {
  const { owner, tables, link, settings, doorbell } = parts;
  const clock = createClock();
  const feed: Runtime["feed"] = createFeed();
  const results = createResultStore(tierOf(parts));
  const offers = createOffers(clock);
  feed.subscribe(events => offers.settle(events));
  const { dispatch, capacity } = dispatchOf(settings, {
    doorbell,
    offers,
    clock,
    isTargeted: true,
  });
  feed.subscribe(events => dispatch.settle(events));
  return {
    settings,
    nodeId: owner.name,
    database: noDatabase(),
    store: memoryStore(tables, link, clock),
    rows: memoryRows(tables, link),
    // Each process has a machine of its own: nobody buries its neighbour.
    workers: { ...memoryWorkers(tables, link), onMachine: () => Promise.resolve([]) },
    snapshotEvents: parts.snapshotEvents,
    clock,
    ids: createIds(parts.node, () => clock.now()),
    doorbell,
    dispatch,
    capacity,
    offers,
    ingest: createIngest(settings.events.ingestMax),
    results,
    values: createValues({ ...parts.sources, results }),
    feed,
    limiter: new RateLimiter(),
    metrics: createMetrics(),
    shown: createFeed(),
  };
}

/** What a simulation reaches by ports has no statements. */
function noDatabase(): Database {
  const refuse = () => Promise.reject(new Error("there is no SQL in a simulation"));
  return {
    query: refuse,
    transaction: refuse,
    aside: refuse,
    stats: () => ({ total: 0, idle: 0, waiting: 0 }),
    sinceAwayMs: () => Infinity,
    close: () => Promise.resolve(),
  };
}

function tierOf({ kept, link }: Parts): Tier {
  return {
    name: "db",
    write: (key, bytes) => link.run("keep", () => void kept.set(key, bytes)),
    read: key =>
      link.run("fetch", () => {
        const bytes = kept.get(key);
        if (!bytes) throw new Rejected(`the result '${key}' is no longer kept`, 404);
        return bytes;
      }),
  };
}

export function hostAll(broker: SimBroker, runtime: Runtime, rooms: Room[]): void {
  for (const room of rooms) broker.host(room(runtime, broker as unknown as ServiceBroker));
}

export type Room = (runtime: Runtime, broker: ServiceBroker) => ServiceSchema;
