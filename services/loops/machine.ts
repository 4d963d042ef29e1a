// The loop: one activation of a loop step, from its frozen collection to its one loop.done.
import {
  decideClaim,
  decideRelease,
  fenced,
  heldBy,
  heldOf,
  ofDropped,
  paused,
  releaseOf,
  rings,
  settled,
  type ClaimInput,
  type Command,
  type OutcomeInput,
  type ReleaseInput,
} from "../../schemas/command.ts";
import { handOff } from "../../schemas/hand-over.ts";
import { disowned, exhausted, expired, expiryOf, leaseDeadline } from "../../schemas/lease.ts";
import type { Effect, Machine, TurnContext } from "../../schemas/decider.ts";
import { Rejected } from "../../schemas/errors.ts";
import type { NewEvent } from "../../schemas/events.ts";
import type { Grant } from "../../schemas/frozen-scope.ts";
import { parseCommandId } from "../../schemas/ids.ts";
import type { LoopEnd, LoopPause, LoopStart } from "../../schemas/loop-begun.ts";
import { pause, resume } from "../../schemas/loop-pause.ts";
import { cut, end, tallyOf } from "./advance.ts";
import { onward, start } from "./begin.ts";
import { claimsDue, decideClaimed, decideLost, earliestClaim, holdsRows } from "./cursor.ts";
import { decideFrame, split } from "./frame.ts";
import { grantOf } from "./grant.ts";
import {
  earliestProbe,
  givenBack,
  mayHandOver,
  probe,
  refuseParked,
  ringing,
} from "../../schemas/loop-parked.ts";
import { evolve } from "./evolve.ts";
import { earliestLate, fail, firstLate } from "./late.ts";
import { fork, freeze, isClaiming, thaw, type LoopState, type Running } from "./state.ts";

export type LoopInput =
  LoopStart | ClaimInput | OutcomeInput | ReleaseInput | LoopEnd | LoopPause | { type: "wake" };

/** Told to a claim: the grant; to any other input: whether it changed anything. */
export type LoopAnswer = { changed: boolean; grant?: Grant };

function decide(input: LoopInput, state: LoopState, context: TurnContext): NewEvent[] {
  if (state.status === "none") return decideFirst(input, context);
  if (state.status === "done") return decideOver(input);
  switch (input.type) {
    case "start":
      return [];
    case "claim":
      return claim(input, state);
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

function decideFirst(input: LoopInput, context: TurnContext): NewEvent[] {
  switch (input.type) {
    case "start":
      return start(input, context);
    case "cancel":
    case "stop":
      return start(input.start, context, { end: input.reason });
    case "pause":
      return start(input.start, context, { pause: input.pause });
    case "resume":
      return start(input.start, context, { resumed: input.pause });
    case "wake":
      return [];
    default:
      throw new Rejected("no such loop", 404, { reason: "unknown" });
  }
}

function decideOver(input: LoopInput): NewEvent[] {
  switch (input.type) {
    case "claim":
    case "release":
    case "outcome":
      throw settled(input.command_id);
    default:
      return [];
  }
}

function claim(input: ClaimInput, state: Running): NewEvent[] {
  const command = state.open.get(input.command_id);
  // Who has claimed it before the pause is answered again.
  if (state.paused && command?.holder?.claim_id !== input.claim_id) throw paused(input.command_id);
  refuseParked(command, state);
  return decideClaim(input, command, state.loop_id);
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

/** Everything open is dropped; a worker that runs some of it is refused its outcome. */
function cancel(reason: string, state: Running): NewEvent[] {
  return [...cancelled(state.open.values(), state), cut(state, tallyOf(state), reason)];
}

/** What runs may finish; what only waits for a worker is dropped. */
function stop(reason: string, state: Running): NewEvent[] {
  const asked: NewEvent = { event_type: "execution.cancel_requested", meta: { reason } };
  const dropped = cancelled(
    [...state.open.values()].filter(command => !command.holder && !mustRun(command, state)),
    state,
  );
  const facts = [{ ...asked, node_name: state.step }, ...dropped];
  const after = facts.reduce((folded, fact) => evolve(folded, fact), fork(state)) as Running;
  return [...facts, ...onward(after)];
}

/** Rows that are claimed are not left lying. */
function mustRun(command: Command, state: Running): boolean {
  return isClaiming(state) && holdsRows(state, command);
}

function cancelled(commands: Iterable<Command>, { step, loop_id }: Running): NewEvent[] {
  return [...commands].map(command => ({
    event_type: "command.cancelled",
    node_name: step,
    meta: { ...ofDropped(command), loop_id },
  }));
}

/**
 * The command that a claim or the `next` of an outcome holds by now: inputs of one turn follow on
 * it.
 */
function granted(input: ClaimInput | OutcomeInput, state: Running): Command | undefined {
  if (input.type === "outcome") return heldBy(state.open.values(), input.next?.claim_id);
  const command = state.open.get(input.command_id);
  return command?.holder?.claim_id === input.claim_id ? command : undefined;
}

function answer(
  input: LoopInput,
  state: LoopState,
  _context: TurnContext,
  changed: boolean,
): LoopAnswer {
  if (state.status !== "running") return { changed };
  if (input.type !== "claim" && input.type !== "outcome") return { changed };
  const command = granted(input, state);
  return command ? { changed, grant: grantOf(command, state) } : { changed };
}

function* pending(state: LoopState): Iterable<Effect> {
  if (state.status === "running" && !state.paused) {
    const { execution_id, loop_id: stream_id } = state;
    yield* rings(ringing(state), { execution_id, stream_id, actor: "loops" });
  }
  if (state.status === "done") {
    const { execution_id, report } = state;
    const to = { actor: "executions" as const, execution_id, stream_id: execution_id };
    yield { kind: "message", key: "report", to, input: { ...report } };
  }
}

export const loopMachine: Machine<LoopState, LoopInput, LoopAnswer> = {
  initial: () => ({ status: "none" }),
  fork,
  decide,
  evolve: (state, event, at) => evolve(state, event, at),
  answer,
  pending,
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
