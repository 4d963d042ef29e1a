/**
 * Pausing a loop or a fan-out: what runs finishes, and nothing is issued or claimed until it goes
 * on. Messages may come late and in any order: a pause's number says which one they are about.
 */
import type { NewEvent } from "./events.ts";

/** What it knows of the pauses of its execution. */
export interface Pausable {
  step: string;
  /** The newest pause that it has heard of, and whether that one goes on. */
  pauses?: number;
  paused?: boolean;
}

/** What else the message said by which a loop or a fan-out starts. */
export interface Besides {
  /** Why it ends at once: it opens only to say that nothing ran. */
  end?: string;
  /** The pause that it begins in. */
  pause?: number;
  /** The pause that was over when it was begun: its message may still come. */
  resumed?: number;
}

export function pause(number: number, state: Pausable): NewEvent[] {
  return number > (state.pauses ?? 0) ? [pausedBy(number, state)] : [];
}

export function pausedBy(number: number, { step }: Pausable): NewEvent {
  return { event_type: "execution.paused", node_name: step, meta: { pause: number } };
}

/**
 * The pause with this number is over, also when it had never been heard of: its message may still
 * come. `onward` gives what is let in after this fact.
 */
export function resume(
  number: number,
  { pauses = 0, paused, step }: Pausable,
  onward: (resumed: NewEvent) => NewEvent[],
): NewEvent[] {
  if (pauses > number || (pauses === number && !paused)) return [];
  const meta = { pause: number };
  const fact: NewEvent = { event_type: "execution.resumed", node_name: step, meta };
  return [fact, ...(paused ? onward(fact) : [])];
}
