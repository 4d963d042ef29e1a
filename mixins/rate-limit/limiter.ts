// Turns for calls: many waiters share one lease, and a limit that is set is met within seconds.
import { Busy, errorType } from "../../schemas/errors.ts";
import {
  bucketOf,
  LimitBook,
  showRate,
  withTaskLimit,
  type BucketUse,
  type Limit,
  type Rate,
  type RateLabels,
} from "../../schemas/rate-limit.ts";
import type { Grant } from "../postgres/rate.ts";
import { HORIZON_MS, localBuckets, type Buckets } from "./buckets.ts";

export interface LimiterOptions {
  /** Of this process alone when absent. */
  buckets?: Buckets;
  /** Limits of the settings; those that are stored win. */
  fixed?: readonly Limit[];
  /** Reads the limits that operators have set. */
  stored?: () => Promise<Limit[]>;
  /** Milliseconds; `LATE_MS` when absent. */
  lateMs?: number;
}

/** One call before it may go. */
export interface Asking {
  /** Kind of the tool. */
  tool: string;
  labels: RateLabels;
  /** What its task asks for itself. */
  own?: BucketUse | undefined;
  signal?: AbortSignal | undefined;
}

/** Limits and pauses that were read longer ago are read again before the next call. */
const REREAD_MS = 2_000;
/** A caller comes back after this at the latest, and so meets limits that have changed. */
const BUSY_MAX_MS = 5_000;
const BUSY_MIN_MS = 50;
/** When the shared buckets are out of reach. */
const AWAY_MS = 1_000;
/**
 * Turns that are met later than this would meet the next ones: an upstream counts any second. It
 * is less than the hundredth that operators keep below a limit; a wasted turn costs one call, a
 * refused call a pause of all.
 */
const LATE_MS = 10;
/** A pause that is longer by less than this is the same one, told by another call. */
const SAME_PAUSE_MS = 100;
/** Of one pause, whoever asks for it. */
const PAUSE_MAX_MS = 3_600_000;
const PAUSES_MAX = 10_000;

interface Waiter {
  use: BucketUse;
  go(): void;
  refuse(error: unknown): void;
  /** Whether its caller has gone. */
  isOver(): boolean;
  /** Its turn was missed once: this process was busy with something else. */
  wasLate: boolean;
}

/**
 * The limits of one process. Calls take turns that were leased in advance, one lease for all that
 * wait, and go at their own moment of it. Who would have to wait longer than a lease reaches is
 * told Busy.
 */
export class RateLimiter {
  readonly counters = { at_once: 0, waited: 0, busy: 0, leases: 0, pauses: 0 };
  /** Tells the other processes of a pause; set by whoever has a way to them. */
  announce: (bucket: string, ms: number) => void = () => {};
  readonly #buckets: Buckets;
  readonly #fixed: readonly Limit[];
  readonly #stored: LimiterOptions["stored"];
  readonly #lateMs: number;
  #book: LimitBook;
  #readAt = -Infinity;
  #reading: Promise<void> | undefined;
  /** Until when, by performance.now(). */
  readonly #paused = new Map<string, number>();
  #waiting: Waiter[] = [];
  #isLeasing = false;

  constructor(options: LimiterOptions = {}) {
    const { buckets = localBuckets(), fixed = [], stored, lateMs = LATE_MS } = options;
    this.#lateMs = lateMs;
    this.#buckets = buckets;
    this.#fixed = fixed;
    this.#stored = stored;
    this.#book = new LimitBook(fixed);
  }

  /** Limits in force. */
  async limits(): Promise<Limit[]> {
    await this.#reread();
    return this.#book.list();
  }

