// Actor hosts over a real store, as so many processes; every port can be wrapped to break a rule.
import pg from "pg";
import { createActorHost, type ActorHost, type ActorPorts } from "../../mixins/actor.ts";
import { createClock, type Clock } from "../../mixins/clock.ts";
import { createEventStore, type EventStore } from "../../mixins/event-store.ts";
import type { PostgresStore, StreamName } from "../../mixins/event-store.ts";
import { openDatabase, type Database } from "../../mixins/postgres/index.ts";
import { takeNodeNumber } from "../../mixins/postgres/execution.ts";
import { pickDue } from "../../mixins/postgres/stream.ts";
import type { Address, Machine, MessageInput, Needs, Ring } from "../../schemas/decider.ts";
import type { ResultReference, StoredEvent } from "../../schemas/events.ts";
import { createIds, type IdSource } from "../../schemas/ids.ts";
import type { Json } from "../../schemas/json.ts";
import { ledger, type LedgerAnswer, type LedgerInput, type LedgerState } from "./ledger.ts";

/** What one process has: a pool, a clock that can be set, and hosts. */
export interface TestProcess {
  readonly database: Database;
  readonly store: PostgresStore;
  readonly clock: SetClock;
  readonly ids: IdSource;
  host<State, Input extends { type: string }, Answer>(
    options: HostOptions<State, Input, Answer>,
  ): TestHost<Input, Answer, State>;
  ledger(options?: Partial<HostOptions<LedgerState, LedgerInput, LedgerAnswer>>): LedgerHost;
  /** Stops its hosts and closes its pool. */
  stop(): Promise<void>;
}

export type LedgerHost = TestHost<LedgerInput, LedgerAnswer, LedgerState>;

/** Milliseconds are the database's plus `shift_ms`. */
export interface SetClock extends Clock {
  shift_ms: number;
}

type Ports = ActorPorts<never, never, never>;

export interface HostOptions<State, Input, Answer> {
  machine: Machine<State, Input, Answer>;
  kind?: Ports["kind"];
  owner?: string;
  /** Replaces the store by one around it. */
  store?: (store: EventStore) => EventStore;
  settings?: Partial<Ports["settings"]>;
  loaded?: Map<string, Json>;
  provide?: (needs: Needs, loaded: Map<string, Json>) => Promise<void>;
  ring?: (ring: Ring) => void;
  deliver?: (to: Address, input: MessageInput) => Promise<unknown>;
  holds?: Ports["holds"];
  mustProve?: (input: Input) => boolean;
  forward?: Ports["forward"];
}

export interface TestHost<Input, Answer, State> extends ActorHost<Input, Answer, State> {
  /** Everything that went out, in order. */
  readonly rings: Ring[];
  readonly messages: { to: Address; input: MessageInput }[];
  readonly committed: StoredEvent[];
  /** What the host logged: errors with the stream. */
  readonly warned: unknown[];
  readonly failed: unknown[];
}

/** Sessions of one process; hosts over them share the store as they do in production. */
export async function startProcess(
  url: string,
  options: { size?: number; query_timeout_ms?: number } = {},
): Promise<TestProcess> {
  const { size = 4, query_timeout_ms: queryTimeoutMs } = options;
  const database = openDatabase({ url, size, connectTimeoutMs: 2_000, queryTimeoutMs });
  const { node, now } = await takeNodeNumber(database);
  const real = createClock();
  real.observe(now);
  const clock: SetClock = { ...real, shift_ms: 0, now: () => real.now() + clock.shift_ms };
  const store = createEventStore(database, clock);
  const ids = createIds(node, () => real.now());
  const hosts: { stop(): Promise<void> }[] = [];
  const self: TestProcess = {
    database,
    store,
    clock,
    ids,
    host(hostOptions) {
      const host = makeHost(self, hostOptions);
      hosts.push(host);
      return host;
    },
    ledger: hostOptions => self.host({ machine: ledger, ...hostOptions }),
    async stop() {
      await Promise.all(hosts.map(host => host.stop()));
      await database.close();
    },
  };
  return self;
}

