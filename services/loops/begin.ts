// The first facts of a loop, and what follows on any state of it.
import type { TurnContext } from "../../schemas/decider.ts";
import type { NewEvent } from "../../schemas/events.ts";
import { beginning, freshOf, inheritance, type LoopStart } from "../../schemas/loop-begun.ts";
import { pausedBy, type Besides } from "../../schemas/loop-pause.ts";
import { openLoop } from "../../schemas/playbook/loop-plan.ts";
import { cut, done, goOn, tallyOf } from "./advance.ts";
import { goOnClaiming } from "./cursor.ts";
import { evolve } from "./evolve.ts";
import { isClaiming, type LoopState, type Running } from "./state.ts";

/** The loop's first facts. */
export function start(input: LoopStart, context: TurnContext, besides: Besides = {}): NewEvent[] {
  const { loop_id, step, activation } = input;
  const opened = openLoop(input, context);
  const { size, mode, window, retry_budget } = opened.plan;
  const started: NewEvent = {
    event_type: "loop.started",
    node_name: step,
    meta: {
      ...{ loop_id, step, activation, collection_size: size, mode, max_in_flight: window },
      ...(retry_budget !== undefined && { retry_budget }),
      ...inheritance(input, opened),
    },
    context: beginning(input, opened, besides),
  };
  const none: LoopState = { status: "none" };
  const state = evolve(none, started, context.now, freshOf(input, opened)) as Running;
  const tally = tallyOf(state);
  if (opened.error) return [started, done(state, tally, "failed", opened.error)];
  if (besides.end !== undefined) return [started, cut(state, tally, besides.end)];
  if (besides.pause !== undefined) return [started, pausedBy(besides.pause, state)];
  return [started, ...onward(state)];
}

/** What the state lets in: the next commands, or the end. */
export function onward(state: Running): NewEvent[] {
  return isClaiming(state) ? goOnClaiming(state) : goOn(state, tallyOf(state));
}
