// The doorbell port: rings say that a command waits. Losing one costs time, never work.
import type { Ring } from "../schemas/decider.ts";

/** A ring that reached this worker; `ack` says that its claim is committed or refused. */
export type Rung = Ring & { ack(): void };

export interface DoorbellCounters {
  rung: number;
  /** Rings that reached nobody: rung again when their stream is woken. */
  lost: number;
  /** Messages that are no rings: acknowledged and dropped. */
  malformed: number;
}

export interface Doorbell {
  readonly counters: DoorbellCounters;
  ring(ring: Ring): void;
  /**
   * Up to `max` rings; waits until there is one. None when `signal` aborts, and from a doorbell
   * over the network also after a silence or while it cannot be reached: then a worker asks the
   * servers.
   */
  fetch(max: number, signal: AbortSignal): Promise<Rung[]>;
  /** Rings known to wait for a slot. */
  waiting(): number;
  /** false while rings reach nobody. */
  connected(): boolean;
  /** Aborts when the connection of this moment is lost; aborted while there is none. */
  lost(): AbortSignal;
}

/** Rings kept at most; a ring lost here is rung again from its stream's row. */
const RINGS_MAX = 100_000;

/** The doorbell inside one process. A command already waiting here is not queued twice. */
export function createLocalDoorbell(): Doorbell {
  const waiting = new Map<string, Ring>();
  const callers: (() => void)[] = [];
  const counters = { rung: 0, lost: 0, malformed: 0 };
  const { signal: never } = new AbortController();

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
    counters,
    waiting: () => waiting.size,
    connected: () => true,
    lost: () => never,
    ring(ring) {
      if (waiting.size >= RINGS_MAX) return void (counters.lost += 1);
      counters.rung += 1;
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

/** Of a worker that NATS does not reach: it asks the servers, over HTTP, what waits. */
export function createSilentDoorbell(): Doorbell {
  const counters = { rung: 0, lost: 0, malformed: 0 };
  const lost = AbortSignal.abort();
  return {
    counters,
    ring: () => void (counters.lost += 1),
    fetch: () => Promise.resolve([]),
    waiting: () => 0,
    connected: () => false,
    lost: () => lost,
  };
}
