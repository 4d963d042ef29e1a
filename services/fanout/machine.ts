// The fan-out: every shard a command of any worker's, tried again by itself, and gathered once.
import { readSets } from "../../schemas/accepted.ts";
import {
  decideClaim,
  decideRelease,
  fenced,
  heldBy,
  heldOf,
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
import type { Effect, Machine, TurnContext } from "../../schemas/decider.ts";
import { Rejected } from "../../schemas/errors.ts";
import type { NewEvent } from "../../schemas/events.ts";
import type { Grant } from "../../schemas/frozen-scope.ts";
import { disowned, exhausted, expired, expiryOf, leaseDeadline } from "../../schemas/lease.ts";
import type { LoopEnd, LoopPause, LoopStart } from "../../schemas/loop-begun.ts";
import {
  earliestProbe,
  givenBack,
  mayHandOver,
  mayTake,
  probe,
  refuseParked,
  ringing,
} from "../../schemas/loop-parked.ts";
import { pause, resume } from "../../schemas/loop-pause.ts";
import {
  cut,
  dropped,
  endAttempt,
  goOn,
  isStopped,
  partOf,
  retriesDue,
  tallyOf,
} from "./advance.ts";
import { lateAt, lateResult } from "../../schemas/time-limits.ts";
import { start } from "./begin.ts";
import { evolve } from "./evolve.ts";
import { grantOf } from "./grant.ts";
import {
  fork,
  freeze,
  limitsOf,
  thaw,
  type FanoutState,
  type Running,
  type Shard,
} from "./state.ts";

export type FanoutInput =
  LoopStart | ClaimInput | OutcomeInput | ReleaseInput | LoopEnd | LoopPause | { type: "wake" };

/** Told to a claim: the grant; to any other input: whether it changed anything. */
export type FanoutAnswer = { changed: boolean; grant?: Grant };

function decide(input: FanoutInput, state: FanoutState, context: TurnContext): NewEvent[] {
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
      return givenBack(input, state, context) ?? decideOutcome(input, state, context.now);
    case "cancel":
      return [...dropped(state.open.values(), state), cut(state, tallyOf(state), input.reason)];
    case "stop":
      return state.stopReason === undefined ? stop(input.reason, state) : [];
    case "pause":
      return pause(input.pause, state);
    case "resume":
      return resume(input.pause, state, fact => onward(evolve(fork(state), fact, context.now)));
    case "wake":
      return wake(state, context);
  }
}

function decideFirst(input: FanoutInput, context: TurnContext): NewEvent[] {
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
      throw new Rejected("no such fan-out", 404, { reason: "unknown" });
  }
}

function decideOver(input: FanoutInput): NewEvent[] {
  switch (input.type) {
    case "claim":
    case "release":
    case "outcome":
      throw settled(input.command_id);
    default:
      return [];
  }
}

function onward(state: FanoutState): NewEvent[] {
  return state.status === "running" ? goOn(state, tallyOf(state)) : [];
}

function claim(input: ClaimInput, state: Running): NewEvent[] {
  const shard = state.open.get(input.command_id);
  // Who has claimed it before the pause is answered again.
  if (state.paused && shard?.holder?.claim_id !== input.claim_id) throw paused(input.command_id);
  refuseParked(shard, state);
  return decideClaim(input, shard, state.loop_id);
}

/** What an outcome writes into `ctx` is dropped: shards have no order, and nothing to share. */
function decideOutcome(input: OutcomeInput, state: Running, now: number): NewEvent[] {
  // The same report again: its answer, with the next command, was lost.
  if (heldBy(state.open.values(), input.next?.claim_id)) return [];
  const shard = fenced(input, state.open.get(input.command_id)) as Shard;
  const { result, worker_id, stats } = input;
  const outcome = { result, worker_id, ...(stats && { stats }) };
  if (!shard.frame && !input.frame) {
    const ok = result.status === "ok" ? [shard.iter_index ?? 0] : [];
    const facts = endAttempt(shard, { ...outcome, ok }, state, now);
    return mayHandOver(state) ? handOff(facts, input) : facts;
  }
  const sets = setsOf(shard, input);
  const known = sets.ok.filter(index => state.done.has(index) || state.failed.has(index));
  if (known.length > 0 && known.length === sets.ok.length && !input.frame?.final) return [];
  if (known.length > 0) throw malformed(input, "names items that are done");
  if (!input.frame?.final) return partOf(shard, input, sets, state);
  return handOff(endAttempt(shard, { ...outcome, ok: sets.ok }, state, now), input);
}

function setsOf({ frame }: Command, input: OutcomeInput) {
  if (!frame) throw malformed(input, "is one item: it has no sets");
  // A shard that could not be run at all says so of the whole of it.
  if (!input.frame && input.result.status === "error") return { ok: [], failed: [] };
  if (!input.frame) throw malformed(input, "is of several items: it must name them");
  const sets = readSets(input.frame, frame.first, frame.first + frame.count);
  if (sets === "strange") throw malformed(input, "names items that are not the shard's");
  if (sets === "twice") throw malformed(input, "names an item twice");
  return sets;
}

function malformed({ command_id }: OutcomeInput, why: string): Rejected {
  return new Rejected(`the report of shard ${command_id} ${why}`, 422, { reason: "malformed" });
}

