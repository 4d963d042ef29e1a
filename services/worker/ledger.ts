// The slot ledger of a worker: the one place that says how much may run here. A slot is one running
// item; one of the database class counts in two ways, among all and among its own. Every pull, of
// whatever source, takes its slots here before it asks for work, so that no more comes than fits.
import { classOf, type WorkClass } from "../../schemas/work-class.ts";

/** A look for work, which takes all slots that are free, is over by then. */
const SOON_MS = 25;

export interface SlotCaps {
  /** Items running at once. */
  all: number;
  /** Of these, items of the database class. */
  database: number;
}

interface Waiter {
  workClass: WorkClass;
  /** Slots that it can do with: 1 where there is work for one, else all. */
  most: number;
  /** It has as many slots as are free for it, at least one; 0 when it waits no more. */
  resolve: (count: number) => void;
}

/** Slots that wait for work, and would rather be given to somebody who has some. */
interface Idle {
  workClass: WorkClass;
  yields: AbortController;
}

export class Ledger {
  readonly caps: SlotCaps;
  readonly #taken: Record<WorkClass, number> = { general: 0, database: 0 };
  /** Of those, the ones that wait for work. */
  readonly #held: Record<WorkClass, number> = { general: 0, database: 0 };
  /** Who waits: those who have work for one, then the others, each the longest first. */
  readonly #waiters: Waiter[] = [];
  readonly #idle = new Set<Idle>();
  /** So many that have work are to run by themselves: nobody gets a slot. */
  #closed = 0;
  /** Called when no other slot has work. */
  #whenQuiet: (() => void) | undefined;

  constructor(caps: SlotCaps) {
    this.caps = caps;
  }

  /** Slots that a command of this class could have at this moment; without one, of any class. */
  free(workClass: WorkClass = "general"): number {
    if (this.isClosed) return 0;
    const { all, database } = this.caps;
    const left = all - this.#taken.general - this.#taken.database;
    const ofClass = workClass === "database" ? database - this.#taken.database : left;
    return Math.max(0, Math.min(left, ofClass));
  }

  /** Slots that have work. */
  get busy(): number {
    return this.#taken.general - this.#held.general + this.databaseBusy;
  }

  /** Of those, the ones whose work is of the database class. */
  get databaseBusy(): number {
    return this.#taken.database - this.#held.database;
  }

  /** Waits for slots of a class, and takes all that are free then; 0 when `signal` aborts first. */
  reserve(workClass: WorkClass, signal: AbortSignal): Promise<number> {
    return this.#reserve(workClass, signal, Infinity);
  }

  /**
   * Takes a slot for work that is there: one that is free, or the first that whoever looks for work
   * gives back soon; false when there is none, or `signal` aborts first.
   */
  async takeOne(workClass: WorkClass, signal: AbortSignal): Promise<boolean> {
    const isFree = this.free(workClass) > 0;
    const soon = isFree ? signal : AbortSignal.any([signal, AbortSignal.timeout(SOON_MS)]);
    const count = await this.#reserve(workClass, soon, 1);
    this.use(workClass, count);
    return count > 0;
  }

