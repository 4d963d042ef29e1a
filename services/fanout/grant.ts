// What a worker is given with a shard.
import type { Grant } from "../../schemas/frozen-scope.ts";
import { hasBudget } from "../../schemas/loop-parked.ts";
import { grantBase, iterationOf, itemsLeft } from "../../schemas/loop-grant.ts";
import type { Running, Shard } from "./state.ts";

/** Shards see the scope as it was frozen: nothing that another one wrote. */
export function grantOf(shard: Shard, state: Running): Grant {
  const { frame } = shard;
  const { scope, scope_ref, keyed } = state;
  return {
    ...grantBase(shard, state),
    ...(hasBudget(state) && { gives_back: true as const }),
    ...(keyed !== undefined && { keyed }),
    ...(scope_ref ? { scope_ref } : { scope }),
    iteration: iterationOf(shard, state),
    ...(frame && {
      // Every item of a shard has its turn, whatever became of the others.
      frame: { ...itemsLeft(frame, state), tolerance: frame.count, sequential: false },
    }),
  };
}
