// The fold of a redrive: an execution that had ended goes on where it broke off.
import type { EventOf } from "../../schemas/events.ts";
import type { JsonObject } from "../../schemas/json.ts";
import type { Redrive } from "../../schemas/redrive.ts";
import { copyOf, type Ended, type ExecutionState, type Failure } from "./state.ts";

/** A step to enter: where it comes from, and what it goes on with. */
export interface Reentry {
  step: string;
  upstream?: string;
  redrive?: Redrive;
}

/** What a redrive has decided, as its event carries it. */
export interface Plan {
  enter: Reentry[];
  /** Steps whose lapse is made good by it. */
  taken: string[];
  /** Written by exits that are routed only now. */
  ctx?: JsonObject;
  /** Exits that could not be routed now either. */
  broken: { step: string; failure: Failure }[];
  /** The final step: it runs again, however often it ran before. */
  final?: string;
}

export function redriven(state: Ended, event: EventOf<"execution.redriven">): ExecutionState {
  if (!state.live || event.meta.generation !== state.generation + 1) return state;
  const { enter, taken, broken, ctx, final } = event.context as unknown as Plan;
  const {
    failure: _failure,
    handled: _handled,
    pause: _pause,
    due_at: _due,
    ...live
  } = copyOf(state.live);
  for (const step of taken) live.lapsed.delete(step);
  for (const { step, failure } of broken) {
    const lapse = state.live.lapsed.get(step);
    if (lapse) live.lapsed.set(step, { ...lapse, why: "failed", failure });
  }
  return {
    ...live,
    status: "running",
    generation: event.meta.generation,
    ctx: { ...live.ctx, ...ctx },
    waiting: new Map(enter.map(({ step, upstream }) => [step, upstream])),
    again: new Map(enter.flatMap(({ step, redrive }) => (redrive ? [[step, redrive]] : []))),
    ...(final !== undefined && { owedFinal: final }),
  };
}
