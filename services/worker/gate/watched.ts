// A provider at one consumer's gate: whether it keeps the gate closed, since when, and how often it
// was asked; said in the log when that changes.
import type { Clock } from "../../../mixins/clock.ts";
import type { Answer, Asked } from "./asked.ts";
import { unlessAborted } from "../../../mixins/unless-lost.ts";
import { messageOf } from "./asked.ts";
import type { CapacityProvider } from "./provider.ts";

/** A gate that stays closed is said to be so again after this. */
const REMIND_MS = 300_000;

export interface WatchSettings {
  /** A provider that cannot be asked for longer makes the worker degraded. */
  errorGraceMs: number;
  /** A gate that is closed for longer is warned of; 0: never. */
  maxBlockMs: number;
}

export interface WatchOptions {
  consumer: string;
  clock: Pick<Clock, "now">;
  settings: WatchSettings;
  log: Record<"info" | "warn", (fields: object, message: string) => void>;
}

export class Watched {
  readonly asked: Asked;
  readonly checks = { ok: 0, full: 0, error: 0 };
  readonly #options: WatchOptions;
  #blockedSince: number | undefined;
  #blockedMs = 0;
  #remindAt = Infinity;
  #isWarned = false;
  #answer: Answer | undefined;

  constructor(asked: Asked, options: WatchOptions) {
    this.asked = asked;
    this.#options = options;
  }

  get provider(): CapacityProvider {
    return this.asked.provider;
  }

  get blocked(): boolean {
    return this.#blockedSince !== undefined;
  }

  /** Closed by it, all times together, milliseconds. */
  get blockedMs(): number {
    const since = this.#blockedSince;
    return this.#blockedMs + (since === undefined ? 0 : this.#options.clock.now() - since);
  }

  /** A provider that could not be asked for too long. */
  get degraded(): boolean {
    return this.asked.failingMs > this.#options.settings.errorGraceMs;
  }

  async look(signal: AbortSignal): Promise<Answer> {
    // A gate that is closed wants to know of a change at once.
    if (this.blocked) this.asked.forget();
    const answer = await this.asked.ask(signal);
    this.checks[answer.result] += 1;
    this.#answer = answer;
    return answer;
  }

  /** Reserves, and is closed when there was nothing. Rejects only when `signal` aborts. */
  async reserve(count: number, signal: AbortSignal): Promise<number> {
    const asked = this.provider.reserve?.(count, signal) ?? Promise.resolve(count);
    try {
      const got = await unlessAborted(asked, signal);
      if (got === 0) this.asked.forget();
      return got;
    } catch (error) {
      // What is granted after that is nobody's.
      if (signal.aborted) {
        void asked.then(late => this.provider.release?.(late)).catch(() => undefined);
        throw error;
      }
      this.checks.error += 1;
      this.#options.log.warn(
        { ...this.#names(), reason: messageOf(error) },
        "prefetch.not_reserved",
      );
      this.asked.forget();
      return 0;
    }
  }

  started(count: number): void {
    this.asked.started(count);
  }

  /** Says when the gate closes and opens, and now and then that it is still closed. */
  mark(isBlocked: boolean): void {
    const { clock, log, settings } = this.#options;
    const now = clock.now();
    const since = this.#blockedSince;
    if (isBlocked && since === undefined) {
      this.#blockedSince = now;
      this.#remindAt = now + REMIND_MS;
      this.#isWarned = false;
      log.info({ ...this.#names(), ...this.#facts() }, "prefetch.blocked");
    } else if (isBlocked && since !== undefined) {
      const fields = { ...this.#names(), ...this.#facts(), blocked_ms: now - since };
      if (settings.maxBlockMs > 0 && now - since > settings.maxBlockMs && !this.#isWarned) {
        this.#isWarned = true;
        log.warn(fields, "prefetch.blocked_long");
      } else if (now >= this.#remindAt) {
        this.#remindAt = now + REMIND_MS;
        log.info(fields, "prefetch.blocked");
      }
    } else if (since !== undefined) {
      this.#blockedMs += now - since;
      this.#blockedSince = undefined;
      log.info({ ...this.#names(), ...this.#facts(), blocked_ms: now - since }, "prefetch.open");
    }
  }

  #names() {
    return { consumer: this.#options.consumer, provider: this.provider.name };
  }

  #facts() {
    const { limit, used, free, reason, result } = this.#answer ?? { free: 0, result: "full" };
    return {
      ...(limit !== undefined && { limit, used }),
      ...(Number.isFinite(free) && { free }),
      ...(result === "error" && { reason: `provider_error: ${reason}` }),
      ...(result !== "error" && reason !== undefined && { reason }),
    };
  }
}
