// What a worker is given with an iteration, or with a frame of them.
import type { Command } from "../../schemas/command.ts";
import type {
  FrozenScope,
  Grant,
  GrantedCursor,
  GrantedFrame,
} from "../../schemas/frozen-scope.ts";
import type { CursorRound } from "../../schemas/ids.ts";
import type { Json } from "../../schemas/json.ts";
import { mayFail, type CursorPlan } from "../../schemas/playbook/cursor-plan.ts";
import { toRanges } from "../../schemas/ranges.ts";
import { isClaiming, type Claiming, type Running, type Slot } from "./state.ts";

/** Values of large collections and scopes are named: whoever runs the command loads them. */
export function grantOf(command: Command, state: Running): Grant {
  const { execution_id, loop_id, step, activation, playbook } = state;
  const base = {
    command_id: command.command_id,
    execution_id,
    stream_id: loop_id,
    step,
    activation,
    attempt: command.attempt,
    delivery: command.delivery,
    kind: command.kind,
    playbook,
    ...scopeOf(state),
  };
  if (!isClaiming(state)) {
    const keyed = state.keyed === undefined ? {} : { keyed: state.keyed };
    return { ...base, ...keyed, ...itemsOf(command, state) };
  }
  // What a redriven loop claims are other rows: none may have the idempotency key of an old one.
  return { ...base, cursor: cursorOf(command.cursor as CursorRound, state) };
}

function itemsOf(command: Command, state: Running): Pick<Grant, "iteration" | "frame"> {
  const { loop_id, plan } = state;
  const { frame } = command;
  const index = frame?.first ?? command.iter_index ?? 0;
  const { iterator, size: total } = plan;
  return {
    iteration: {
      iterator,
      ...(frame ? {} : { value: itemOf(state, index) }),
      ...(state.collection_ref && { collection_ref: state.collection_ref }),
      index,
      total,
      loop_id,
    },
    ...(frame && { frame: frameOf(frame, state) }),
  };
}

/** An item that is at hand; undefined when it is in a chunk. */
function itemOf({ plan, collection }: Running, index: number): Json | undefined {
  return plan.counted ? index : collection?.[index];
}

function scopeOf(state: Running): Pick<Grant, "scope" | "scope_ref" | "writes"> {
  const { scope, scope_ref, overlay, plan } = state;
  // Only who comes after another one sees what it wrote.
  const writes = plan.window === 1 && Object.keys(overlay).length > 0 ? overlay : undefined;
  if (scope_ref) return { scope_ref, ...(writes && { writes }) };
  const inline = scope as FrozenScope;
  return { scope: writes ? { ...inline, ctx: { ...inline.ctx, ...writes } } : inline };
}

function frameOf({ first, count }: NonNullable<Command["frame"]>, state: Running): GrantedFrame {
  const { plan, done, failed, failedCount, collection } = state;
  const left: number[] = [];
  for (let index = first; index < first + count; index += 1) {
    if (!done.has(index) && !failed.has(index)) left.push(index);
  }
  const atHand = plan.counted || collection !== undefined;
  return {
    first,
    count,
    left: toRanges(left),
    ...(atHand && { values: left.map(index => itemOf(state, index) as Json) }),
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
