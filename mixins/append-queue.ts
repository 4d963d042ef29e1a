// Appends on their way to Postgres: many streams in one statement, a guilty one told alone.
import { backoffMs, type Clock } from "./clock.ts";
import type { AppendOutcome } from "./event-store.ts";
import { Histogram } from "./metrics.ts";
import { appendEvents, type StreamAppend } from "./postgres/event.ts";
import { isRefused, isRepeatable, type Database } from "./postgres/index.ts";

/** Bounds of one grouped statement (house rule 13). */
const GROUP_STREAMS_MAX = 256;
const GROUP_EVENTS_MAX = 4_000;
/** At most two statements in flight per process, on disjoint streams (design §5). */
const STATEMENTS_MAX = 2;
/** Deadlocks and serialization failures are repeated this often before a caller hears of them. */
const REPEATS_MAX = 10;
/** Upper bounds of the durations that are counted, in seconds. */
const SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

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

/**
 * Gathers appends into grouped statements. Streams in one statement, and in two at once, are
 * disjoint because a stream has one append in flight.
 */
export class AppendQueue {
  readonly counters: StoreCounters = {
    statements: 0,
    appends: 0,
    events: 0,
    conflicts: 0,
    refused: 0,
    repeats: 0,
  };
  /** Of statements, in seconds. */
  readonly seconds = new Histogram(SECONDS);
  readonly #database: Database;
  readonly #clock: Clock;
  readonly #queue: Pending[] = [];
  #inFlight = 0;

  constructor(database: Database, clock: Clock) {
    this.#database = database;
    this.#clock = clock;
  }

  /** Appends that wait for a statement. */
  get waiting(): number {
    return this.#queue.length;
  }

  /** Throws what the statement threw when nothing is known of its outcome. */
  push(append: StreamAppend): Promise<AppendOutcome> {
    return new Promise((resolve, reject) => {
      this.#queue.push({ append, resolve, reject });
      // Appends of one turn of the event loop leave together; later ones gather behind those in
      // flight.
      if (this.#queue.length === 1) setImmediate(() => this.#pump());
    });
  }

  #pump(): void {
    while (this.#inFlight < STATEMENTS_MAX && this.#queue.length > 0) {
      const group = takeGroup(this.#queue);
      this.#inFlight += 1;
      void this.#write(group).finally(() => {
        this.#inFlight -= 1;
        this.#pump();
      });
    }
  }

  async #write(group: Pending[]): Promise<void> {
    const appends = group.map(one => one.append);
    try {
      const begun = performance.now();
      const result = await this.#repeat(() => appendEvents(this.#database, appends));
      this.seconds.observe((performance.now() - begun) / 1_000);
      this.#clock.observe(result.now);
      this.counters.statements += 1;
      for (const one of group) {
        const committed = result.accepted.has(one.append.stream_id);
        this.counters.appends += 1;
        if (committed) this.counters.events += one.append.events.length;
        else this.counters.conflicts += 1;
        one.resolve(committed ? { status: "committed", at: result.at } : { status: "conflict" });
      }
    } catch (error) {
      if (!isRefused(error)) return group.forEach(one => one.reject(error));
      await this.#split(group, error as Error);
    }
  }

  /** One stream's bad row takes the whole statement with it: halve until it is alone. */
  async #split(group: Pending[], error: Error): Promise<void> {
    const [only] = group;
    if (group.length === 1 && only) {
      this.counters.refused += 1;
      return only.resolve({ status: "refused", error });
    }
    const half = Math.ceil(group.length / 2);
    await this.#write(group.slice(0, half));
    await this.#write(group.slice(half));
  }

  async #repeat<T>(statement: () => Promise<T>): Promise<T> {
    for (let tries = 1; ; tries += 1) {
      try {
        return await statement();
      } catch (error) {
        if (!isRepeatable(error) || tries >= REPEATS_MAX) throw error;
        this.counters.repeats += 1;
        await this.#clock.sleep(backoffMs(tries, 2, 200));
      }
    }
  }
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
