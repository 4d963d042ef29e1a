// The one slot of a frame whose rows run side by side: it is free while all of them wait.
import type { RunOptions } from "./run.ts";

export class SharedSlot {
  readonly #suspended: RunOptions["suspended"];
  #running = 0;
  #waiting = 0;
  #resume: (() => void) | undefined;

  /** `suspended` gives the slot away for as long as a wait lasts. */
  constructor(suspended: RunOptions["suspended"]) {
    this.#suspended = suspended;
  }

  /** Runs one of the rows. */
  async run<T>(row: () => Promise<T>): Promise<T> {
    this.#running += 1;
    this.#look();
    try {
      return await row();
    } finally {
      this.#running -= 1;
      this.#look();
    }
  }

  /** A row's wait for a child execution. */
  readonly suspended = async <T>(wait: Promise<T>): Promise<T> => {
    this.#waiting += 1;
    this.#look();
    try {
      return await wait;
    } finally {
      this.#waiting -= 1;
      this.#look();
    }
  };

  #look(): void {
    const isFree = this.#running > 0 && this.#waiting === this.#running;
    if (!isFree) {
      this.#resume?.();
      this.#resume = undefined;
    } else if (!this.#resume) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#resume = resolve;
      void this.#suspended(promise);
    }
  }
}
