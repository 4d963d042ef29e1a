// What a worker is given with an iteration, or with a frame of them.
import type { Command } from "../../schemas/command.ts";
import type {
  FrozenScope,
  Grant,
  GrantedCursor,
  GrantedFrame,
} from "../../schemas/frozen-scope.ts";
import type { CursorRound } from "../../schemas/ids.ts";
import { grantBase, iterationOf, itemsLeft } from "../../schemas/loop-grant.ts";
import { mayFail, type CursorPlan } from "../../schemas/playbook/cursor-plan.ts";
import { hasBudget } from "../../schemas/loop-parked.ts";
import { isClaiming, type Claiming, type Running, type Slot } from "./state.ts";

/** Values of large collections and scopes are named: whoever runs the command loads them. */
export function grantOf(command: Command, state: Running): Grant {
  const base = {
    ...grantBase(command, state),
    ...scopeOf(state),
    ...(hasBudget(state) && { gives_back: true as const }),
  };
  if (!isClaiming(state)) {
    const keyed = state.keyed === undefined ? {} : { keyed: state.keyed };
    return { ...base, ...keyed, ...itemsOf(command, state) };
  }
  // What a redriven loop claims are other rows: none may have the idempotency key of an old one.
  return { ...base, cursor: cursorOf(command.cursor as CursorRound, state) };
}

function itemsOf(command: Command, state: Running): Pick<Grant, "iteration" | "frame"> {
  const { frame } = command;
  return {
    iteration: iterationOf(command, state),
    ...(frame && { frame: frameOf(frame, state) }),
  };
}

function scopeOf(state: Running): Pick<Grant, "scope" | "scope_ref" | "writes"> {
  const { scope, scope_ref, overlay, plan } = state;
  // Only who comes after another one sees what it wrote.
  const writes = plan.window === 1 && Object.keys(overlay).length > 0 ? overlay : undefined;
  if (scope_ref) return { scope_ref, ...(writes && { writes }) };
  const inline = scope as FrozenScope;
  return { scope: writes ? { ...inline, ctx: { ...inline.ctx, ...writes } } : inline };
}

function frameOf(frame: NonNullable<Command["frame"]>, state: Running): GrantedFrame {
  const { plan, failedCount } = state;
  return {
    ...itemsLeft(frame, state),
    tolerance: Math.max(0, plan.tolerance - failedCount + (state.inheritedFailed ?? 0)),
    sequential: plan.window === 1,
  };
}

function cursorOf(place: CursorRound, state: Claiming): GrantedCursor {
  const { plan, cursor, failedCount } = state;
  const limits = plan.cursor as CursorPlan;
  const { left, told } = cursor.slots[place.slot] as Slot;
  const tolerance = mayFail(limits, cursor.accepted, false) - failedCount;
  return {
    ...place,
    iterator: plan.iterator,
    limits,
    ...(left && { left }),
    told,
    ...(tolerance < Infinity && { tolerance: Math.max(0, tolerance) }),
    sequential: plan.window === 1 && limits.row_concurrency === 1,
  };
}
