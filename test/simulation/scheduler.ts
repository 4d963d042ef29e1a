// Virtual time: one queue of steps, each at its moment; nothing runs but the step that is next.
import { setImmediate as realSetImmediate } from "node:timers";
import type { Random } from "../support/random-flows.ts";

/** Who a step belongs to: it is dropped when that one is dead, and put off while it is frozen. */
export interface Owner {
  readonly name: string;
  readonly alive: boolean;
  /** Milliseconds: no step of it runs before. */
  readonly frozenUntil: number;
}

export interface Step {
  at: number;
  /** Orders steps of one moment. */
  seq: number;
  /** What happens, as it is traced and counted: `store:append`, `call:loops.claim`, … */
  kind: string;
  owner?: Owner | undefined;
  run: () => void;
  cancelled?: boolean;
}

/** Steps by time in a binary heap; `run` takes them one by one. */
export class Scheduler {
  /** Milliseconds since the schedule began. */
  now = 0;
  steps = 0;
  /** Whose code runs at present; undefined for the world's own. */
  current: Owner | undefined;
  readonly random: Random;
  /** Told of each step before it runs. */
  readonly trace: ((line: string) => void) | undefined;
  readonly #heap: Step[] = [];
  /** Of the steps so far: two halves of one digest. */
  #moments = 0;
  #kinds = 0;
  readonly #words = new Map<string, number>();
  #seq = 0;

  constructor(random: Random, trace?: (line: string) => void) {
    this.random = random;
    this.trace = trace;
  }

  /** A number from `low` up to `high`. */
  between(low: number, high: number): number {
    return low + this.random() * (high - low);
  }

  chance(probability: number): boolean {
    return this.random() < probability;
  }

  after(ms: number, kind: string, run: () => void, owner?: Owner): Step {
    const step: Step = { at: this.now + Math.max(0, ms), seq: (this.#seq += 1), kind, owner, run };
    this.#push(step);
    return step;
  }

  /** The next step that may run, taken; undefined when nothing is left. */
  take(): Step | undefined {
    for (;;) {
      const step = this.#pop();
      if (!step) return undefined;
      if (step.cancelled || step.owner?.alive === false) continue;
      if (step.owner && step.owner.frozenUntil > step.at) {
        step.at = step.owner.frozenUntil;
        this.#push(step);
        continue;
      }
      return step;
    }
  }

  /** Runs one step, and all that follows from it at once. */
  async run(step: Step): Promise<void> {
    this.now = Math.max(this.now, step.at);
    this.steps += 1;
    const { kind, owner } = step;
    this.trace?.(`${this.now.toFixed(3)} ${owner?.name ?? "-"} ${kind}`);
    this.#moments = mixed(this.#moments, Math.floor(this.now * 1_000));
    this.#kinds = mixed(this.#kinds, this.#numberOf(kind) ^ this.#numberOf(owner?.name ?? "-"));
    this.current = step.owner;
    step.run();
    await new Promise<void>(resolve => realSetImmediate(resolve));
    this.current = undefined;
  }

  /** Of every step so far: the same seed gives the same. */
  digest(): string {
    const hex = (half: number) => (half >>> 0).toString(16).padStart(8, "0");
    return hex(this.#moments) + hex(this.#kinds);
  }

  /** Kinds and names are few: each is hashed once. */
  #numberOf(word: string): number {
    let known = this.#words.get(word);
    if (known === undefined) {
      known = 0;
      for (let at = 0; at < word.length; at += 1) known = mixed(known, word.charCodeAt(at));
      this.#words.set(word, known);
    }
    return known;
  }

  #push(step: Step): void {
    const heap = this.#heap;
    let at = heap.push(step) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!isBefore(step, heap[parent] as Step)) break;
      heap[at] = heap[parent] as Step;
      at = parent;
    }
    heap[at] = step;
  }

  #pop(): Step | undefined {
    const heap = this.#heap;
    const first = heap[0];
    const last = heap.pop();
    if (!first || !last || heap.length === 0) return first;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      const right = child + 1;
      if (right < heap.length && isBefore(heap[right] as Step, heap[child] as Step)) child = right;
      if (!isBefore(heap[child] as Step, last)) break;
      heap[at] = heap[child] as Step;
      at = child;
    }
    heap[at] = last;
    return first;
  }
}

/** FNV-1a of 32 bits, one number at a time. */
function mixed(hash: number, next: number): number {
  return Math.imul(hash ^ next, 0x01000193) + 0x811c9dc5;
}

function isBefore(one: Step, other: Step): boolean {
  return one.at < other.at || (one.at === other.at && one.seq < other.seq);
}
