// The items a grant names: at hand, or in a chunk of the loop's frozen collection.
import type { Runtime } from "../../mixins/runtime.ts";
import { Rejected } from "../../schemas/errors.ts";
import type { Grant } from "../../schemas/frozen-scope.ts";
import type { Json } from "../../schemas/json.ts";
import { chunkAt, type ChunkIndex } from "../../schemas/playbook/collection.ts";
import { fromRanges } from "../../schemas/ranges.ts";

/** One item of a grant; without a value it is in a chunk of the loop's collection. */
export interface Item {
  index: number;
  value?: Json | undefined;
}

/** The items of a grant's frame that are still to do. */
export function leftOf({ frame, command_id }: Grant): Item[] {
  if (!frame) return [];
  const left = fromRanges(frame.left, frame.first, frame.first + frame.count);
  if (!left) throw new Error(`the grant of ${command_id} names items that are not its frame's`);
  return left.map((index, place) => ({ index, value: frame.values?.[place] }));
}

/** An item's value. Throws Rejected when its collection is kept no longer. */
export async function valueOf(runtime: Runtime, grant: Grant, item: Item): Promise<Json> {
  const { index, value } = item;
  const reference = grant.iteration?.collection_ref;
  if (!reference) return value ?? null;
  const chunks = (await runtime.values.load(reference)) as unknown as ChunkIndex;
  const chunk = chunkAt(chunks, index);
  if (!chunk) throw new Rejected(`the collection of '${grant.step}' has no item ${index}`, 404);
  const items = (await runtime.values.load(chunk.reference)) as Json[];
  return items[index - chunk.first] ?? null;
}
