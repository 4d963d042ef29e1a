// The state of a loop: its plan, what is open, and of what is over only one bit an iteration.
import type { Command, LeftRows } from "../../schemas/command.ts";
import type { OutcomeResult } from "../../schemas/events.ts";
import type { Json, JsonObject } from "../../schemas/json.ts";
import type { BegunLoop } from "../../schemas/loop-begun.ts";
import { copied, fromKept, toKept } from "../../schemas/loop-kept.ts";
import type { LoopLife } from "../../schemas/loop-turns.ts";
import type { Throttle } from "../../schemas/retry-budget.ts";

/** One claimant of a cursor loop: it claims, runs what it got, and claims again. */
export interface Slot {
  /** idle: ready for the next claim; waiting: the last one failed and is made again later. */
  status: "idle" | "open" | "waiting" | "drained" | "failed";
  /** The claim that is open or next, and which try of it; both from 1. */
  round: number;
  attempt: number;
  retry_at?: number;
  /** Rows of the open frame that are told, by their numbers in it (`schemas/ranges.ts`). */
  told: string;
  /** Rows that the last frame claimed and did not run. */
  left?: LeftRows;
}

export interface CursorState {
  slots: Slot[];
  /** Rows told so far: the next one's index, and in the end n. */
  accepted: number;
  broke: number;
  /** Frames that had rows. */
  frames: number;
  /** Why a slot gave up: its claim failed. */
  error?: OutcomeResult["error"];
}

interface Progress extends BegunLoop {
  /** The next index to issue; those below it are open, done or failed. */
  next: number;
  open: Map<string, Command>;
  /** Of what was accepted so far; undefined when an older build accepted some of it. */
  digest?: bigint;
  /** Items of frames that were given up with their worker: issued again, each by itself. */
  again: number[];
  /** Items the next frame may carry, and what one takes, in milliseconds. */
  frame_size: number;
  item_ms?: number;
  /** What a frame takes besides, at least, from its claim to its commit. */
  trip_ms?: number;
  overlay: JsonObject;
  firstError?: OutcomeResult["error"];
  /** Why nothing more is issued, when the execution asked for it: what runs may finish. */
  stopReason?: string;
  cursor?: CursorState;
  /** Only with a retry budget. */
  throttle?: Throttle;
}

export type LoopState = LoopLife<Progress>;

export type Running = Extract<LoopState, { status: "running" }>;
/** A running loop over a cursor. */
export type Claiming = Running & { cursor: CursorState };

export function isClaiming(state: LoopState): state is Claiming {
  return state.status === "running" && state.cursor !== undefined;
}

/** A copy whose containers can be changed. */
export function fork(state: LoopState): LoopState {
  if (state.status !== "running") return state;
  const { again, cursor } = state;
  const slots = cursor && { cursor: { ...cursor, slots: cursor.slots.map(one => ({ ...one })) } };
  return { ...state, ...copied(state), again: [...again], ...slots };
}

export function freeze(state: LoopState): Json {
  return state.status === "running" ? toKept(state) : (state as unknown as Json);
}

export function thaw(frozen: Json): LoopState {
  const kept = frozen as unknown as LoopState;
  return kept.status === "running" ? { ...kept, ...fromKept<Command>(frozen) } : kept;
}
