// The state of a loop: its plan, what is open, and of what is over only one bit an iteration.
import { Bitmap } from "../../schemas/bitmap.ts";
import type { Command, LeftRows } from "../../schemas/command.ts";
import type { OutcomeResult } from "../../schemas/events.ts";
import type { Json, JsonObject } from "../../schemas/json.ts";
import type { BegunLoop, LoopIdentity } from "../../schemas/loop-begun.ts";
import type { LoopReport } from "../../schemas/loop-report.ts";
import type { Throttle } from "../../schemas/retry-budget.ts";
import { digestText, parseDigest } from "../../schemas/loop-digest.ts";

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
  overlay: JsonObject;
  firstError?: OutcomeResult["error"];
  /** Why nothing more is issued, when the execution asked for it: what runs may finish. */
  stopReason?: string;
  cursor?: CursorState;
  /** Only with a retry budget. */
  throttle?: Throttle;
}

export type LoopState =
  | { status: "none" }
  | ({ status: "running" } & Progress)
  | ({ status: "done" } & LoopIdentity & { report: LoopReport });

/** No item is taken to be quicker, in milliseconds: clocks of workers are that coarse. */
export const ITEM_MS_MIN = 0.01;

export type Running = Extract<LoopState, { status: "running" }>;
/** A running loop over a cursor. */
export type Claiming = Running & { cursor: CursorState };

export function isClaiming(state: LoopState): state is Claiming {
  return state.status === "running" && state.cursor !== undefined;
}

/**
 * A copy whose containers can be changed; commands are copied because claims change them in place.
 */
export function fork(state: LoopState): LoopState {
  if (state.status !== "running") return state;
  const open = new Map<string, Command>();
  for (const [id, command] of state.open) open.set(id, { ...command });
  const { done, failed, again, cursor } = state;
  const slots = cursor && { cursor: { ...cursor, slots: cursor.slots.map(one => ({ ...one })) } };
  return { ...state, open, done: done.copy(), failed: failed.copy(), again: [...again], ...slots };
}

export function freeze(state: LoopState): Json {
  if (state.status !== "running") return state as unknown as Json;
  const { open, done: ok, failed, digest, ...rest } = state;
  return {
    ...(rest as unknown as JsonObject),
    open: [...open.values()] as unknown as Json,
    done: ok.toText(),
    failed: failed.toText(),
    ...(digest !== undefined && { digest: digestText(digest) }),
  };
}

/** What of a running loop is not JSON as it is. */
interface FrozenLoop {
  open: Command[];
  done: string;
  failed: string;
  digest?: string;
}

export function thaw(frozen: Json): LoopState {
  const kept = frozen as unknown as LoopState;
  if (kept.status !== "running") return kept;
  const raw = frozen as unknown as FrozenLoop;
  return {
    ...kept,
    open: new Map(raw.open.map(command => [command.command_id, command])),
    done: Bitmap.fromText(raw.done),
    failed: Bitmap.fromText(raw.failed),
    digest: parseDigest(raw.digest),
  };
}
