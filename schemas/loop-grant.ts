/** What the grants of a loop's and of a fan-out's commands have in common. */
import type { Command } from "./command.ts";
import type { Grant, GrantedFrame, GrantedIteration } from "./frozen-scope.ts";
import type { Json } from "./json.ts";
import type { BegunLoop, LoopIdentity } from "./loop-begun.ts";
import { toRanges } from "./ranges.ts";

/** Values of large collections and scopes are named: whoever runs the command loads them. */
export type Collected = Pick<
  BegunLoop,
  "loop_id" | "plan" | "collection" | "collection_ref" | "done" | "failed"
>;

export function grantBase(
  { command_id, attempt, delivery, kind }: Command,
  { execution_id, loop_id: stream_id, step, activation, playbook }: LoopIdentity,
): Omit<Grant, "scope"> {
  const ids = { command_id, execution_id, stream_id, step, activation };
  return { ...ids, attempt, delivery, kind, playbook };
}

/** The item of a command, or what its items have in common. */
export function iterationOf({ frame, iter_index }: Command, loop: Collected): GrantedIteration {
  const { loop_id, plan, collection_ref } = loop;
  const index = frame?.first ?? iter_index ?? 0;
  const { iterator, size: total } = plan;
  return {
    iterator,
    ...(frame ? {} : { value: itemOf(loop, index) }),
    ...(collection_ref && { collection_ref }),
    index,
    total,
    loop_id,
  };
}

/** The items of a frame that are still to do, with their values when those are at hand. */
export function itemsLeft(
  { first, count }: NonNullable<Command["frame"]>,
  loop: Collected,
): Pick<GrantedFrame, "first" | "count" | "left" | "values"> {
  const left: number[] = [];
  for (let index = first; index < first + count; index += 1) {
    if (!loop.done.has(index) && !loop.failed.has(index)) left.push(index);
  }
  const atHand = loop.plan.counted || loop.collection !== undefined;
  return {
    first,
    count,
    left: toRanges(left),
    ...(atHand && { values: left.map(index => itemOf(loop, index) as Json) }),
  };
}

/** An item that is at hand; undefined when it is in a chunk. */
function itemOf({ plan, collection }: Collected, index: number): Json | undefined {
  return plan.counted ? index : collection?.[index];
}
