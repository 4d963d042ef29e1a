// Commands of a loop that take too long: until a worker takes them, or in one attempt.
import type { Command } from "../../schemas/command.ts";
import type { NewEvent } from "../../schemas/events.ts";
import { lateAt, lateResult } from "../../schemas/time-limits.ts";
import { end } from "./advance.ts";
import { ringing } from "../../schemas/loop-parked.ts";
import type { Running } from "./state.ts";

/** Those that time judges: held ones, and those that wait for a worker and for nothing else. */
function judged(state: Running): Command[] {
  const waiting = state.paused ? [] : [...ringing(state)].filter(({ holder }) => !holder);
  return [...[...state.open.values()].filter(({ holder }) => holder), ...waiting];
}

/** The first command that is late; undefined while none is. */
export function firstLate(state: Running, now: number): Command | undefined {
  const { limits } = state.plan;
  return limits && judged(state).find(command => lateAt(command, limits) <= now);
}

/** Ends it as failed, with what that makes room for. */
export function fail(command: Command, state: Running): NewEvent[] {
  const result = lateResult(command, state.plan.limits ?? {});
  return end(command, { result, worker_id: command.holder?.worker_id ?? "" }, state);
}

/** When the first command will be late; Infinity when none can be. */
export function earliestLate(state: Running): number {
  const { limits } = state.plan;
  if (!limits) return Infinity;
  return Math.min(Infinity, ...judged(state).map(command => lateAt(command, limits)));
}
