// What an execution has to say to workers, to its loops and to its children: all from its state.
import { assignments, rings } from "../../schemas/command.ts";
import type { Address, Effect, MessageInput } from "../../schemas/decider.ts";
import { timeoutError } from "./exit.ts";
import { lastPause } from "./paused.ts";
import {
  isLive,
  pausedIn,
  pauseName,
  type ExecutionState,
  type Running,
  type Token,
} from "./state.ts";

/** A message to one of its loops. */
export interface LoopMessage {
  to: Address;
  input: MessageInput;
}

/** Everything that an execution has yet to say: rings, and messages to those below it. */
export function* pending(state: ExecutionState): Iterable<Effect> {
  if (state.status === "none") return;
  const { execution_id } = state;
  const to = { actor: "executions" as const, execution_id, stream_id: execution_id };
  // It may end in the very moment in which its pause does, before its children hear of that.
  const by = lastPause(state);
  if (by) yield { kind: "message", key: by, to, input: { type: "resume_family", by } };
  if (!isLive(state)) return;
  if (state.status === "running") {
    yield* toOneAbove(state, to);
    yield* assignments(state.commands.values());
    if (!state.pause) yield* rings(state.commands.values(), to);
    else if (!state.pause.whole) {
      const key = `pause:${state.pause.number}`;
      yield { kind: "message", key, to, input: { type: "pause_family" } };
    }
  }
  for (const token of state.tokens.values()) {
    if (token.loop_id !== undefined) yield* toLoop(token, state);
  }
  if (state.status === "cancelling" && state.tokens.size === 0) {
    yield { kind: "message", key: "children", to, input: { type: "cancel_children" } };
  }
}

/**
 * A child looks up when it has begun, and when it is paused as part of another one's pause. One
 * that a user has resumed or redriven since goes its own way.
 */
function* toOneAbove(state: Running, to: Address): Iterable<Effect> {
  const { pause, pauses, generation, parent_execution_id } = state;
  const by = pause?.by;
  const isNew = generation === 0 && !pauses;
  const above = by !== undefined ? pausedIn(by) : isNew ? parent_execution_id : undefined;
  if (above === undefined) return;
  const input = { type: "follow", above, ...(by !== undefined && { by }) };
  yield { kind: "message", key: `follow:${by ?? above}`, to, input };
}

/**
 * What a loop must hear: that it starts, and that it must end. The end names the start too, as
 * either may arrive first.
 */
function* toLoop(token: Token, state: Running): Iterable<Effect> {
  const { to, start } = loopOf(token, state);
  const loop_id = start.loop_id;
  const end = endOf(token, state);
  if (end) yield { kind: "message", key: `${end.type}:${loop_id}`, to, input: { ...end, start } };
  const { pause, pauses: number } = state;
  // Of a pause it hears as those hear of it that the execution waits for.
  if (state.status === "cancelling" || pause) return;
  if (number !== undefined) {
    const input = { type: "resume", pause: number, start };
    yield { kind: "message", key: `resume:${loop_id}:${number}`, to, input };
  } else if (!end) yield { kind: "message", key: `loop:${loop_id}`, to, input: start };
}

/** A loop, and the message by which it starts. */
function loopOf({ step, activation, scope, redrive: again, ...token }: Token, state: Running) {
  const { execution_id, playbook } = state;
  const loop_id = token.loop_id as string;
  const actor = token.is_fanout ? ("fanout" as const) : ("loops" as const);
  const to = { actor, execution_id, stream_id: loop_id };
  const ids = { execution_id, loop_id, step, activation };
  const start = { type: "start", ...ids, playbook, scope, ...(again && { redrive: again }) };
  return { to, start };
}

/**
 * A cancelled or late loop drops what it runs; after a failure elsewhere, running iterations
 * finish.
 */
function endOf(
  token: Token,
  state: Running,
): { type: "cancel" | "stop"; reason: string } | undefined {
  if (state.status === "cancelling") {
    return { type: "cancel", reason: state.cancelReason ?? "the execution was cancelled" };
  }
  if (token.timed_out_ms !== undefined) {
    return { type: "cancel", reason: timeoutError(token).message };
  }
  return state.failure && { type: "stop", reason: "another step of the execution failed" };
}

/** Where the newest pause of an execution stands, told to a `describe`. */
export interface PauseStand {
  /** As those below the execution know it. */
  name: string;
  number: number;
  is: "asked" | "whole" | "over";
  /** What its loops must hear of it. */
  loops: LoopMessage[];
}

/** Undefined before any pause, and while the execution is being cancelled. */
export function pauseStand(state: Running): PauseStand | undefined {
  const { pause, pauses: number, status, execution_id } = state;
  if (number === undefined || status === "cancelling") return undefined;
  const loops = [...state.tokens.values()].flatMap(token => {
    if (token.loop_id === undefined) return [];
    const { to, start } = loopOf(token, state);
    return [{ to, input: { type: pause ? "pause" : "resume", pause: number, start } }];
  });
  const is = pause ? (pause.whole ? "whole" : "asked") : "over";
  return { name: pauseName(execution_id, number), number, is, loops };
}
