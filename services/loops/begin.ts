// The first facts of a loop, and what follows on any state of it.
import type { TurnContext } from "../../schemas/decider.ts";
import type { NewEvent } from "../../schemas/events.ts";
import type { Json } from "../../schemas/json.ts";
import { openLoop } from "../../schemas/playbook/loop-plan.ts";
import { cut, done, goOn, tallyOf } from "./advance.ts";
import { goOnClaiming } from "./cursor.ts";
import { evolve } from "./evolve.ts";
import type { LoopStart } from "./machine.ts";
import { pausedBy } from "./paused.ts";
import { isClaiming, type Running } from "./state.ts";

/** What else the message said by which a loop starts. */
interface Besides {
  /** Why it ends at once: it opens only to say that nothing ran. */
  end?: string;
  /** The pause that it begins in. */
  pause?: number;
  /** The pause that was over when it was begun: its message may still come. */
  resumed?: number;
}

/** The loop's first facts. */
export function start(input: LoopStart, context: TurnContext, besides: Besides = {}): NewEvent[] {
  const { loop_id, step, activation, execution_id, playbook, redrive } = input;
  const opened = openLoop(input, context);
  const { inherited } = opened;
  const started: NewEvent = {
    event_type: "loop.started",
    node_name: step,
    meta: {
      loop_id,
      step,
      activation,
      collection_size: opened.plan.size,
      mode: opened.plan.mode,
      max_in_flight: opened.plan.window,
      ...(opened.plan.retry_budget !== undefined && { retry_budget: opened.plan.retry_budget }),
      ...(inherited && {
        redrive_of: redrive?.loop_id,
        inherited: { ok: inherited.ok.count(), failed: inherited.failed.count() },
      }),
    },
    context: {
      ...opened.kept,
      ...(redrive && { keyed: redrive.keyed }),
      execution_id,
      plan: opened.plan as unknown as Json,
      playbook: { ...playbook },
      ...(besides.resumed !== undefined && { pauses: besides.resumed }),
    },
  };
  const state = evolve({ status: "none" }, started, context.now, {
    execution_id,
    scope: opened.scope,
    ...(opened.items ? { collection: opened.items } : {}),
  }) as Running;
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
