// The fan-out: every shard a command of any worker's, tried again by itself, and gathered once.
import { readSets } from "../../schemas/accepted.ts";
import {
  decideRelease,
  fenced,
  heldBy,
  heldOf,
  releaseOf,
  type Command,
  type OutcomeInput,
} from "../../schemas/command.ts";
import type { Machine, TurnContext } from "../../schemas/decider.ts";
import { Rejected } from "../../schemas/errors.ts";
import type { NewEvent } from "../../schemas/events.ts";
import { handOff } from "../../schemas/hand-over.ts";
import { disowned, exhausted, expired, expiryOf, leaseDeadline } from "../../schemas/lease.ts";
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
import { cut, endAttempt, goOn, isStopped, partOf, retriesDue, tallyOf } from "./advance.ts";
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

function decide(input: LoopInput, state: FanoutState, context: TurnContext): NewEvent[] {
  if (state.status === "none") {
    return decideFirst(input, "fan-out", (from, besides) => start(from, context, besides));
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

function onward(state: FanoutState): NewEvent[] {
  return state.status === "running" ? goOn(state, tallyOf(state)) : [];
}

/** What an outcome writes into `ctx` is dropped: shards have no order, and nothing to share. */
function decideOutcome(input: OutcomeInput, state: Running, context: TurnContext): NewEvent[] {
  // The same report again: its answer, with the next command, was lost.
  if (heldBy(state.open.values(), input.next?.claim_id)) return [];
  const back = givenBack(input, state, context);
  if (back) return back;
  const { now } = context;
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
  for (;;) {
    const late = after.status === "running" ? firstLate(after, now) : undefined;
    if (!late) break;
    record(fail(late, after as Running, now));
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

function fail(late: Shard, state: Running, now: number): NewEvent[] {
  const worker_id = late.holder?.worker_id ?? "";
  const result = lateResult(late, state.plan.limits ?? {});
  return endAttempt(late, { result, worker_id, ok: [] }, state, now);
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

function deadline(state: FanoutState, context: TurnContext): number | undefined {
  if (state.status !== "running") return undefined;
  const lease = leaseDeadline(state.open.values(), leased(state, context)) ?? Infinity;
  let due = Math.min(lease, earliestProbe(state), earliestLate(state));
  if (!state.paused && !isStopped(state, tallyOf(state))) {
    for (const { retry_at } of state.retries.values()) due = Math.min(due, retry_at);
  }
  return due < Infinity ? due : undefined;
}

export const fanoutMachine: Machine<FanoutState, LoopInput, LoopAnswer> = {
  initial: () => ({ status: "none" }),
  fork,
  decide,
  evolve: (state, event, at) => evolve(state, event, at),
  answer(input, state, _context, changed) {
    if (state.status !== "running") return { changed };
    return answerTo(input, changed, state.open, shard => grantOf(shard, state));
  },
  pending: state => pendingOf(state, "fanout"),
  deadline,
  held: state => (state.status === "running" ? heldOf(state.open.values()) : []),
  isOver: state => state.status === "done",
  freeze,
  thaw,
};
