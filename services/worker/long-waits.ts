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
  readonly #suspended: <T>(wait: Promise<T>) => Promise<T>;
  #count = 0;

  /** `suspended` gives a slot away for as long as a wait lasts. */
  constructor(max: number, suspended: <T>(wait: Promise<T>) => Promise<T>) {
    this.#max = max;
    this.#suspended = suspended;
  }

  async around<T>(wait: Promise<T>): Promise<T> {
    if (this.#count >= this.#max) return wait;
    this.#count += 1;
    try {
      return await this.#suspended(wait);
    } finally {
      this.#count -= 1;
    }
  }
}
