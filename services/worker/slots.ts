// The slot ledger of a worker: one slot is one running item. Who waits for a child gives its slot
// away.

export class Slots {
  readonly size: number;
  #taken = 0;
  #wake = () => {};

  constructor(size: number) {
    this.size = size;
  }

  /** Free slots at this moment. */
  get now(): number {
    return Math.max(0, this.size - this.#taken);
  }

  /** Waits until a slot is free; 0 when `signal` aborts first. */
  async free(signal: AbortSignal): Promise<number> {
    while (this.now === 0 && !signal.aborted) {
      await new Promise<void>(resolve => {
        this.#wake = resolve;
        signal.addEventListener("abort", () => resolve(), { once: true });
      });
    }
    return signal.aborted ? 0 : this.now;
  }

  take(count: number): void {
    this.#taken += count;
  }

  give(count: number): void {
    this.#taken -= count;
    if (this.now > 0) this.#wake();
  }

  /** Waits without a slot, and has one again at the end, beyond the size if it must. */
  async suspended<T>(wait: Promise<T>): Promise<T> {
    this.give(1);
    try {
      return await wait;
    } finally {
      this.take(1);
    }
  }
}
