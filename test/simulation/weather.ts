// What happens to messages and statements at present, and what was counted of it.
import type { Scheduler } from "./scheduler.ts";

/** Faults of single messages and statements, which the weather brings. */
export const GUSTS = [
  "drop",
  "double",
  "delay",
  "away before",
  "away after",
  "slow commit",
] as const;
export type Gust = (typeof GUSTS)[number];

/** Milliseconds that a message or statement takes on a good day, and on a bad one. */
const QUICK_MS: [number, number] = [0.1, 2];
const SLOW_MS: [number, number] = [20, 3_000];

export class Weather {
  readonly #scheduler: Scheduler;
  readonly #rates: Record<Gust, number>;
  /** Pairs of nodes that hear nothing of each other. */
  readonly #cuts = new Set<string>();
  /** Fault × kind of step it struck, as `fault|kind`. */
  readonly struck = new Map<string, number>();
  /** No statement is answered while this is so. */
  isDatabaseAway = false;
  isNatsAway = false;
  /** Processes that reach no database, although it is there. */
  readonly cutOff = new Set<string>();
  isCalm = false;
  /** Kind of the playbook's step that is being worked on; `-` outside of any. */
  workingOn: () => string = () => "-";

  constructor(scheduler: Scheduler, rates: Record<Gust, number>) {
    this.#scheduler = scheduler;
    this.#rates = rates;
  }

  /** Whether this kind of fault strikes here and now; counted when it does. */
  strikes(gust: Gust): boolean {
    if (this.isCalm || !this.#scheduler.chance(this.#rates[gust])) return false;
    this.count(gust);
    return true;
  }

  count(fault: string): void {
    const name = `${fault}|${this.workingOn()}`;
    this.struck.set(name, (this.struck.get(name) ?? 0) + 1);
  }

  /** Milliseconds; sometimes very many. */
  delay(): number {
    const range = this.strikes("delay") ? SLOW_MS : QUICK_MS;
    return this.#scheduler.between(...range);
  }

  /** Milliseconds from the begin of a transaction to its commit. */
  commitDelay(): number {
    return this.strikes("slow commit") ? this.#scheduler.between(...SLOW_MS) : this.delay();
  }

  isCut(from: string, to: string): boolean {
    return from !== to && (this.isNatsAway || this.#cuts.has(pairOf(from, to)));
  }

  cut(one: string, other: string): void {
    this.#cuts.add(pairOf(one, other));
  }

  heal(one: string, other: string): void {
    this.#cuts.delete(pairOf(one, other));
  }

  /** No fault from now on. */
  clear(): void {
    this.isCalm = true;
    this.isDatabaseAway = false;
    this.isNatsAway = false;
    this.#cuts.clear();
    this.cutOff.clear();
  }
}

const pairOf = (one: string, other: string) =>
  one < other ? `${one}|${other}` : `${other}|${one}`;
