// Waits for a rate limit, or between two tries: a long one occupies no slot, as long as there are
// not many of them.

/** Waits from this on give their slot away. Shorter ones would only let in more who must wait. */
export const LONG_WAIT_MS = 1_000;

/**
 * A worker holds at most `max` commands beside its slots that only wait. Beyond that a wait keeps
 * its slot: what no upstream takes now stays in the stream and not in this process.
 */
export class LongWaits {
  readonly #max: number;
  #count = 0;

  constructor(max: number) {
    this.#max = max;
  }

  /** `suspended` gives the slot away for as long as the wait lasts. */
  async around<T>(wait: Promise<T>, suspended: (wait: Promise<T>) => Promise<T>): Promise<T> {
    if (this.#count >= this.#max) return wait;
    this.#count += 1;
    try {
      return await suspended(wait);
    } finally {
      this.#count -= 1;
    }
  }
}
