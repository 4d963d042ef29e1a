// How many items a frame carries, and how many frames are on their way at a time: both from what
// the frames before have shown.
import type { Command } from "../../schemas/command.ts";
import type { NewEvent } from "../../schemas/events.ts";
import type { Running } from "./state.ts";

/** A frame may take this long; its size doubles while it takes less. */
const FRAME_MS_MAX = 1_000;
/** Nobody minds waiting so long for the last frame, in milliseconds. */
const LAST_FRAME_MS = 50;
/** No item is taken to be quicker, in milliseconds: clocks of workers are that coarse. */
const ITEM_MS_MIN = 0.01;
/** More frames than this a loop's stream does not decide in a millisecond. */
const FRAMES_PER_MS = 1;
/** Frames beyond those on their way, so that the stream always finds one to decide. */
const FRAMES_SPARE = 2;

interface Report {
  /** Those that it settled. */
  items: number;
  event: NewEvent;
  command: Command | undefined;
  /** When it was recorded. */
  at: number;
}

/** Takes in what a report of a loop with frames tells. */
export function learn(state: Running, { items, event, command, at }: Report): void {
  const { stats } = (event.context ?? {}) as { stats?: { duration_ms?: number } };
  const most = state.plan.frame_max;
  const took = stats?.duration_ms;
  if (most === undefined || took === undefined) return;
  const measured = took / items;
  state.item_ms = state.item_ms === undefined ? measured : (state.item_ms + measured) / 2;
  const inTime = Math.floor(FRAME_MS_MAX / Math.max(state.item_ms, ITEM_MS_MIN));
  state.frame_size = Math.max(1, Math.min(most, inTime, state.frame_size * 2));
  const trip = at - (command?.holder?.claimed_at ?? Infinity) - took;
  // Clocks of two servers differ, and where one has claimed the other may settle.
  if (trip > 0) state.trip_ms = Math.min(trip, state.trip_ms ?? Infinity);
}

/**
 * Commands that may be open. A worker computes frames one after the other, and a loop's stream
 * decides them so: of frames that are quick, more than the stream can decide while one is on its
 * way only wait there (Little's law), and let all others wait that share the server.
 */
export function windowOf({ plan, frame_size, item_ms, trip_ms }: Running): number {
  if (item_ms === undefined || trip_ms === undefined) return plan.window;
  const frames = Math.ceil(FRAMES_PER_MS * (trip_ms + frame_size * item_ms));
  return Math.min(plan.window, FRAMES_SPARE + frames);
}

/** Items of the frame that begins here. Near the end it shrinks, so that no slot waits for it. */
export function sizeOfFrame(
  { plan, frame_size, item_ms = Infinity }: Running,
  next: number,
): number {
  if (plan.frame_max === undefined) return 1;
  const left = plan.size - next;
  const share = Math.ceil(left / (2 * plan.window));
  const short = Math.floor(LAST_FRAME_MS / Math.max(item_ms, ITEM_MS_MIN));
  return Math.max(1, Math.min(frame_size, left, Math.max(share, short)));
}
