// The fold of a cursor loop's facts, as far as its slots are concerned. Total.
import { issuedAs, type LeftRows } from "../../schemas/command.ts";
import type { EventOf, NewEvent } from "../../schemas/events.ts";
import { parseDigest, plus } from "../../schemas/loop-digest.ts";
import { countOf, fromRanges, toRanges } from "../../schemas/ranges.ts";
import type { LoopPlan } from "../../schemas/playbook/loop-plan.ts";
import type { Claiming, CursorState, Slot } from "./state.ts";

/** Between two tries of a claim: doubled each time. */
const RETRY_MS = 1_000;
const RETRY_MS_MAX = 60_000;

/** The slots of a loop that has just begun; undefined for a loop over a collection. */
export function freshCursor(plan: LoopPlan | undefined): CursorState | undefined {
  if (!plan?.cursor) return undefined;
  const slots = Array.from({ length: plan.window }, freshSlot);
  return { slots, accepted: 0, broke: 0, frames: 0 };
}

function freshSlot(): Slot {
  return { status: "idle", round: 1, attempt: 1, told: "" };
}

/**
 * Folds a fact about one of the slots' commands into a state the caller owns; true when nothing of
 * it is left to fold but what it writes.
 */
export function foldCursor(state: Claiming, event: NewEvent, at: number): boolean {
  switch (event.event_type) {
    case "command.issued":
      issued(state, event, at);
      return true;
    case "frame.committed":
      committed(state, event);
      return true;
    case "command.failed":
      failed(state, event, at);
      return true;
    case "command.cancelled":
      dropped(state, event.meta.command_id);
      return true;
    case "command.expired":
    case "command.released":
      lost(state, event.meta);
      return false;
    default:
      return false;
  }
}

interface Held {
  command_id: string;
  delivery: number;
}

/** The slot whose command is open under this id. */
function slotOf({ open, cursor }: Claiming, commandId: string): Slot | undefined {
  return cursor.slots[open.get(commandId)?.cursor?.slot ?? -1];
}

/** Whether a fact is of the delivery that is going on. */
function isHeld({ open }: Claiming, { command_id, delivery }: Held): boolean {
  const command = open.get(command_id);
  return command?.holder !== undefined && command.delivery === delivery;
}

function issued(state: Claiming, { meta }: EventOf<"command.issued">, at: number): void {
  const { command_id, step, activation, attempt, kind, slot: place = -1, round = 0 } = meta;
  const slot = state.cursor.slots[place];
  const isNext = slot && slot.round === round && slot.attempt === attempt;
  if (!isNext || (slot.status !== "idle" && slot.status !== "waiting")) return;
  const cursor = { slot: place, round };
  const ids = { command_id, step, activation, attempt, kind, cursor };
  state.open.set(command_id, issuedAs(ids, meta, at));
  slot.status = "open";
  delete slot.retry_at;
}

function committed(state: Claiming, event: EventOf<"frame.committed">): void {
  const { command_id, ok, failed, rows = "", count, drained, broke = 0, final } = event.meta;
  const slot = slotOf(state, command_id);
  if (!slot || !isHeld(state, event.meta)) return;
  const told = fromRanges(slot.told, 0, Infinity) ?? [];
  const known = new Set(told);
  const more = fromRanges(rows, 0, Infinity) ?? [];
  if (more.some(row => known.has(row))) return;
  const { cursor } = state;
  cursor.accepted += count;
  cursor.broke += broke;
  state.doneCount += countOf(ok);
  state.failedCount += countOf(failed);
  state.digest = plus(state.digest, parseDigest(event.meta.digest));
  if (event.result.error) state.firstError ??= event.result.error;
  slot.told = toRanges([...told, ...more].sort((one, other) => one - other));
  if (!final) return;
  if (slot.told !== "") cursor.frames += 1;
  state.open.delete(command_id);
  renew(slot);
  const left = event.context?.["left"];
  if (left) slot.left = left as unknown as LeftRows;
  else if (drained) slot.status = "drained";
}

function renew(slot: Slot): void {
  slot.status = "idle";
  slot.round += 1;
  slot.attempt = 1;
  slot.told = "";
  delete slot.left;
}

/** A claim that failed is made again after a while, or its slot gives up. */
function failed(state: Claiming, event: EventOf<"command.failed">, at: number): void {
  const slot = slotOf(state, event.meta.command_id);
  if (!slot) return;
  state.open.delete(event.meta.command_id);
  const { error } = event.result;
  const { retry_mode = "none", max_attempts = 1 } = state.plan.cursor ?? {};
  if (error?.retryable && retry_mode === "whole_frame" && slot.attempt < max_attempts) {
    slot.status = "waiting";
    slot.retry_at = at + Math.min(RETRY_MS_MAX, RETRY_MS * 2 ** (slot.attempt - 1));
    slot.attempt += 1;
    return;
  }
  slot.status = "failed";
  if (error) state.cursor.error ??= error;
}

/** Who claims anew gets other rows; only those that a frame left stay what they are. */
function lost(state: Claiming, meta: Held): void {
  const slot = slotOf(state, meta.command_id);
  if (slot && isHeld(state, meta) && !slot.left) slot.told = "";
}

function dropped(state: Claiming, commandId: string): void {
  const slot = slotOf(state, commandId);
  state.open.delete(commandId);
  if (slot) renew(slot);
}
