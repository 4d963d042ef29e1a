// The event store: appends of many streams in one statement, and everything an actor reads of its stream.
import type { Json } from "../schemas/json.ts";
import type { StoredEvent } from "../schemas/events.ts";
import { batched } from "./batched.ts";
import { backoffMs, type Clock } from "./clock.ts";
import { isRefused, isRepeatable, type Database } from "./postgres/index.ts";
import { appendEvents, readStream, type StreamAppend } from "./postgres/event.ts";
import { readSeen } from "./postgres/runtime.ts";
import { readSnapshot, writeSnapshot } from "./postgres/snapshot.ts";
import { endStream, parkStream, readHeads, setWakes, type Head } from "./postgres/stream.ts";

/** What became of one stream's append. `refused`: a guard or a value of this very append stopped it. */
export type AppendOutcome =
  | { status: "committed"; at: number }
  | { status: "conflict" }
  | { status: "refused"; error: Error };

/** The port an actor works on; a simulation has its own in memory. Every call may throw Unavailable. */
export interface EventStore {
  append(append: StreamAppend): Promise<AppendOutcome>;
  readHead(streamId: string): Promise<Head | undefined>;
  readSnapshot(streamId: string): Promise<{ version: number; state: Json } | undefined>;
  readEvents(stream: StreamName, afterVersion: number, limit: number): Promise<StoredEvent[]>;
  writeSnapshot(streamId: string, version: number, state: Json): Promise<void>;
  setWake(streamId: string, version: number, wakeAt: number): Promise<void>;
  end(streamId: string, version: number): Promise<boolean>;
  park(streamId: string, message: string): Promise<void>;
  readSeen(incarnations: string[]): Promise<Map<string, number>>;
}

export interface StreamName {
  execution_id: string;
  stream_id: string;
}

/** Bounds of one grouped statement (house rule 13). */
const GROUP_STREAMS_MAX = 256;
const GROUP_EVENTS_MAX = 4_000;
/** At most two statements in flight per process, on disjoint streams (design §5). */
const STATEMENTS_MAX = 2;
/** Deadlocks and serialization failures are repeated this often before a caller hears of them. */
const REPEATS_MAX = 10;

interface Pending {
  append: StreamAppend;
  resolve: (outcome: AppendOutcome) => void;
  reject: (error: unknown) => void;
}

/** Counters a test or `doctor` may read. */
export interface StoreCounters {
  statements: number;
  appends: number;
  events: number;
  conflicts: number;
  refused: number;
  repeats: number;
}

export interface PostgresStore extends EventStore {
  readonly counters: StoreCounters;
}

/** The event store over Postgres. Streams in one statement are disjoint because a stream has one append in flight. */
export function createEventStore(database: Database, clock: Clock): PostgresStore {
  const queue: Pending[] = [];
  const counters = { statements: 0, appends: 0, events: 0, conflicts: 0, refused: 0, repeats: 0 };
  let inFlight = 0;

  function pump(): void {
    while (inFlight < STATEMENTS_MAX && queue.length > 0) {
      const group = takeGroup(queue);
      inFlight += 1;
      void writeGroup(group).finally(() => {
        inFlight -= 1;
        pump();
      });
    }
  }

  async function writeGroup(group: Pending[]): Promise<void> {
    try {
      const result = await repeat(() =>
        appendEvents(
          database,
          group.map(one => one.append),
        ),
      );
      clock.observe(result.now);
      counters.statements += 1;
      for (const one of group) {
        const committed = result.accepted.has(one.append.stream_id);
        counters.appends += 1;
        if (committed) counters.events += one.append.events.length;
        else counters.conflicts += 1;
        one.resolve(committed ? { status: "committed", at: result.at } : { status: "conflict" });
      }
    } catch (error) {
      if (!isRefused(error)) return group.forEach(one => one.reject(error));
      await splitRefused(group, error as Error);
    }
  }

  // One stream's bad row takes the whole statement with it: halve until the guilty one is alone.
  async function splitRefused(group: Pending[], error: Error): Promise<void> {
    const [only] = group;
    if (group.length === 1 && only) {
      counters.refused += 1;
      return only.resolve({ status: "refused", error });
    }
    const half = Math.ceil(group.length / 2);
    await writeGroup(group.slice(0, half));
    await writeGroup(group.slice(half));
  }

  async function repeat<T>(statement: () => Promise<T>): Promise<T> {
    for (let tries = 1; ; tries += 1) {
      try {
        return await statement();
      } catch (error) {
        if (!isRepeatable(error) || tries >= REPEATS_MAX) throw error;
        counters.repeats += 1;
        await clock.sleep(backoffMs(tries, 2, 200));
      }
    }
  }

  const readHead = batched(async (ids: string[]) => {
    const { heads, now } = await readHeads(database, ids);
    clock.observe(now);
    return ids.map(id => heads.get(id));
  });
  const setWake = batched(
    async (wakes: { stream_id: string; version: number; wake_at: number }[]) => {
      await setWakes(database, wakes);
      return wakes.map(() => undefined);
    },
  );

  return {
    counters,
    append(append) {
      return new Promise((resolve, reject) => {
        queue.push({ append, resolve, reject });
        // Appends of one turn of the event loop leave together; later ones gather behind those in flight.
        if (queue.length === 1) setImmediate(pump);
      });
    },
    readHead,
    readSnapshot: streamId => readSnapshot(database, streamId),
    readEvents: (stream, afterVersion, limit) => readStream(database, stream, afterVersion, limit),
    writeSnapshot: (streamId, version, state) =>
      writeSnapshot(database, streamId, { version, state }),
    async setWake(stream_id, version, wake_at) {
      await setWake({ stream_id, version, wake_at });
    },
    end: (streamId, version) => endStream(database, streamId, version),
    park: (streamId, message) => parkStream(database, streamId, message),
    readSeen: incarnations => readSeen(database, incarnations),
  };
}

function takeGroup(queue: Pending[]): Pending[] {
  let events = 0;
  let count = 0;
  while (count < queue.length && count < GROUP_STREAMS_MAX) {
    events += queue[count]?.append.events.length ?? 0;
    if (count > 0 && events > GROUP_EVENTS_MAX) break;
    count += 1;
  }
  return queue.splice(0, count);
}
