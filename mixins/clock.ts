// The clock port: milliseconds of the database's clock, and timers. A simulation puts its own here.

export interface Clock {
  /** The database's time as far as this process knows it. */
  now(): number;
  /** Told by every statement that returns the database's time. */
  observe(databaseNow: number): void;
  /**
   * Runs `work` once after `ms`; the returned function cancels it. Never keeps the process alive.
   */
  after(ms: number, work: () => void): () => void;
  sleep(ms: number): Promise<void>;
}

/** The real clock: local time corrected by the smallest lag seen to the database's. */
export function createClock(): Clock {
  let offset = 0;
  let known = false;
  return {
    now: () => Date.now() + offset,
    observe(databaseNow) {
      const lag = databaseNow - Date.now();
      // The answer travelled for a while, so the true offset is at least this; drift down slowly.
      offset = known ? Math.max(lag, offset - 0.05) : lag;
      known = true;
    },
    after(ms, work) {
      const timer = setTimeout(work, ms);
      timer.unref();
      return () => clearTimeout(timer);
    },
    sleep: ms => new Promise(resolve => setTimeout(resolve, ms)),
  };
}

/**
 * A delay that grows with each try, with full jitter, so that many waiters do not return together.
 */
export function backoffMs(tries: number, baseMs: number, limitMs: number): number {
  const ceiling = Math.min(limitMs, baseMs * 2 ** Math.min(tries, 20));
  return ceiling / 2 + (Math.random() * ceiling) / 2;
}
