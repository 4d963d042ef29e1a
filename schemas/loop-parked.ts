/**
 * A loop or a fan-out with a retry budget: what is given back, what may start meanwhile, and the
 * fold of it.
 */
import { fenced, releaseOf, type Command, type GiveBack, type OutcomeInput } from "./command.ts";
import type { TurnContext } from "./decider.ts";
import { Rejected } from "./errors.ts";
import type { EventOf, NewEvent } from "./events.ts";
import {
  answered,
  gaveBack,
  isOpen,
  mayStart,
  nextProbe,
  nextProbeAt,
  nextTryAt,
  openThrottle,
  probed,
  startable,
  type Throttle,
} from "./retry-budget.ts";
import { waitAnew } from "./time-limits.ts";
import type { Pausable } from "./loop-pause.ts";
import type { LoopPlan } from "./playbook/loop-plan.ts";

export interface Parkable<One extends Command = Command> extends Pausable {
  activation: number;
  loop_id: string;
  plan: Pick<LoopPlan, "window" | "retry_budget" | "limits">;
  open: Map<string, One>;
  /** Only with a retry budget. */
  throttle?: Throttle;
}

/** How it begins, when it has a budget. */
export function freshThrottle(plan: Parkable["plan"] | undefined): Pick<Parkable, "throttle"> {
  return plan?.retry_budget === undefined ? {} : { throttle: openThrottle(plan.window) };
}

/** Whether a failure that may pass still gives its command back. */
export function hasBudget({ throttle, plan }: Parkable): boolean {
  return throttle !== undefined && throttle.spent < (plan.retry_budget ?? 0);
}

/** The fact that a command is given back, and its loop parked. */
export function giveBack(
  command: Command,
  { error }: GiveBack,
  state: Parkable,
  { now }: Pick<TurnContext, "now">,
): NewEvent {
  const { command_id } = command;
  const throttle = state.throttle as Throttle;
  const { retry_after_ms, code } = error;
  const next_try_at = nextTryAt(throttle, { command_id, now, retry_after_ms });
  const released = releaseOf(command, state.loop_id) as EventOf<"command.released">;
  return {
    ...released,
    meta: { ...released.meta, spent: throttle.spent + 1, next_try_at, code },
    result: { status: "error", error },
  };
}

/** Undefined when the outcome is to be taken as it is. Throws Rejected for a zombie's. */
export function givenBack(
  input: OutcomeInput,
  state: Parkable,
  context: TurnContext,
): NewEvent[] | undefined {
  if (!input.give_back || input.frame || !hasBudget(state)) return undefined;
  return [
    giveBack(fenced(input, state.open.get(input.command_id)), input.give_back, state, context),
  ];
}

/** The commands that may start now. */
export function ringing<One extends Command>(state: Parkable<One>): Iterable<One> {
  const { throttle, open, plan } = state;
  return throttle ? startable(throttle, open.values(), plan.window) : open.values();
}

/** Throws Rejected 409 for a command that must wait; it rings when it may start. */
export function refuseParked(command: Command | undefined, state: Parkable): void {
  const { throttle, open, plan } = state;
  if (!throttle || !command || command.holder) return;
  if (mayStart(throttle, command, open.values(), plan.window)) return;
  throw new Rejected(`command ${command.command_id} waits: its loop is parked`, 409, {
    reason: "parked",
  });
}

/** Whether what is issued may be handed over at once. */
export function mayHandOver({ throttle, plan }: Parkable): boolean {
  return !throttle || isOpen(throttle, plan.window);
}

/** Lets one command of a parked loop start, when it is time for that. */
export function probe(state: Parkable, now: number): NewEvent[] {
  const { throttle, open, step, activation, loop_id, paused } = state;
  if (!throttle || paused || (throttle.next_try_at ?? Infinity) > now) return [];
  const command = nextProbe(throttle, open.values());
  if (!command) return [];
  const { command_id } = command;
  const next_try_at = nextProbeAt(throttle, now);
  return [
    {
      event_type: "loop.probed",
      node_name: step,
      meta: { step, activation, loop_id, command_id, next_try_at },
    },
  ];
}

/** When the next probe may start; Infinity when there is none to come. */
export function earliestProbe({ throttle, open, paused }: Parkable): number {
  if (!throttle || paused || !nextProbe(throttle, open.values())) return Infinity;
  return throttle.next_try_at ?? Infinity;
}

/** Folds a command given back; `command` is as it was before. */
export function park(state: Parkable, command: Command, { meta }: EventOf<"command.released">) {
  const { command_id, delivery, spent, next_try_at } = meta;
  if (!state.throttle || spent === undefined || next_try_at === undefined) return;
  if (!command.holder || command.delivery !== delivery) return;
  state.throttle = gaveBack(state.throttle, { command_id, spent, next_try_at });
}

export function tryAgain(state: Parkable, { meta }: EventOf<"loop.probed">): void {
  const { command_id, next_try_at } = meta;
  const { throttle } = state;
  if (throttle) state.throttle = probed(throttle, command_id, next_try_at);
}

/** Folds that something was answered. */
export function answer(state: Parkable, at: number): void {
  const { throttle, open, plan } = state;
  if (!throttle || isOpen(throttle, plan.window)) return;
  waitAnew(open, at);
  let held = 0;
  for (const { holder } of open.values()) held += holder ? 1 : 0;
  state.throttle = answered(throttle, plan.window, held);
}
