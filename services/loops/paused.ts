// Pausing a loop: what runs finishes, and nothing is issued or claimed until it goes on.
import type { NewEvent } from "../../schemas/events.ts";
import { fork, type Running } from "./state.ts";
import { evolve } from "./evolve.ts";

/** Of its execution's pause with this number. Messages may come late and in any order. */
export function pause(number: number, state: Running): NewEvent[] {
  return number > (state.pauses ?? 0) ? [pausedBy(number, state)] : [];
}

export function pausedBy(number: number, { step }: Pick<Running, "step">): NewEvent {
  return { event_type: "execution.paused", node_name: step, meta: { pause: number } };
}

/**
 * The pause with this number is over, also when the loop had never heard of it: its message may
 * still come. `onward` gives what the state lets in then.
 */
export function resume(
  number: number,
  state: Running,
  onward: (state: Running) => NewEvent[],
): NewEvent[] {
  const { pauses = 0, paused, step } = state;
  if (pauses > number || (pauses === number && !paused)) return [];
  const fact: NewEvent = {
    event_type: "execution.resumed",
    node_name: step,
    meta: { pause: number },
  };
  return [fact, ...(paused ? onward(evolve(fork(state), fact) as Running) : [])];
}
