// What a worker is given with an iteration, or with a frame of them.
import type { Command } from "../../schemas/command.ts";
import type { FrozenScope, Grant, GrantedFrame } from "../../schemas/frozen-scope.ts";
import type { Json } from "../../schemas/json.ts";
import { toRanges } from "../../schemas/ranges.ts";
import type { Running } from "./state.ts";

/** Values of large collections and scopes are named: whoever runs the command loads them. */
export function grantOf(command: Command, state: Running): Grant {
  const { execution_id, loop_id, step, activation, playbook, plan } = state;
  const { frame } = command;
  const index = frame?.first ?? command.iter_index ?? 0;
  const { iterator, size: total } = plan;
  return {
    command_id: command.command_id,
    execution_id,
    stream_id: loop_id,
    step,
    activation,
    attempt: command.attempt,
    delivery: command.delivery,
    playbook,
    ...(state.keyed !== undefined && { keyed: state.keyed }),
    ...scopeOf(state),
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
