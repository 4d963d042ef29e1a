// The doorbell port: rings say that a command waits. Losing one costs time, never work.
import { isUrgent, ringKey, type Ring } from "../schemas/decider.ts";
import { classOf, WORK_CLASSES, type WorkClass } from "../schemas/work-class.ts";

/** A ring that reached this worker. */
export type Rung = Ring & {
  /** Its claim is committed or refused. */
  ack(): void;
  /** It is not taken: there was no room for it after all. It is offered anew. */
  giveBack(): void;
};

/** What a worker has room for. */
export interface Pull {
  work_class: WorkClass;
  max: number;
}

export interface DoorbellCounters {
  rung: number;
  /** Rings that reached nobody: rung again when their stream is woken. */
  lost: number;
  /** Messages that are no rings: acknowledged and dropped. */
  malformed: number;
  /** Rings that nobody took, however often they were offered: dropped, and rung again. */
  given_up: number;
}

export interface Doorbell {
  readonly counters: DoorbellCounters;
  /** To one worker, or to whoever has room; one that does not attend hears nothing. */
  ring(ring: Ring, to?: string): void;
  /** From here on rings that name this worker come to it too. */
  attend(workerId: string): Promise<void>;
  /** Rings of a class that wait now, up to `max`: at once, and perhaps none. */
  look(pull: Pull): Promise<Rung[]>;
  /**
   * As `look`, and waits until there is one. None when `signal` aborts, and from a doorbell over
   * the network also after a silence or while it cannot be reached: then a worker asks the servers.
   */
  fetch(pull: Pull, signal: AbortSignal): Promise<Rung[]>;
  /** Rings of a class known to wait for a slot. */
  waiting(workClass: WorkClass): number;
  /** Of those, the ones that go before others. */
  urgent(workClass: WorkClass): number;
  /** false while rings reach nobody. */
  connected(): boolean;
  /** Aborts when the connection of this moment is lost; aborted while there is none. */
  lost(): AbortSignal;
  /** Why the last pull of a class was not answered; undefined when it was, or none was made. */
  unanswered(workClass: WorkClass): string | undefined;
  /** What waits, as the broker counts it; nothing while there is none to ask. */
  lanes(): Promise<LaneCounts[]>;
}

/** Rings of one class at this moment. */
export interface LaneCounts {
  work_class: WorkClass;
  /** By which workers take them. */
  consumer: string;
  /** Not taken yet. */
  pending: number;
  /** Taken by a worker, and their claims not decided. */
  ack_pending: number;
  /** Of those, offered before. */
  redelivered: number;
}

/** Rings kept at most; a ring lost here is rung again from its stream's row. */
const RINGS_MAX = 100_000;

/** The doorbell inside one process. A command already waiting here is not queued twice. */
export function createLocalDoorbell(): Doorbell {
  const lanes = { general: createLane(), database: createLane() };
  const counters = { rung: 0, lost: 0, malformed: 0, given_up: 0 };
  const { signal: never } = new AbortController();

  return {
    counters,
    waiting: workClass => lanes[workClass].size(),
    urgent: workClass => lanes[workClass].urgent(),
    attend: () => Promise.resolve(),
    connected: () => true,
    lost: () => never,
    unanswered: () => undefined,
    lanes: () =>
      Promise.resolve(
        WORK_CLASSES.map(work_class => {
          const pending = lanes[work_class].size();
          return { work_class, consumer: "local", pending, ack_pending: 0, redelivered: 0 };
        }),
      ),
    ring(ring) {
      if (lanes[classOf(ring.kind)].put(ring)) counters.rung += 1;
      else counters.lost += 1;
    },
    look: ({ work_class, max }) => Promise.resolve(lanes[work_class].take(max)),
    async fetch({ work_class, max }, signal) {
      const lane = lanes[work_class];
      while (lane.size() === 0) {
        if (signal.aborted) return [];
        await lane.rung(signal);
      }
      // Rings of one commit arrive one by one; take them together.
      await Promise.resolve();
      return lane.take(max);
    },
  };
}

/** Rings of one class, in the order in which they came, the urgent ones first. */
function createLane() {
  const urgent = new Map<string, Ring>();
  const others = new Map<string, Ring>();
  const size = () => urgent.size + others.size;
  const callers = new Set<() => void>();

  /** false when there is no room for another one. */
  function put(ring: Ring): boolean {
    if (size() >= RINGS_MAX) return false;
    (isUrgent(ring) ? urgent : others).set(ringKey(ring), ring);
    const [caller] = callers;
    caller?.();
    return true;
  }

  return {
    put,
    size,
    urgent: () => urgent.size,
    take(max: number): Rung[] {
      const rings: Rung[] = [];
      for (const waiting of [urgent, others]) {
        for (const [key, ring] of waiting) {
          if (rings.length >= max) return rings;
          waiting.delete(key);
          rings.push({ ...ring, ack: () => undefined, giveBack: () => void put(ring) });
        }
      }
      return rings;
    },
    /** Resolves with the next ring, or when `signal` aborts. */
    rung: (signal: AbortSignal) =>
      new Promise<void>(resolve => {
        const finish = () => {
          callers.delete(finish);
          signal.removeEventListener("abort", finish);
          resolve();
        };
        callers.add(finish);
        signal.addEventListener("abort", finish, { once: true });
      }),
  };
}

/** Of a worker that NATS does not reach: it asks the servers, over HTTP, what waits. */
export function createSilentDoorbell(): Doorbell {
  const counters = { rung: 0, lost: 0, malformed: 0, given_up: 0 };
  const lost = AbortSignal.abort();
  return {
    counters,
    ring: () => void (counters.lost += 1),
    attend: () => Promise.resolve(),
    look: () => Promise.resolve([]),
    fetch: () => Promise.resolve([]),
    waiting: () => 0,
    urgent: () => 0,
    connected: () => false,
    lost: () => lost,
    // Asked where no server has answered.
    unanswered: () => "no server answers over HTTP",
    lanes: () => Promise.resolve([]),
  };
}
