/**
 * The opening of a loop that goes on with an earlier one: the frozen collection and the plan are
 * that one's, never rendered again, and what it has settled stays settled.
 */
import { Bitmap } from "../bitmap.ts";
import type { TurnContext } from "../decider.ts";
import type { ResultReference } from "../events.ts";
import type { Json, JsonObject } from "../json.ts";
import { fromRanges } from "../ranges.ts";
import type { LoopPlan, OpenedLoop, Opening } from "./loop-plan.ts";
import { needValue } from "./stored-result.ts";

/** What is known of a loop that is over, from its log. The sets are bitmaps as text. */
export interface LoopOrigin {
  plan: LoopPlan;
  collection?: Json[];
  collection_ref?: ResultReference;
  ok: string;
  failed: string;
}

/** The reference under which the origin of a redriven loop is asked for. */
export function originReference(execution_id: string, loop_id: string): ResultReference {
  const ref = `noetl://execution/${execution_id}/loop/${loop_id}/origin`;
  return { ref, bytes: 0, tier: "log" };
}

/**
 * Undefined for a loop that begins anew: it goes on with none, or with one that never came to have
 * a collection. Throws Needs, and LostValue when the log of the earlier one is kept no longer.
 */
export function reopen(
  { execution_id, redrive }: Opening,
  context: TurnContext,
): Omit<OpenedLoop, "scope"> | undefined {
  if (redrive?.loop_id === undefined) return undefined;
  const reference = originReference(execution_id, redrive.loop_id);
  const origin = needValue(reference, context) as unknown as LoopOrigin;
  const { plan, collection, collection_ref } = origin;
  if (!plan.counted && !collection && !collection_ref) return undefined;
  const inherited = settledBefore(origin, redrive.items);
  const kept: JsonObject = {
    ...(collection && { collection }),
    ...(collection_ref && { collection_ref }),
    inherited: { ok: inherited.ok.toText(), failed: inherited.failed.toText() },
  };
  return { plan, kept, inherited, ...(collection && { items: collection }) };
}

/** Failed items run again: all of them, or those that are named. */
function settledBefore({ plan, ok, failed }: LoopOrigin, items: string | undefined) {
  const left = items === undefined ? Bitmap.ofSize(plan.size) : Bitmap.fromText(failed);
  for (const index of fromRanges(items ?? "", 0, plan.size) ?? []) left.delete(index);
  return { ok: Bitmap.fromText(ok), failed: left };
}
