// Redriving: which steps of an execution that has ended are run again, and what follows at once.
import type { RequestedBy } from "../../schemas/caller.ts";
import type { TurnContext } from "../../schemas/decider.ts";
import { Rejected } from "../../schemas/errors.ts";
import type { NewEvent } from "../../schemas/events.ts";
import type { JsonObject } from "../../schemas/json.ts";
import type { Playbook } from "../../schemas/playbook/model.ts";
import { needPlaybook } from "../../schemas/playbook/stored-result.ts";
import { enterAll } from "./enter.ts";
import { evolve } from "./evolve.ts";
import type { Plan, Reentry } from "./redriven.ts";
import { routeExit, type Finished } from "./route.ts";
import { copyOf, type Ended, type Lapse, type Live, type Running } from "./state.ts";

export interface RedriveInput {
  type: "redrive";
  /** Of the end that was seen: a request that is repeated redrives once. */
  generation: number;
  /** Only this step, of those that failed. */
  step?: string;
  /** By loop: the failed items to run again, as ranges; all of them when it is not named. */
  items?: Record<string, string>;
  asked?: RequestedBy;
}

/** Facts of a redrive. Throws Rejected 409 when there is nothing to run again. */
export function redrive(input: RedriveInput, state: Ended, context: TurnContext): NewEvent[] {
  const live = redrivable(input, state);
  const playbook = needPlaybook(live.playbook, context);
  const chosen = choose(live, input.step);
  const plan = planOf(chosen, input, live, playbook, context);
  const redriven: NewEvent = {
    event_type: "execution.redriven",
    ...(input.step !== undefined && { node_name: input.step }),
    meta: { generation: state.generation + 1, ...input.asked },
    context: plan as unknown as JsonObject,
  };
  const after = evolve(state, redriven, context.now) as Running;
  return [redriven, ...enterAll(after, playbook, context)];
}

function redrivable({ generation }: RedriveInput, state: Ended): Live {
  const refuse = (message: string) =>
    new Rejected(message, 409, { status: state.status.toUpperCase() });
  if (generation !== state.generation) {
    throw refuse(`the execution has ended again since: generation ${state.generation}`);
  }
  if (state.status === "cancelled") {
    throw refuse("the execution was cancelled; what is cancelled is not redriven: start it again");
  }
  if (!state.live) throw refuse("the execution ended under a build that could not redrive");
  return state.live;
}

type Chosen = [string, Lapse][];

/**
 * The steps to run again: the one asked for, else all that failed, else all that failed and were
 * tolerated. What a failure elsewhere had cut off goes on in any case.
 */
export function choose({ lapsed }: Pick<Live, "lapsed">, step: string | undefined): Chosen {
  const all = [...lapsed];
  const broken = all.filter(([, { why }]) => why === "failed" || why === "tolerated");
  const cutOff = all.filter(([, { why }]) => why === "unrouted" || why === "waiting");
  if (step !== undefined) {
    const asked = broken.filter(([name]) => name === step);
    if (asked.length > 0) return [...asked, ...cutOff];
    const names = broken.map(([name]) => name);
    const expected = names.length > 0 ? `what failed: ${names.join(", ")}` : "nothing failed";
    throw new Rejected(`step '${step}' has nothing to run again; ${expected}`, 409, {
      steps: names,
    });
  }
  const failed = broken.filter(([, { why }]) => why === "failed");
  const chosen = [...failed, ...cutOff];
  if (chosen.length > 0) return chosen;
  if (broken.length > 0) return broken;
  throw new Rejected("nothing of the execution failed: there is nothing to run again", 409);
}

function planOf(
  chosen: Chosen,
  { items }: RedriveInput,
  live: Live,
  playbook: Playbook,
  context: TurnContext,
): Plan {
  const plan: Plan = { enter: [], taken: chosen.map(([step]) => step), broken: [] };
  if (playbook.finalStep !== undefined && live.activations.has(playbook.finalStep)) {
    plan.final = playbook.finalStep;
  }
  for (const [step, lapse] of chosen) {
    if (lapse.why === "unrouted") route([step, lapse], plan, live, playbook, context);
    else plan.enter.push(reentry(step, lapse, items));
  }
  return plan;
}

function reentry(step: string, lapse: Lapse, items: RedriveInput["items"]): Reentry {
  const { upstream, loop_id, activation, keyed = activation } = lapse;
  const ranges = loop_id === undefined ? undefined : items?.[loop_id];
  return {
    step,
    ...(upstream !== undefined && { upstream }),
    ...(lapse.why !== "waiting" && {
      redrive: {
        keyed,
        ...(loop_id !== undefined && { loop_id }),
        ...(ranges !== undefined && { items: ranges }),
      },
    }),
  };
}

/** A step that ended well while the execution was failing: its arcs are taken now. */
function route(
  [step, { loop_id, activation }]: Chosen[number],
  plan: Plan,
  live: Live,
  playbook: Playbook,
  context: TurnContext,
): void {
  const finished: Finished = {
    step,
    activation,
    result: live.results.get(step) ?? { status: "ok", context: null },
    event: loop_id === undefined ? "call.done" : "loop.done",
    ctx: {},
  };
  const { failure: _failure, ...copy } = copyOf(live);
  const state: Running = { ...copy, status: "running", ctx: { ...live.ctx, ...plan.ctx } };
  const exit = routeExit(finished, state, playbook, context);
  for (const target of exit.next) plan.enter.push({ step: target, upstream: step });
  if (Object.keys(exit.ctx).length > 0) plan.ctx = { ...plan.ctx, ...exit.ctx };
  if (exit.failure) plan.broken.push({ step, failure: exit.failure });
}
