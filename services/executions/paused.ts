// Pausing an execution: what is decided, what is said below it, and the fold of both.
import type { RequestedBy } from "../../schemas/caller.ts";
import type { TurnContext } from "../../schemas/decider.ts";
import { Rejected } from "../../schemas/errors.ts";
import type { EventOf, NewEvent } from "../../schemas/events.ts";
import { needPlaybook } from "../../schemas/playbook/stored-result.ts";
import { waitAnew } from "../../schemas/time-limits.ts";
import { enterAll } from "./enter.ts";
import { evolve } from "./evolve.ts";
import { fork, isLive, pauseName, type ExecutionState, type Running } from "./state.ts";

export interface PauseInput {
  type: "pause";
  reason?: string;
  asked?: RequestedBy;
  /** The ancestor's pause that it is part of. */
  by?: string;
}

export interface ResumeInput {
  type: "resume";
  asked?: RequestedBy;
  /** The ancestor's pause that ends: one of another cause, such as a user's own, goes on. */
  by?: string;
}

/** Asked again it is one pause. Throws Rejected 409 when the execution is being cancelled. */
export function pause({ reason, asked, by }: PauseInput, state: Running): NewEvent[] {
  if (state.status === "cancelling") {
    throw new Rejected("the execution is being cancelled", 409, { reason: "cancelling" });
  }
  if (state.pause) return [];
  return [pauseRequest((state.pauses ?? 0) + 1, { ...(reason && { reason }), by, ...asked })];
}

/** The request; a child of a paused execution begins with it. */
export function pauseRequest(
  number: number,
  { by, ...more }: Pick<PauseInput, "reason" | "by"> & RequestedBy,
): NewEvent {
  const meta = { pause: number, ...more, ...(by !== undefined && { by }) };
  return { event_type: "execution.pause_requested", meta };
}

/** All below has acknowledged; `[]` for the word of an earlier pause. */
export function familyPaused({ pause: number }: { pause: number }, state: Running): NewEvent[] {
  const { pause } = state;
  if (state.status === "cancelling" || pause?.number !== number || pause.whole) return [];
  return [{ event_type: "execution.paused", meta: { pause: number } }];
}

/** Ends a pause, and enters what had to wait. */
export function resume(
  { asked, by }: ResumeInput,
  state: Running,
  context: TurnContext,
): NewEvent[] {
  const { pause } = state;
  if (!pause || state.status === "cancelling") return [];
  if (by !== undefined && pause.by !== by) return [];
  const playbook = needPlaybook(state.playbook, context);
  const fact: NewEvent = {
    event_type: "execution.resumed",
    meta: { pause: pause.number, ...asked },
  };
  const after = evolve(fork(state), fact, context.now) as Running;
  return [fact, ...enterAll(after, playbook, context)];
}

export function pauseAsked(
  state: Running,
  { meta: { pause: number = 1, by } }: EventOf<"execution.pause_requested">,
  at: number,
): ExecutionState {
  const pause = { number, at, whole: false, ...(by !== undefined && { by }) };
  return { ...state, pauses: number, pause };
}

/** Steps have not grown older meanwhile. */
export function resumed(state: Running, at: number): ExecutionState {
  const { pause, ...rest } = state;
  if (!pause) return state;
  for (const [key, token] of rest.tokens) {
    const slept = at - Math.max(pause.at, token.entered_at);
    if (slept > 0) rest.tokens.set(key, { ...token, entered_at: token.entered_at + slept });
  }
  waitAnew(rest.commands, at);
  const { due_at } = rest;
  return due_at === undefined ? rest : { ...rest, due_at: due_at + (at - pause.at) };
}

const NEVER: ReadonlySet<string> = new Set(["cancelling", "cancelled"]);

/**
 * The name of the pause that has ended last, of an execution that goes on or has ended by itself;
 * undefined while one goes on, and before any. What a cancelled one has below it ends with it.
 */
export function lastPause(state: ExecutionState): string | undefined {
  if (state.status === "none" || NEVER.has(state.status)) return undefined;
  const live = isLive(state) ? state : state.live;
  return live?.pauses && !live.pause ? pauseName(live.execution_id, live.pauses) : undefined;
}
