// The doorbell port: rings say that a command waits. Losing one costs time, never work.
import type { Ring } from "../schemas/decider.ts";

/** A ring that reached this worker; `ack` says that its claim is committed or refused. */
export type Rung = Ring & { ack(): void };

export interface Doorbell {
  ring(ring: Ring): void;
  /** Up to `max` rings, at least one; waits until there is one or `signal` aborts (then none). */
  fetch(max: number, signal: AbortSignal): Promise<Rung[]>;
  /** Rings known to wait for a slot. */
  waiting(): number;
}

/** Rings kept at most; a ring lost here is rung again from its stream's row. */
const RINGS_MAX = 100_000;

/** The doorbell inside one process. A command already waiting here is not queued twice. */
export function createLocalDoorbell(): Doorbell {
  const waiting = new Map<string, Ring>();
  const callers: (() => void)[] = [];

  function take(max: number): Rung[] {
    const rings: Rung[] = [];
    for (const [key, ring] of waiting) {
      if (rings.length >= max) break;
      waiting.delete(key);
      rings.push({ ...ring, ack: () => undefined });
    }
    return rings;
  }

  return {
    waiting: () => waiting.size,
    ring(ring) {
      if (waiting.size >= RINGS_MAX) return;
      waiting.set(`${ring.command_id}:${ring.delivery}`, ring);
      callers.shift()?.();
    },
    async fetch(max, signal) {
      while (waiting.size === 0) {
        if (signal.aborted) return [];
        await new Promise<void>(resolve => {
          callers.push(resolve);
          signal.addEventListener("abort", () => resolve(), { once: true });
        });
      }
      // Rings of one commit arrive one by one; take them together.
      await Promise.resolve();
      return take(max);
    },
  };
}
