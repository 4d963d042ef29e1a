// The items a grant names: at hand, or in a chunk of the loop's frozen collection.
import type { Runtime } from "../../mixins/runtime.ts";
import type { Grant } from "../../schemas/frozen-scope.ts";
import type { Json } from "../../schemas/json.ts";
import { fromRanges } from "../../schemas/ranges.ts";

/** The indexes of a grant's frame that are still to do. */
export function leftOf({ frame, command_id }: Grant): number[] {
  if (!frame) return [];
  const left = fromRanges(frame.left, frame.first, frame.first + frame.count);
  if (!left) throw new Error(`the grant of ${command_id} names items that are not its frame's`);
  return left;
}

/** One item. Throws Rejected when its collection is kept no longer. */
export async function itemAt(runtime: Runtime, grant: Grant, index: number): Promise<Json> {
  const { iteration, frame } = grant;
  const reference = iteration?.collection_ref;
  if (!reference) {
    return (frame ? frame.values?.[leftOf(grant).indexOf(index)] : iteration?.value) ?? null;
  }
  return runtime.values.item(reference, index);
}
