// The first facts of a fan-out.
import type { TurnContext } from "../../schemas/decider.ts";
import type { NewEvent } from "../../schemas/events.ts";
import { beginning, freshOf, inheritance, type LoopStart } from "../../schemas/loop-begun.ts";
import { pausedBy, type Besides } from "../../schemas/loop-pause.ts";
import { openLoop } from "../../schemas/playbook/loop-plan.ts";
import { completed, cut, goOn, tallyOf } from "./advance.ts";
import { evolve, shardsSettled } from "./evolve.ts";
import { limitsOf, type FanoutState, type Running } from "./state.ts";

export function start(input: LoopStart, context: TurnContext, besides: Besides = {}): NewEvent[] {
  const { loop_id, step, activation } = input;
  const opened = openLoop(input, context);
  const { plan, inherited } = opened;
  const { retry_budget } = plan;
  const { shards, batch } = limitsOf(opened);
  const sets = inherited && { plan, done: inherited.ok, failed: inherited.failed };
  const started: NewEvent = {
    event_type: "loop.fanout.started",
    node_name: step,
    meta: {
      ...{ loop_id, step, activation, total_shards: shards, collection_size: plan.size },
      ...{ max_in_flight: plan.window, batch },
      ...(retry_budget !== undefined && { retry_budget }),
      ...inheritance(input, opened),
      ...(sets && { inherited_shards: shardsSettled(sets) }),
    },
    context: beginning(input, opened, besides),
  };
  const none: FanoutState = { status: "none" };
  const state = evolve(none, started, context.now, freshOf(input, opened)) as Running;
  const tally = tallyOf(state);
  if (opened.error) return [started, completed(state, tally, "failed", opened.error)];
  if (besides.end !== undefined) return [started, cut(state, tally, besides.end)];
  if (besides.pause !== undefined) return [started, pausedBy(besides.pause, state)];
  return [started, ...goOn(state, tally)];
}
