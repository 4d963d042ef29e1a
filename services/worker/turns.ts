// The time of the event loop, shared by all that a worker runs for long. After a slice the loop
// looks at its sockets and timers first; those who wait go on one a turn, in their order.

/** A process that runs quick items answers within about this, whatever else it is given. */
const SLICE_MS = 3;

export class Turns {
  readonly #waiting: (() => void)[] = [];
  /** When whoever runs in this turn of the loop was first seen to. */
  #begun = 0;
  #isBegun = false;

  /**
   * A turn to begin something in, behind all who wait for one; undefined when nobody has begun in
   * this turn of the loop. What only computes is so over before the next one begins.
   */
  begin(): Promise<void> | undefined {
    if (this.#isBegun) return this.#another();
    return void this.#begin();
  }

  /** Undefined while the slice of this turn of the loop lasts, or else a promise of another one. */
  pass(): Promise<void> | undefined {
    if (!this.#isBegun) this.#begin();
    if (performance.now() - this.#begun < SLICE_MS) return undefined;
    return this.#another();
  }

  #another(): Promise<void> {
    return new Promise(resolve => this.#waiting.push(resolve));
  }

  #begin(): void {
    this.#isBegun = true;
    this.#begun = performance.now();
    setImmediate(this.#next);
  }

  readonly #next = (): void => {
    this.#isBegun = false;
    const go = this.#waiting.shift();
    if (!go) return;
    this.#begin();
    go();
  };
}
