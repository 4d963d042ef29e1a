// The globals by which code reaches time and chance, handed to the scheduler of the schedule that
// runs. For a thread that does nothing else: other code in it would take part.
import crypto from "node:crypto";
import { syncBuiltinESMExports } from "node:module";
import type { Owner, Scheduler, Step } from "./scheduler.ts";

/** 2026-01-01, so that ids look as they do. */
export const EPOCH_MS = 1_767_225_600_000;

/** A process whose own clock may differ from the database's. */
export interface Clocked extends Owner {
  /** Milliseconds since the schedule began, as this process sees them. */
  localNow(): number;
}

let scheduler: Scheduler | undefined;

/** From now on time passes and chance falls as this scheduler says. */
export function attend(next: Scheduler): void {
  scheduler = next;
}

function active(): Scheduler {
  if (!scheduler) throw new Error("no schedule runs in this thread");
  return scheduler;
}

/** While modules are loaded no time passes, and chance is not anybody's in particular. */
function localNow(): number {
  if (!scheduler) return 0;
  const { current, now } = scheduler;
  return current ? (current as Clocked).localNow() : now;
}

class Timer {
  readonly step: Step;
  constructor(step: Step) {
    this.step = step;
  }
  unref(): this {
    return this;
  }
  ref(): this {
    return this;
  }
}

function later(kind: string) {
  return (work: (...args: unknown[]) => void, ms = 0, ...args: unknown[]): Timer => {
    const { current } = active();
    return new Timer(active().after(Number(ms), kind, () => work(...args), current));
  };
}

function cancel(timer: unknown): void {
  if (timer instanceof Timer) timer.step.cancelled = true;
}

/**
 * Node keeps a signal made of others for as long as somebody listens to it: that is for ever where
 * whole worlds are dropped without an abort.
 */
function anyOf(signals: Iterable<AbortSignal>): AbortSignal {
  const controller = new AbortController();
  for (const signal of signals) {
    if (signal.aborted) controller.abort(signal.reason);
    else {
      signal.addEventListener("abort", () => controller.abort(signal.reason), { once: true });
    }
  }
  return controller.signal;
}

/** Replaces them for good in this thread. */
export function replaceGlobals(): void {
  // Refusals are everyday here, and their stacks cost more than what they are about.
  Error.stackTraceLimit = 4;
  const setTimer = later("timer");
  const soon = later("soon");
  const refuse = () => {
    throw new Error("nothing that is simulated repeats by setInterval");
  };
  Object.assign(globalThis, {
    setTimeout: setTimer,
    clearTimeout: cancel,
    setInterval: refuse,
    setImmediate: (work: () => void, ...args: unknown[]) => soon(work, 0, ...args),
    clearImmediate: cancel,
  });
  AbortSignal.any = anyOf;
  Date.now = () => Math.floor(EPOCH_MS + localNow());
  performance.now = () => scheduler?.now ?? 0;
  const { random } = Math;
  Math.random = () => scheduler?.random() ?? random();
  crypto.randomUUID = () => {
    const hex = () =>
      Math.floor(active().random() * 0x1_0000_0000)
        .toString(16)
        .padStart(8, "0");
    const [a, b, c, d] = [hex(), hex(), hex(), hex()];
    return `${a}-${b.slice(0, 4)}-4${b.slice(5)}-8${c.slice(1, 4)}-${c.slice(4)}${d}`;
  };
  syncBuiltinESMExports();
}