function makeHost<State, Input extends { type: string }, Answer>(
  process: TestProcess,
  options: HostOptions<State, Input, Answer>,
): TestHost<Input, Answer, State> {
  const sent = {
    rings: [] as Ring[],
    messages: [] as { to: Address; input: MessageInput }[],
    committed: [] as StoredEvent[],
    warned: [] as unknown[],
    failed: [] as unknown[],
  };
  const host = createActorHost<State, Input, Answer>({
    ...basics(process, options),
    machine: options.machine,
    mustProve: options.mustProve,
    forward: options.forward,
    ring(ring) {
      sent.rings.push(ring);
      options.ring?.(ring);
    },
    async deliver(to, input) {
      sent.messages.push({ to, input });
      return options.deliver?.(to, input);
    },
    committed: events => void sent.committed.push(...events),
    warn: error => void sent.warned.push(error),
    failed: error => void sent.failed.push(error),
  });
  return { ...host, ...sent };
}

function basics<State, Input, Answer>(
  { store, clock, ids }: TestProcess,
  options: HostOptions<State, Input, Answer>,
) {
  const loaded = options.loaded ?? new Map<string, Json>();
  const stored = new Map<string, ResultReference>();
  return {
    kind: options.kind ?? ("loops" as const),
    owner: options.owner ?? "test",
    store: options.store?.(store) ?? store,
    clock,
    ids,
    values: {
      loaded,
      stored,
      provide: async (needs: Needs) => options.provide?.(needs, loaded),
    },
    settings: {
      lease_ms: 30_000,
      rering_ms: 5_000,
      max_attempts: 3,
      heartbeat_timeout_ms: 300_000,
      ...options.settings,
    },
    holds: options.holds ?? (() => Promise.resolve(undefined)),
  };
}

/** A stream of its own, in an execution of its own. */
export function newStream(process: TestProcess): StreamName {
  const id = process.ids.next();
  return { execution_id: id, stream_id: id };
}

/** One statement beside everything, to look or to break. */
export async function ask<R extends object>(
  url: string,
  text: string,
  values: unknown[] = [],
): Promise<R[]> {
  const client = new pg.Client(url);
  // A connection that is lost fails its query; told again outside of one, it would end the process.
  client.on("error", () => undefined);
  await client.connect();
  try {
    return (await client.query<R>(text, values)).rows;
  } finally {
    await client.end();
  }
}

interface Waker {
  send(stream: StreamName, input: { type: "wake" }): Promise<unknown>;
}

/** Makes these open streams due and wakes them on this host, as a reaper does after a long time. */
export async function wakeNow(
  process: TestProcess,
  host: Waker,
  ...streams: StreamName[]
): Promise<void> {
  const ids = streams.map(stream => stream.stream_id);
  await process.database.query(
    `update noetl.stream set wake_at = now() - interval '1 second'
     where status = 'open' and stream_id = any ($1)`,
    [ids],
  );
  const due = await pickDue(process.database, { limit: 1_000, backoffMs: 5_000 });
  const ours = due.filter(stream => ids.includes(stream.stream_id));
  await Promise.allSettled(ours.map(stream => host.send(stream, { type: "wake" })));
}

export interface LogRow {
  stream_id: string;
  version: number;
  event_type: string;
  meta: Record<string, unknown>;
  context: Record<string, unknown> | null;
}

/** The events of a stream as they lie in the table. */
export function logOf(url: string, stream: StreamName): Promise<LogRow[]> {
  return ask<LogRow>(
    url,
    `select stream_id, version, event_type, meta, context from noetl.event
     where execution_id = $1 and stream_id = $2 order by version`,
    [stream.execution_id, stream.stream_id],
  );
}

export interface HeadRow {
  version: number;
  status: string;
  wake_ms: number | null;
  failures: number;
  last_error: string | null;
}

/** The head row; `wake_ms` is how far its wake-up lies ahead of the database's clock. */
export async function headOf(url: string, stream: StreamName): Promise<HeadRow | undefined> {
  const rows = await ask<HeadRow>(
    url,
    `select version, status, failures, last_error,
            (extract(epoch from wake_at - clock_timestamp()) * 1000)::double precision as wake_ms
     from noetl.stream where stream_id = $1`,
    [stream.stream_id],
  );
  return rows[0];
}

/** Looks again and again until `look` gives something; fails after `limitMs`. */
export async function until<T>(
  look: () => Promise<T | undefined | false> | T | undefined | false,
  limitMs = 5_000,
): Promise<T> {
  const end = performance.now() + limitMs;
  for (;;) {
    const found = await look();
    if (found !== undefined && found !== false) return found;
    if (performance.now() > end) throw new Error(`nothing came in ${limitMs} ms`);
    await new Promise(resolve => setTimeout(resolve, 10));
  }
}

/** Numbers in [0, 1) that come again with the same seed (mulberry32). */
export function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}