  /**
   * Resolves when the call may go. Throws Busy when that is further away than the horizon, or not
   * known, and the signal's reason.
   */
  async admit({ tool, labels, own, signal }: Asking): Promise<void> {
    if (performance.now() - this.#readAt > REREAD_MS) await this.#reread();
    this.#refusePaused(tool, labels);
    const known = this.#book.of(tool, labels);
    const uses = own ? withTaskLimit(known, own) : known;
    // The slowest first: it is the one that refuses, and then no turn of another is wasted.
    uses.sort((one, other) => one.rate.per_second - other.rate.per_second);
    for (const use of uses) await this.#turn(use, signal);
  }

  /** An upstream has asked for silence: nobody calls for so long. A shorter pause is none. */
  async pause(bucket: string, ms: number): Promise<void> {
    const leftMs = Math.min(ms, PAUSE_MAX_MS);
    if (!this.#note(bucket, leftMs)) return;
    this.counters.pauses += 1;
    this.announce(bucket, leftMs);
    await this.#buckets.pause(bucket, leftMs).catch(passWhenAway);
  }

  /** What another process has said of a bucket. */
  heard(bucket: string, ms: number): void {
    this.#note(bucket, Math.min(ms, PAUSE_MAX_MS));
  }

  /** Limits have changed: the next call reads them. */
  forget(): void {
    this.#readAt = -Infinity;
  }

  #note(bucket: string, ms: number): boolean {
    const nowMs = performance.now();
    const untilMs = nowMs + ms;
    if (untilMs < (this.#paused.get(bucket) ?? nowMs) + SAME_PAUSE_MS) return false;
    if (this.#paused.size >= PAUSES_MAX) {
      for (const [name, until] of this.#paused) if (until < nowMs) this.#paused.delete(name);
    }
    this.#paused.set(bucket, untilMs);
    return true;
  }

  #pauseLeft(bucket: string): number {
    const untilMs = this.#paused.get(bucket);
    if (untilMs === undefined) return 0;
    const leftMs = untilMs - performance.now();
    if (leftMs <= 0) this.#paused.delete(bucket);
    return Math.max(0, leftMs);
  }

  #refusePaused(tool: string, labels: RateLabels): void {
    if (this.#paused.size === 0) return;
    for (const [key, value] of Object.entries(labels)) {
      const bucket = bucketOf(tool, key, value);
      const leftMs = this.#pauseLeft(bucket);
      if (leftMs > 0) throw this.#busy(`${bucket} has asked for a pause`, leftMs);
    }
  }

  #reread(): Promise<void> {
    if (!this.#stored) return Promise.resolve();
    this.#reading ??= this.#read(this.#stored).finally(() => {
      this.#readAt = performance.now();
      this.#reading = undefined;
    });
    return this.#reading;
  }

  /** A store that is away changes nothing: the last limits stay. */
  async #read(stored: () => Promise<Limit[]>): Promise<void> {
    try {
      const [limits, paused] = await Promise.all([stored(), this.#buckets.paused()]);
      this.#book = new LimitBook([...this.#fixed, ...limits]);
      for (const [bucket, ms] of paused) this.#note(bucket, ms);
    } catch (error) {
      passWhenAway(error);
    }
  }

  #turn(use: BucketUse, signal: AbortSignal | undefined): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    let isOver = false;
    const end = (act: () => void): void => {
      isOver = true;
      signal?.removeEventListener("abort", onAbort);
      act();
    };
    const onAbort = (): void => end(() => reject(signal?.reason as Error));
    signal?.throwIfAborted();
    signal?.addEventListener("abort", onAbort, { once: true });
    this.#wait({
      use,
      go: () => end(resolve),
      refuse: error => end(() => reject(error)),
      isOver: () => isOver,
      wasLate: false,
    });
    return promise;
  }

  #wait(waiter: Waiter): void {
    this.#waiting.push(waiter);
    if (this.#waiting.length === 1 && !this.#isLeasing) setImmediate(() => void this.#lease());
  }

  /** While one lease is on its way the next waiters gather. */
  async #lease(): Promise<void> {
    const waiting = this.#waiting.filter(waiter => !waiter.isOver());
    this.#waiting = [];
    if (waiting.length === 0) return;
    const groups = Map.groupBy(waiting, ({ use }) => use.bucket);
    this.#isLeasing = true;
    this.counters.leases += 1;
    try {
      const leases = [...groups].map(([bucket, waiters]) => {
        const { per_second, burst } = slowest(waiters);
        return { bucket, wanted: waiters.length, intervalMs: 1_000 / per_second, burst };
      });
      const grants = await this.#buckets.lease(leases);
      for (const [bucket, waiters] of groups) this.#hand(waiters, grants.get(bucket));
    } catch (error) {
      const isAway = errorType(error) === "UNAVAILABLE";
      for (const waiter of waiting) {
        waiter.refuse(isAway ? this.#busy("the shared limits are out of reach", AWAY_MS) : error);
      }
    }
    this.#isLeasing = false;
    if (this.#waiting.length > 0) void this.#lease();
  }

  #hand(waiters: Waiter[], { granted, wait_ms }: Grant = { granted: 0, wait_ms: AWAY_MS }): void {
    const rate = slowest(waiters);
    for (const [place, waiter] of waiters.entries()) {
      const waitMs = wait_ms + (place * 1_000) / rate.per_second;
      if (place < granted) this.#goLater(waiter, waitMs);
      else {
        const { bucket } = waiter.use;
        const limit = `${bucket} is limited to ${showRate(rate)}`;
        waiter.refuse(this.#busy(limit, waitMs - HORIZON_MS / 2));
      }
    }
  }

  #goLater(waiter: Waiter, waitMs: number): void {
    if (waitMs < 1) {
      this.counters.at_once += 1;
      return waiter.go();
    }
    const dueMs = performance.now() + waitMs;
    setTimeout(() => {
      if (waiter.isOver()) return;
      const isLate = performance.now() - dueMs > this.#lateMs;
      if (isLate && !waiter.wasLate) {
        // Once only: a process that is always late must still come to its calls.
        waiter.wasLate = true;
        return this.#wait(waiter);
      }
      // The turn lies in a pause that began after the lease: another one is needed.
      if (this.#pauseLeft(waiter.use.bucket) > 0) return this.#wait(waiter);
      this.counters.waited += 1;
      waiter.go();
    }, waitMs);
  }

  #busy(why: string, waitMs: number): Busy {
    this.counters.busy += 1;
    const retry_after_ms = Math.ceil(Math.min(BUSY_MAX_MS, Math.max(BUSY_MIN_MS, waitMs)));
    return new Busy(why, { retry_after_ms });
  }
}

/** Playbooks may ask for different rates of a bucket: of those that go together the lowest. */
function slowest(waiters: readonly Waiter[]): Rate {
  const [first, ...others] = waiters.map(({ use }) => use.rate);
  return others.reduce(
    (slow, rate) => (rate.per_second < slow.per_second ? rate : slow),
    first ?? { per_second: 1, burst: 1 },
  );
}

function passWhenAway(error: unknown): void {
  if (errorType(error) !== "UNAVAILABLE") throw error;
}