  #reserve(workClass: WorkClass, signal: AbortSignal, most: number): Promise<number> {
    if (signal.aborted) return Promise.resolve(0);
    const free = Math.min(most, this.free(workClass));
    if (free > 0) {
      this.#hold(workClass, free);
      return Promise.resolve(free);
    }
    return new Promise(done => {
      const resolve = (count: number) => {
        signal.removeEventListener("abort", onAbort);
        done(count);
      };
      const waiter: Waiter = { workClass, most, resolve };
      const onAbort = () => {
        this.#waiters.splice(this.#waiters.indexOf(waiter), 1);
        resolve(0);
      };
      signal.addEventListener("abort", onAbort, { once: true });
      const before = this.#waiters.findIndex(other => other.most > most);
      this.#waiters.splice(before < 0 ? this.#waiters.length : before, 0, waiter);
      this.#askIdle();
    });
  }

  /** So many slots that were reserved in a class have work now: who ends it gives them. */
  use(workClass: WorkClass, count: number): void {
    this.#held[workClass] -= count;
  }

  /** So many slots that were reserved are not needed. */
  unreserve(workClass: WorkClass, count: number): void {
    this.#held[workClass] -= count;
    this.give(workClass, count);
  }

  #hold(workClass: WorkClass, count: number): void {
    this.#held[workClass] += count;
    this.take(workClass, count);
  }

  /** Takes slots, beyond the caps if it must. */
  take(workClass: WorkClass, count: number): void {
    this.#taken[workClass] += count;
  }

  /** Makes slots of one class slots of another; false, and nothing done, when that one is full. */
  move(from: WorkClass, to: WorkClass, count: number): boolean {
    if (from === to) return true;
    if (to === "database" && this.#taken.database + count > this.caps.database) return false;
    this.#taken[from] -= count;
    this.#taken[to] += count;
    return true;
  }

  give(workClass: WorkClass, count: number): void {
    this.#taken[workClass] -= count;
    if (this.busy <= 1) this.#whenQuiet?.();
    this.#grant();
  }

  #grant(): void {
    for (const waiter of [...this.#waiters]) {
      const free = Math.min(waiter.most, this.free(waiter.workClass));
      if (free === 0) continue;
      this.#waiters.splice(this.#waiters.indexOf(waiter), 1);
      this.#hold(waiter.workClass, free);
      waiter.resolve(free);
    }
  }

  /**
   * Lets a slot of this class wait for work, if that leaves one for whoever comes next: `ask` gets
   * a signal that says when somebody wants it after all. Undefined when it may not wait.
   */
  async idle<T>(
    workClass: WorkClass,
    signal: AbortSignal,
    ask: (signal: AbortSignal) => Promise<T>,
  ): Promise<T | undefined> {
    // Slots with which others look for work come back at once.
    const isLast = this.isClosed || this.caps.all - this.busy <= 1;
    if (isLast && this.#idle.size === 0) return undefined;
    if (this.#waiters.some(waiter => this.#couldUse(waiter, workClass))) return undefined;
    const idle: Idle = { workClass, yields: new AbortController() };
    this.#idle.add(idle);
    try {
      return await ask(AbortSignal.any([signal, idle.yields.signal]));
    } finally {
      this.#idle.delete(idle);
    }
  }

  get isClosed(): boolean {
    return this.#closed > 0;
  }

  /** Until `open` nobody gets a slot, and those that only wait for work are given back. */
  close(): void {
    this.#closed += 1;
    for (const idle of this.#idle) idle.yields.abort();
  }

  open(): void {
    this.#closed -= 1;
    this.#grant();
  }

  /** Resolves when no slot but one has work, or when `signal` aborts. */
  async quiet(signal: AbortSignal): Promise<void> {
    if (this.busy <= 1 || signal.aborted) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#whenQuiet = resolve;
    signal.addEventListener("abort", () => resolve(), { once: true });
    await promise;
    this.#whenQuiet = undefined;
  }

  /** Waits without a slot, and has one again at the end, beyond the caps if it must. */
  async suspended<T>(workClass: WorkClass, wait: Promise<T>): Promise<T> {
    this.give(workClass, 1);
    try {
      return await wait;
    } finally {
      this.take(workClass, 1);
    }
  }

  /** Whether it could go on with a slot that another one of class `from` gives back. */
  #couldUse({ workClass }: Waiter, from: WorkClass): boolean {
    const isFull = this.#taken.database >= this.caps.database;
    return !isFull || workClass === "general" || from === "database";
  }

  /** Slots that only wait for work are asked back for those who have some. */
  #askIdle(): void {
    for (const waiter of this.#waiters) {
      const idle = [...this.#idle].find(one => this.#couldUse(waiter, one.workClass));
      idle?.yields.abort();
    }
  }
}

/** A slot that has work, and what it counts as. */
export interface Slot {
  workClass: WorkClass;
}

/** The slot of a command that was handed over is one of its class, beyond the cap if it must. */
export function reclass(ledger: Ledger, slot: Slot, kind: string | undefined): void {
  const workClass = kind === undefined ? slot.workClass : classOf(kind);
  if (!ledger.move(slot.workClass, workClass, 1)) {
    ledger.take(workClass, 1);
    ledger.give(slot.workClass, 1);
  }
  slot.workClass = workClass;
}