/**
 * Commands given back, then lost ones, those nobody took in time, and attempts that are due: one
 * after the other, each on the state the one before left.
 */
function wake(state: Running, context: TurnContext): NewEvent[] {
  const { now } = context;
  const events: NewEvent[] = [];
  let after = fork(state);
  function record(facts: NewEvent[]): void {
    events.push(...facts);
    for (const fact of facts) after = evolve(after, fact, now);
  }
  record([...disowned(state.open.values(), context)].map(one => releaseOf(one, state.loop_id)));
  for (const lost of expired(state.open.values(), leased(state, context))) {
    if (after.status !== "running") break;
    const shard = after.open.get(lost.command_id);
    if (shard?.holder) record(expire(shard, after, context));
  }
  for (const { command_id } of state.open.values()) {
    if (after.status !== "running") break;
    const shard = after.open.get(command_id);
    const isLate = shard && lateAtOf(shard, after) <= now;
    if (isLate) record(endAttempt(shard, late(shard, after), after, now));
  }
  if (after.status === "running") record(retriesDue(after, now));
  if (after.status === "running") record(probe(after, now));
  return events;
}

function expire(shard: Shard, state: Running, context: TurnContext): NewEvent[] {
  const lost = expiryOf(shard, state.loop_id);
  if (shard.deaths + 1 < context.settings.max_attempts) return [lost];
  const worker_id = shard.holder?.worker_id ?? "";
  const outcome = { result: exhausted(shard), worker_id, ok: [] };
  return [lost, ...endAttempt(shard, outcome, state, context.now)];
}

/** When a shard is late; nobody may take one that a pause, or an outage, holds back. */
function lateAtOf(shard: Shard, state: Running): number {
  const isHeldBack = state.paused || !mayTake(shard, state);
  return isHeldBack && !shard.holder ? Infinity : lateAt(shard, state.plan.limits ?? {});
}

function late(shard: Shard, { plan }: Running) {
  const worker_id = shard.holder?.worker_id ?? "";
  return { result: lateResult(shard, plan.limits ?? {}), worker_id, ok: [] };
}

/** The settings as the fan-out has them: its lease may be longer than that of other commands. */
function leased(state: Running, context: TurnContext): TurnContext {
  const { settings } = context;
  const lease_ms = Math.max(settings.lease_ms, limitsOf(state).lease_ms ?? 0);
  return { ...context, settings: { ...settings, lease_ms } };
}

/** What runs may finish; what only waits for a worker, or to be tried again, is dropped. */
function stop(reason: string, state: Running): NewEvent[] {
  const asked: NewEvent = {
    event_type: "execution.cancel_requested",
    node_name: state.step,
    meta: { reason },
  };
  const idle = [...state.open.values()].filter(shard => !shard.holder);
  const facts = [asked, ...dropped(idle, state)];
  const after = facts.reduce((folded, fact) => evolve(folded, fact), fork(state)) as Running;
  return [...facts, ...goOn(after, tallyOf(after))];
}

/**
 * The shard that a claim or the `next` of an outcome holds by now: inputs of one turn follow on it.
 */
function granted(input: ClaimInput | OutcomeInput, state: Running): Shard | undefined {
  const { open } = state;
  if (input.type === "outcome") {
    return heldBy(open.values(), input.next?.claim_id) as Shard | undefined;
  }
  const shard = open.get(input.command_id);
  return shard?.holder?.claim_id === input.claim_id ? shard : undefined;
}

function answer(
  input: FanoutInput,
  state: FanoutState,
  _context: TurnContext,
  changed: boolean,
): FanoutAnswer {
  if (state.status !== "running") return { changed };
  if (input.type !== "claim" && input.type !== "outcome") return { changed };
  const shard = granted(input, state);
  return shard ? { changed, grant: grantOf(shard, state) } : { changed };
}

function* pending(state: FanoutState): Iterable<Effect> {
  if (state.status === "running" && !state.paused) {
    const { execution_id, loop_id: stream_id } = state;
    yield* rings(ringing(state), { execution_id, stream_id, actor: "fanout" });
  }
  if (state.status === "done") {
    const { execution_id, report } = state;
    const to = { actor: "executions" as const, execution_id, stream_id: execution_id };
    yield { kind: "message", key: "report", to, input: { ...report } };
  }
}

function deadline(state: FanoutState, context: TurnContext): number | undefined {
  if (state.status !== "running") return undefined;
  const lease = leaseDeadline(state.open.values(), leased(state, context)) ?? Infinity;
  let due = Math.min(lease, earliestProbe(state));
  for (const shard of state.open.values()) due = Math.min(due, lateAtOf(shard, state));
  if (!state.paused && !isStopped(state, tallyOf(state))) {
    for (const { retry_at } of state.retries.values()) due = Math.min(due, retry_at);
  }
  return due < Infinity ? due : undefined;
}

export const fanoutMachine: Machine<FanoutState, FanoutInput, FanoutAnswer> = {
  initial: () => ({ status: "none" }),
  fork,
  decide,
  evolve: (state, event, at) => evolve(state, event, at),
  answer,
  pending,
  deadline,
  held: state => (state.status === "running" ? heldOf(state.open.values()) : []),
  isOver: state => state.status === "done",
  freeze,
  thaw,
};
