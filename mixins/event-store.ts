// The event store: appends of many streams in one statement, and everything an actor reads of its
// stream.
import type { HeldCommand } from "../schemas/decider.ts";
import type { Json } from "../schemas/json.ts";
import type { StoredEvent } from "../schemas/events.ts";
import { AppendQueue, type StoreCounters } from "./append-queue.ts";
import { batched } from "./batched.ts";
import type { Clock } from "./clock.ts";
import type { Histogram } from "./metrics.ts";
import type { Database } from "./postgres/index.ts";
import { findOver } from "./postgres/command.ts";
import { readStream, type StreamAppend } from "./postgres/event.ts";
import { ensurePartitions, findStart, forgetStarts } from "./postgres/execution.ts";
import { forgetBuckets } from "./postgres/rate.ts";
import { forgetWorkers, readSeen } from "./postgres/runtime.ts";
import { readSnapshot, writeSnapshot } from "./postgres/snapshot.ts";
import {
  endStream,
  giveBackStreams,
  parkStream,
  pickDue,
  readHeads,
  readOwners,
  setWakes,
  type DueStream,
  type Head,
  type StreamOwner,
} from "./postgres/stream.ts";

/**
 * What became of one stream's append. `refused`: a guard or a value of this very append stopped it.
 */
export type AppendOutcome =
  | { status: "committed"; at: number }
  | { status: "conflict" }
  | { status: "refused"; error: Error };

/**
 * The port an actor works on; a simulation has its own in memory. Every call may throw Unavailable.
 */
export interface EventStore {
  append(append: StreamAppend): Promise<AppendOutcome>;
  readHead(streamId: string): Promise<Head | undefined>;
  readSnapshot(streamId: string): Promise<{ version: number; state: Json } | undefined>;
  readEvents(stream: StreamName, afterVersion: number, limit: number): Promise<StoredEvent[]>;
  writeSnapshot(streamId: string, version: number, state: Json): Promise<void>;
  setWake(streamId: string, version: number, wakeAt: number): Promise<void>;
  end(streamId: string, version: number): Promise<boolean>;
  park(streamId: string, message: string): Promise<void>;
  /** Milliseconds since anybody in this process met a database that was away; else Infinity. */
  sinceAwayMs(): number;
  /** By incarnation: when its worker was last seen, or that it is gone; absent without a row. */
  readSeen(
    holders: Pick<HeldCommand, "worker_id" | "incarnation">[],
  ): Promise<Map<string, number | "gone">>;
  /** The reaper's pick: due streams, whose wake-ups it moves on by a backoff. */
  pickDue(options: { limit: number; backoffMs: number; owner?: string }): Promise<DueStream[]>;
  /** Of these commands, those with a terminal fact. */
  findOver(commandIds: string[]): Promise<string[]>;
  /** Who decided last for each open stream of an execution and its descendants. */
  readOwners(executionId: string): Promise<StreamOwner[]>;
  /** Makes streams that `from` has decided last the others' again, and wakes them there. */
  giveBack(owners: StreamOwner[], from: string): Promise<void>;
  /** The start that owns an idempotency key. */
  findStart(key: string): Promise<{ execution_id: string; request_hash: string } | undefined>;
  /** What must be there ahead of time, and what need not be kept any more. */
  keepHouse(kept: HouseKept): Promise<void>;
}

/** How far ahead partitions are made, and how long what nobody uses is kept. */
export interface HouseKept {
  partitionsAhead: number;
  workersKeptSeconds: number;
  bucketsKeptSeconds: number;
}

export interface StreamName {
  execution_id: string;
  stream_id: string;
}

export interface PostgresStore extends EventStore {
  readonly counters: StoreCounters;
  /** Durations of append statements. */
  readonly seconds: Histogram;
  /** Appends that wait for a statement. */
  waiting(): number;
}

/** The event store over Postgres. */
export function createEventStore(database: Database, clock: Clock): PostgresStore {
  const appends = new AppendQueue(database, clock);
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
    counters: appends.counters,
    seconds: appends.seconds,
    waiting: () => appends.waiting,
    append: append => appends.push(append),
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
    sinceAwayMs: () => database.sinceAwayMs(),
    readSeen: holders => readSeen(database, holders),
    pickDue: options => pickDue(database, options),
    findOver: commandIds => findOver(database, commandIds),
    readOwners: executionId => readOwners(database, executionId),
    giveBack: (owners, from) => giveBackStreams(database, owners, from),
    findStart: key => findStart(database, key),
    async keepHouse({ partitionsAhead, workersKeptSeconds, bucketsKeptSeconds }) {
      await ensurePartitions(database, partitionsAhead);
      await forgetStarts(database);
      await forgetWorkers(database, workersKeptSeconds);
      await forgetBuckets(database, bucketsKeptSeconds);
    },
  };
}
