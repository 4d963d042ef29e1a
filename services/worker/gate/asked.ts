// One provider as a worker asks it: not more often than its answers are good for, with what this
// worker has started since, and with what counts when it cannot be asked.
import { unlessAborted } from "../../../mixins/unless-lost.ts";
import type { Clock } from "../../../mixins/clock.ts";
import type { Snapshot } from "../../../schemas/capacity.ts";
import type { CapacityProvider } from "./provider.ts";

/** A provider answers within this, or cannot be asked. */
const ANSWER_MS = 5_000;

export interface AskedSettings {
  staleMs: number;
  onError: "closed" | "open";
}

export interface Answer extends Snapshot {
  /** What one consumer may take of it, when others may see the same. */
  share: number;
  result: "ok" | "full" | "error";
}

export interface AskedOptions {
  clock: Pick<Clock, "now" | "after">;
  settings: AskedSettings;
  /** Consumers that read the same estimate at the same time, this one included. */
  peers: () => number;
}

export class Asked {
  readonly provider: CapacityProvider;
  /** The last answer that made sense. */
  last: Snapshot = { free: 0 };
  readonly #options: AskedOptions;
  #answer: { at: number; snapshot: Promise<Snapshot> } | undefined;
  /** What this worker has started, which the target may not show yet. */
  #started: { at: number; count: number }[] = [];
  /** Since when it cannot be asked. */
  #failingSince: number | undefined;

  constructor(provider: CapacityProvider, options: AskedOptions) {
    this.provider = provider;
    this.#options = options;
  }

  /** How long it could not be asked, milliseconds. */
  get failingMs(): number {
    const { clock } = this.#options;
    return this.#failingSince === undefined ? 0 : clock.now() - this.#failingSince;
  }

  /** What is free for this worker. Rejects only when `signal` aborts. */
  async ask(signal: AbortSignal): Promise<Answer> {
    const { settings, peers } = this.#options;
    try {
      const snapshot = await this.#snapshot(signal);
      const free = Math.max(0, snapshot.free - this.#unseen());
      const others = this.provider.reserve ? 1 : Math.max(1, peers());
      const share = free === 0 ? 0 : 1 + Math.floor((free - 1) / others);
      return { ...snapshot, free, share, result: free > 0 ? "ok" : "full" };
    } catch (error) {
      signal.throwIfAborted();
      const free = settings.onError === "open" ? Infinity : 0;
      return { free, share: free, reason: messageOf(error), result: "error" };
    }
  }

  started(count: number): void {
    this.#started.push({ at: this.#options.clock.now(), count });
  }

  /** The next question is put to the provider itself. */
  forget(): void {
    this.#answer = undefined;
  }

  async #snapshot(signal: AbortSignal): Promise<Snapshot> {
    const { clock, settings } = this.#options;
    const now = clock.now();
    if (!this.#answer || now - this.#answer.at >= settings.staleMs) {
      this.#answer = { at: now, snapshot: this.#question() };
    }
    const asked = this.#answer;
    try {
      const snapshot = await unlessAborted(asked.snapshot, signal);
      if (Number.isNaN(snapshot.free)) throw new Error("the answer is no number");
      this.last = snapshot;
      this.#failingSince = undefined;
      return snapshot;
    } catch (error) {
      // A failure is not kept: whoever asks next tries again.
      if (this.#answer === asked) this.#answer = undefined;
      if (!signal.aborted) this.#failingSince ??= now;
      throw error;
    }
  }

  /** Asked for everybody who waits for it, so that nobody's abort ends it. */
  async #question(): Promise<Snapshot> {
    const ends = new AbortController();
    const late = Promise.withResolvers<never>();
    const cancel = this.#options.clock.after(ANSWER_MS, () => {
      const error = new Error(`no answer in ${ANSWER_MS / 1000} s`);
      late.reject(error);
      ends.abort(error);
    });
    try {
      return await Promise.race([this.provider.snapshot(ends.signal), late.promise]);
    } finally {
      cancel();
      late.promise.catch(() => undefined);
    }
  }

  /** Started so short a time ago that the target's count may not have it. */
  #unseen(): number {
    if (this.provider.reserve || this.#started.length === 0) return 0;
    const { clock, settings } = this.#options;
    const since = (this.#answer?.at ?? clock.now()) - settings.staleMs;
    this.#started = this.#started.filter(one => one.at >= since);
    return this.#started.reduce((sum, one) => sum + one.count, 0);
  }
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
