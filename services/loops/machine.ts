// The loop: one activation of a loop step, from its frozen collection to its one loop.done.
import {
  decideRelease,
  fenced,
  heldBy,
  heldOf,
  releaseOf,
  settled,
  type Command,
  type OutcomeInput,
} from "../../schemas/command.ts";
import { handOff } from "../../schemas/hand-over.ts";
import { disowned, exhausted, expired, expiryOf, leaseDeadline } from "../../schemas/lease.ts";
import type { Machine, TurnContext } from "../../schemas/decider.ts";
import { Rejected } from "../../schemas/errors.ts";
import type { NewEvent } from "../../schemas/events.ts";
import { parseCommandId } from "../../schemas/ids.ts";
import { earliestProbe, givenBack, mayHandOver, probe } from "../../schemas/loop-parked.ts";
import { pause, resume } from "../../schemas/loop-pause.ts";
import {
  answerTo,
  claimIn,
  decideFirst,
  decideOver,
  dropped,
  earliestLate,
  firstLate,
  pendingOf,
  type LoopAnswer,
  type LoopInput,
} from "../../schemas/loop-turns.ts";
import { lateResult } from "../../schemas/time-limits.ts";
import { cut, end, tallyOf } from "./advance.ts";
import { onward, start } from "./begin.ts";
import { claimsDue, decideClaimed, decideLost, earliestClaim, holdsRows } from "./cursor.ts";
import { evolve } from "./evolve.ts";
import { decideFrame, split } from "./frame.ts";
import { grantOf } from "./grant.ts";
import { fork, freeze, isClaiming, thaw, type LoopState, type Running } from "./state.ts";

function decide(input: LoopInput, state: LoopState, context: TurnContext): NewEvent[] {
  if (state.status === "none") {
    return decideFirst(input, "loop", (from, besides) => start(from, context, besides));
  }
  if (state.status === "done") return decideOver(input);
  switch (input.type) {
    case "start":
      return [];
    case "claim":
      return claimIn(state, input);
    case "release":
      return decideRelease(input, state.open.get(input.command_id), state.loop_id);
    case "outcome":
      return decideOutcome(input, state, context);
    case "cancel":
      return cancel(input.reason, state);
    case "stop":
      return state.stopReason === undefined ? stop(input.reason, state) : [];
    case "pause":
      return pause(input.pause, state);
    case "resume":
      return resume(input.pause, state, fact => onward(evolve(fork(state), fact) as Running));
    case "wake":
      return expireAll(state, context);
  }
}

function decideOutcome(input: OutcomeInput, state: Running, context: TurnContext): NewEvent[] {
  // The same report again: its answer, with the next command, was lost.
  if (heldBy(state.open.values(), input.next?.claim_id)) return [];
  if (isClaiming(state)) return decideClaimed(input, state, context);
  if (input.frame) return decideFrame(input, input.frame, state, context);
  const back = givenBack(input, state, context);
  if (back) return back;
  const name = parseCommandId(input.command_id);
  const index = name?.iter_index ?? -1;
  if (state.done.has(index) || state.failed.has(index)) throw settled(input.command_id);
  const command = fenced(input, state.open.get(input.command_id));
  if (command.frame) {
    throw new Rejected(`${input.command_id} is a frame: its report names items`, 422, {
      reason: "malformed",
    });
  }
  const facts = end(command, input, state);
  return mayHandOver(state) ? handOff(facts, input) : facts;
}

/**
 * Commands given back, then lost ones, one after the other, each on the state the one before left.
 */
function expireAll(state: Running, context: TurnContext): NewEvent[] {
  const events: NewEvent[] = [];
  let after = fork(state);
  function record(facts: NewEvent[]): void {
    events.push(...facts);
    for (const fact of facts) after = evolve(after, fact, context.now);
  }
  record([...disowned(state.open.values(), context)].map(one => releaseOf(one, state.loop_id)));
  for (const lost of expired(state.open.values(), context)) {
    if (after.status !== "running") break;
    const command = after.open.get(lost.command_id);
    if (command?.holder) record(expire(command, after, context));
  }
  if (isClaiming(after)) record(claimsDue(after, context.now));
  for (;;) {
    const late = after.status === "running" ? firstLate(after, context.now) : undefined;
    if (!late) break;
    record(fail(late, after as Running));
  }
  if (after.status === "running") record(probe(after, context.now));
  return events;
}

function expire(command: Command, state: Running, context: TurnContext): NewEvent[] {
  if (isClaiming(state)) return decideLost(command, state, context);
  const lost = expiryOf(command, state.loop_id);
  if (command.frame) return split(command, lost, state);
  if (command.deaths + 1 < context.settings.max_attempts) return [lost];
  const worker_id = command.holder?.worker_id ?? "";
  return [lost, ...end(command, { result: exhausted(command), worker_id }, state)];
}

function fail(late: Command, state: Running): NewEvent[] {
  const result = lateResult(late, state.plan.limits ?? {});
  return end(late, { result, worker_id: late.holder?.worker_id ?? "" }, state);
}

/** Everything open is dropped; a worker that runs some of it is refused its outcome. */
function cancel(reason: string, state: Running): NewEvent[] {
  return [...dropped(state.open.values(), state), cut(state, tallyOf(state), reason)];
}

/** What runs may finish; what only waits for a worker is dropped. */
function stop(reason: string, state: Running): NewEvent[] {
  const asked: NewEvent = { event_type: "execution.cancel_requested", meta: { reason } };
  const idle = [...state.open.values()].filter(one => !one.holder && !mustRun(one, state));
  const facts = [{ ...asked, node_name: state.step }, ...dropped(idle, state)];
  const after = facts.reduce((folded, fact) => evolve(folded, fact), fork(state)) as Running;
  return [...facts, ...onward(after)];
}

/** Rows that are claimed are not left lying. */
function mustRun(command: Command, state: Running): boolean {
  return isClaiming(state) && holdsRows(state, command);
}

export const loopMachine: Machine<LoopState, LoopInput, LoopAnswer> = {
  initial: () => ({ status: "none" }),
  fork,
  decide,
  evolve: (state, event, at) => evolve(state, event, at),
  answer(input, state, _context, changed) {
    if (state.status !== "running") return { changed };
    return answerTo(input, changed, state.open, command => grantOf(command, state));
  },
  pending: state => pendingOf(state, "loops"),
  deadline(state, context) {
    if (state.status !== "running") return undefined;
    const lease = leaseDeadline(state.open.values(), context) ?? Infinity;
    const next = isClaiming(state) ? earliestClaim(state) : earliestProbe(state);
    const due = Math.min(lease, next, earliestLate(state));
    return due < Infinity ? due : undefined;
  },
  held: state => (state.status === "running" ? heldOf(state.open.values()) : []),
  isOver: state => state.status === "done",
  freeze,
  thaw,
};
