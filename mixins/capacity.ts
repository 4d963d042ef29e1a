// What workers have said they have room for, as this server heard it: a hint for where to ring
// first. Several servers count the same slots (E-20), so this may be wrong at any moment: the claim
// decides, and a ring that its worker does not take goes to all.
import type { WorkerCapacity } from "../schemas/worker-capacity.ts";
import { isUrgent, type Ring } from "../schemas/decider.ts";
import { serves } from "../schemas/needs.ts";
import { classOf, WORK_CLASSES } from "../schemas/work-class.ts";
import type { Clock } from "./clock.ts";

/** Three announcements that did not come (S-203). */
const TTL_MS = 45_000;
const WORKERS_MAX = 10_000;
/** Slots of a worker that wait for work with a pull, one of each class: they are not to spare. */
const PULLS = WORK_CLASSES.length;

export interface KnownWorker {
  capacity: WorkerCapacity;
  /** What it offers. */
  words: string[];
  heardAt: number;
  /** Slots that are taken since, less those that became free, as far as this server saw. */
  taken: { all: number; database: number };
}

export interface CapacityRegistry {
  hear(capacity: WorkerCapacity): void;
  /** Its node is gone. */
  drop(workerId: string): void;
  /** So many slots of it were taken, or became free; without a kind, of any class. */
  count(workerId: string, kind: string | undefined, by: number): void;
  /**
   * A worker with room for it, chosen among two, whose slot counts as taken from now on; undefined
   * when none is known to have room. One without room is better than all where not everybody has
   * what is needed, and for what is urgent: it comes before what waits for all.
   */
  choose(ring: Ring): string | undefined;
  /**
   * The same, of those alone that can be reached, take what they have not asked for, and have room
   * to spare, so that it is theirs without a question.
   */
  spare(ring: Ring, isReachable: (workerId: string) => boolean): WorkerCapacity | undefined;
  /** Everybody who could run it. */
  serving(ring: Ring): string[];
  list(): KnownWorker[];
}

/** `random` gives numbers from 0 to below 1. */
export function createCapacityRegistry(
  clock: Pick<Clock, "now">,
  random: () => number = Math.random,
): CapacityRegistry {
  const workers = new Map<string, KnownWorker>();

  function fresh(): KnownWorker[] {
    const before = clock.now() - TTL_MS;
    for (const [id, { heardAt }] of workers) if (heardAt < before) workers.delete(id);
    return [...workers.values()];
  }

  function serving(ring: Ring): KnownWorker[] {
    return fresh().filter(
      ({ capacity, words }) => capacity.status === "ready" && serves(words, ring.requires),
    );
  }

  function count(workerId: string, kind: string | undefined, by: number): void {
    const known = workers.get(workerId);
    if (!known) return;
    known.taken.all += by;
    if (kind !== undefined && classOf(kind) === "database") known.taken.database += by;
  }

  /** A slot of one of these. */
  function take(able: KnownWorker[], { kind }: Ring): WorkerCapacity | undefined {
    const chosen = ofTwo(able, kind, random)?.capacity;
    if (chosen) count(chosen.worker_id, kind, 1);
    return chosen;
  }

  return {
    hear(capacity) {
      const { worker_id } = capacity;
      if (workers.size >= WORKERS_MAX && !workers.has(worker_id)) return;
      const words = offersOf(capacity);
      const taken = { all: 0, database: 0 };
      workers.set(worker_id, { capacity, words, heardAt: clock.now(), taken });
    },
    drop: workerId => void workers.delete(workerId),
    count,
    choose(ring) {
      const able = serving(ring);
      const withRoom = able.filter(one => roomOf(one, ring.kind) > 0);
      const mayWait = isUrgent(ring) || (ring.requires ?? []).length > 0;
      return take(withRoom.length > 0 || !mayWait ? withRoom : able, ring)?.worker_id;
    },
    spare(ring, isReachable) {
      const able = serving(ring).filter(
        one =>
          one.capacity.takes === true &&
          roomOf(one, ring.kind) > PULLS &&
          isReachable(one.capacity.worker_id),
      );
      return take(able, ring);
    },
    serving: ring => serving(ring).map(({ capacity }) => capacity.worker_id),
    list: fresh,
  };
}

/** What a worker offers, as one list of words. */
export function offersOf({
  capabilities,
  labels,
}: Pick<WorkerCapacity, "capabilities" | "labels">): string[] {
  return [...capabilities, ...labels];
}

/** Slots that this kind of command would find there. */
export function roomOf({ capacity, taken }: KnownWorker, kind: string): number {
  const { available_slots, available_db_slots, slots } = capacity;
  const all = Math.min(slots, available_slots - taken.all);
  const database = available_db_slots - taken.database;
  return Math.max(0, classOf(kind) === "database" ? Math.min(all, database) : all);
}

/**
 * The power of two choices: of two drawn by their free slots, the one with the larger free share.
 * Drawn evenly, a small worker would get as much as a large one.
 */
function ofTwo(
  workers: KnownWorker[],
  kind: string,
  random: () => number,
): KnownWorker | undefined {
  const [one, other] = [draw(workers, kind, random), draw(workers, kind, random)];
  if (!one || !other) return one;
  return shareOf(other, kind) > shareOf(one, kind) ? other : one;
}

function draw(workers: KnownWorker[], kind: string, random: () => number) {
  const total = workers.reduce((sum, one) => sum + weightOf(one, kind), 0);
  let left = random() * total;
  return workers.find(one => (left -= weightOf(one, kind)) < 0) ?? workers.at(-1);
}

/** One that is full may be drawn too, where only full ones are left. */
function weightOf(worker: KnownWorker, kind: string): number {
  return Math.max(1e-3, roomOf(worker, kind));
}

function shareOf(worker: KnownWorker, kind: string): number {
  return roomOf(worker, kind) / Math.max(1, worker.capacity.slots);
}
