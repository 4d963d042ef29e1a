/**
 * What the templates of a step may see, cut to the names they read, as it crosses from actor to
 * worker.
 */
import type { RequestedBy } from "./caller.ts";
import type { LeftRows } from "./command.ts";
import type { OutcomeResult, ResultReference } from "./events.ts";
import type { CursorRound } from "./ids.ts";
import type { Json, JsonObject } from "./json.ts";
import type { CursorPlan } from "./playbook/cursor-plan.ts";

/** Which playbook an execution is pinned to. */
export interface PlaybookPin {
  path: string;
  version: number;
  hash: string;
}

/** Who asked for an execution, and what of their context goes with it (NOETL_META_KEYS). */
export interface StartCaller extends RequestedBy {
  meta?: JsonObject;
}

export interface FrozenScope {
  execution: { id: string; path: string; parent_id?: string; caller?: StartCaller };
  workload: JsonObject;
  ctx: JsonObject;
  /** Results by step name, inline or by reference. */
  steps: Record<string, OutcomeResult>;
  /** Name of the step whose arc led here: `{{ result }}` is its result. */
  upstream?: string;
}

/** What a worker is given with a granted claim. */
export interface Grant {
  command_id: string;
  execution_id: string;
  stream_id: string;
  step: string;
  activation: number;
  attempt: number;
  delivery: number;
  /** Tool kind of the command; absent from older servers. */
  kind?: string;
  /** The activation that names its idempotency keys, when that is an earlier one (a redrive). */
  keyed?: number;
  playbook: PlaybookPin;
  /** What its templates may see: here, or behind `scope_ref` with the loop's `writes` over it. */
  scope?: FrozenScope;
  scope_ref?: ResultReference;
  writes?: JsonObject;
  /** A failure that may pass gives it back: its loop has a budget for that. */
  gives_back?: true;
  iteration?: GrantedIteration;
  frame?: GrantedFrame;
  cursor?: GrantedCursor;
}

/** The iteration of a command; of a frame, what its iterations have in common. */
export interface GrantedIteration {
  iterator: string;
  /** The item, when its collection is small; else it is a chunk's behind `collection_ref`. */
  value?: Json;
  collection_ref?: ResultReference;
  /** 0-based; of a frame, its first. */
  index: number;
  total: number;
  loop_id: string;
}

/** Items of one command that one worker does one after the other. */
export interface GrantedFrame {
  first: number;
  count: number;
  /** Indexes still to do, as `schemas/ranges.ts` writes sets. */
  left: string;
  /** The items of `left`, when their collection is small or a count. */
  values?: Json[];
  /** Items that may yet fail before the frame stops. */
  tolerance: number;
  /** Later items see the variables that earlier ones wrote. */
  sequential: boolean;
}

/** A round of a slot: rows to claim, or those that the slot's last frame left. */
export interface GrantedCursor extends CursorRound {
  iterator: string;
  limits: CursorPlan;
  left?: LeftRows;
  /** Of the rows left, those that are done already. */
  told: string;
  /** Rows that may yet fail before the frame stops; absent: all. */
  tolerance?: number;
  /** Later rows see the variables that earlier ones wrote. */
  sequential: boolean;
}

/** A row as its claim gave it, under a name that no other row of the execution has. */
export interface ClaimedRow {
  key: string;
  row: Json;
}
