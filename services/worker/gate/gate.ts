// The capacity gate of one class of work: a worker fetches only what it has slots for and what
// everybody else who is asked has room for. Until then messages stay where they lie.
import type { Clock } from "../../../mixins/clock.ts";
import type { CapacityProvider } from "./provider.ts";
import type { Watched } from "./watched.ts";

/** The worker's own slots, granted first come first served. */
export interface SlotSource {
  /** All that are free, when at least one is; 0 when `signal` aborts first. */
  reserve(signal: AbortSignal): Promise<number>;
  /** Takes one for work that is there; false when none is free soon. */
  takeOne(signal: AbortSignal): Promise<boolean>;
  unreserve(count: number): void;
}

export interface GateSettings {
  pollMs: number;
  minFree: number;
}

export interface GateOptions {
  clock: Clock;
  slots: SlotSource;
  providers: readonly Watched[];
  settings: GateSettings;
}

/** Slots with everybody's leave: `budget` is at least 1. */
export interface Admission {
  budget: number;
  /** So many have work now; what they reserved is given back when it ends. */
  use(count: number): void;
  /** So many have none. */
  release(count: number): void;
}

/** The first look again at a gate that has just closed. */
const FIRST_MS = 250;
/** Many workers must not look at once. */
const JITTER = 0.2;

export class CapacityGate {
  readonly #options: GateOptions;
  #budget = 0;

  constructor(options: GateOptions) {
    this.#options = options;
  }

  /** Of the last admission. */
  get budget(): number {
    return this.#budget;
  }

  /** Waits until all have room. Rejects with the reason of `signal` when that aborts first. */
  async acquire(signal: AbortSignal): Promise<Admission> {
    const { slots } = this.#options;
    for (;;) {
      await this.#opened(signal);
      const count = await slots.reserve(signal);
      signal.throwIfAborted();
      const budget = await this.#admitted(count, signal).catch((error: unknown) => {
        slots.unreserve(count);
        throw error;
      });
      if (budget < count) slots.unreserve(count - budget);
      if (budget === 0) continue;
      this.#budget = budget;
      return this.#admission(budget);
    }
  }

  /** Whether all have room at this moment: for work that comes a while after it was asked for. */
  async isOpen(signal: AbortSignal): Promise<boolean> {
    return !(await this.#firstFull(signal, 1));
  }

  /** One slot for work that is there, if all have room at this moment, or a slot is free soon. */
  async takeOne(signal: AbortSignal): Promise<boolean> {
    if (!(await this.isOpen(signal))) return false;
    if (!(await this.#options.slots.takeOne(signal))) return false;
    this.#started(1);
    return true;
  }

  #started(count: number): void {
    for (const provider of this.#options.providers) provider.started(count);
  }

  #admission(budget: number): Admission {
    const { slots, providers } = this.#options;
    return {
      budget,
      use: count => this.#started(count),
      release: count => {
        slots.unreserve(count);
        for (const { provider } of providers) provider.release?.(count);
      },
    };
  }

  /** Waits until nobody says that there is no room; no slot is kept meanwhile. */
  async #opened(signal: AbortSignal): Promise<void> {
    const { minFree } = this.#options.settings;
    for (let looks = 0; ; looks += 1) {
      signal.throwIfAborted();
      const full = await this.#firstFull(signal, minFree);
      if (!full) return;
      await this.#pause(full, looks, signal);
    }
  }

  async #firstFull(signal: AbortSignal, minFree: number): Promise<Watched | undefined> {
    let full: Watched | undefined;
    for (const provider of this.#options.providers) {
      const { free } = await provider.look(signal);
      // Once closed it opens only when there is more room than one place (hysteresis).
      const isOpen = free >= (provider.blocked ? minFree : 1);
      provider.mark(!isOpen);
      if (!isOpen) full ??= provider;
    }
    return full;
  }

  /** How many of these slots may be used; nothing is reserved for the others. */
  async #admitted(slots: number, signal: AbortSignal): Promise<number> {
    const { providers } = this.#options;
    let budget = slots;
    for (const provider of providers)
      budget = Math.min(budget, (await provider.look(signal)).share);
    const taken: [CapacityProvider, number][] = [];
    const giveBack = (keep: number) => {
      for (const [provider, count] of taken) provider.release?.(count - keep);
    };
    try {
      for (const watched of providers) {
        const { provider } = watched;
        if (budget === 0 || !provider.reserve) continue;
        const count = await watched.reserve(budget, signal);
        taken.push([provider, count]);
        budget = Math.min(budget, count);
      }
      signal.throwIfAborted();
    } catch (error) {
      giveBack(0);
      throw error;
    }
    giveBack(budget);
    return budget;
  }

  /** Until the provider tells of a change, it is time to look again, or `signal` aborts. */
  async #pause({ provider }: Watched, looks: number, signal: AbortSignal): Promise<void> {
    const { clock, settings } = this.#options;
    const pollMs = provider.pollMs ?? settings.pollMs;
    const ms = looks === 0 ? Math.min(FIRST_MS, pollMs) : pollMs;
    const { promise, resolve } = Promise.withResolvers<void>();
    const cancel = clock.after(ms * (1 + JITTER * (2 * Math.random() - 1)), resolve);
    const unsubscribe = provider.onChange?.(resolve);
    const onAbort = () => resolve();
    signal.addEventListener("abort", onAbort, { once: true });
    await promise;
    signal.removeEventListener("abort", onAbort);
    cancel();
    unsubscribe?.();
  }
}
