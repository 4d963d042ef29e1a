// Loops over a cursor: slots that claim rows of a user's table until a claim gives none.
import {
  fenced,
  ofCommand,
  type Command,
  type FrameReport,
  type OutcomeInput,
} from "../../schemas/command.ts";
import { handOff } from "../../schemas/hand-over.ts";
import type { TurnContext } from "../../schemas/decider.ts";
import { Rejected } from "../../schemas/errors.ts";
import type { NewEvent, OutcomeResult } from "../../schemas/events.ts";
import { needing } from "../../schemas/needs.ts";
import { commandId } from "../../schemas/ids.ts";
import type { Json } from "../../schemas/json.ts";
import { mayFail, type CursorPlan } from "../../schemas/playbook/cursor-plan.ts";
import { fromRanges, toRanges } from "../../schemas/ranges.ts";
import { exhausted, expiryOf } from "../../schemas/lease.ts";
import { acceptance, readSets, type Sets } from "../../schemas/accepted.ts";
import { cut, done, tallyOf } from "./advance.ts";
import { evolve } from "./evolve.ts";
import { fork, type Claiming, type Slot } from "./state.ts";

/** Issues the next claim of each slot that is ready, or ends the loop when all are through. */
export function goOnClaiming(state: Claiming): NewEvent[] {
  if (state.paused) return [];
  const { cursor, open } = state;
  const { slots, accepted } = cursor;
  const error = cursor.error ?? endlessOf(state);
  const isBroken = state.failedCount > mayFail(limitsOf(state), accepted, false);
  const mayClaim = error === undefined && !isBroken && state.stopReason === undefined;
  const issued = slots.flatMap((slot, place) =>
    // What is claimed already is run also by a loop that claims no more.
    slot.status === "idle" && (slot.left ? !isBroken : mayClaim) ? issue(state, place) : [],
  );
  if (issued.length > 0 || open.size > 0) return issued;
  if (mayClaim && slots.some(slot => slot.status === "waiting")) return [];
  return [end(state, error)];
}

function end(state: Claiming, error: OutcomeResult["error"]): NewEvent {
  const { cursor, stopReason, firstError } = state;
  const tally = tallyOf(state);
  if (error) return done(state, tally, "failed", error);
  const isDrained = cursor.slots.every(slot => slot.status === "drained");
  const isBroken = tally.failed > mayFail(limitsOf(state), cursor.accepted, isDrained);
  if (isBroken) return done(state, tally, "failed", firstError);
  return isDrained ? done(state, tally, "ok") : cut(state, tally, stopReason ?? "stopped");
}

function limitsOf(state: Claiming): CursorPlan {
  return state.plan.cursor as CursorPlan;
}

/** A claim that never runs dry is a mistake of its SQL: nothing would ever end the loop. */
function endlessOf(state: Claiming): OutcomeResult["error"] | undefined {
  const { max_iterations } = limitsOf(state);
  const isEndless = state.cursor.slots.some(
    ({ status, round, left }) => status === "idle" && !left && round > max_iterations,
  );
  if (!isEndless) return undefined;
  const message =
    `a slot has claimed ${max_iterations} times and still finds rows: does the claim mark what ` +
    "it takes? (loop.cursor.options.max_iterations)";
  return { kind: "logic", retryable: false, code: "CURSOR_ENDLESS", message };
}

function issue(state: Claiming, place: number): NewEvent {
  const { execution_id, step, activation, loop_id, plan, cursor } = state;
  const { round, attempt } = cursor.slots[place] as Slot;
  const name = { execution_id, step, activation, cursor: { slot: place, round }, attempt };
  const work = { kind: plan.kind, ...needing(plan.requires) };
  const meta = { command_id: commandId(name), step, activation, attempt, ...work };
  return {
    event_type: "command.issued",
    node_name: step,
    meta: { ...meta, loop_id, ...name.cursor },
  };
}

/** Claims whose pause after a failure is over. */
export function claimsDue(state: Claiming, now: number): NewEvent[] {
  if (state.paused) return [];
  return state.cursor.slots.flatMap((slot, place) =>
    slot.status === "waiting" && (slot.retry_at ?? 0) <= now ? issue(state, place) : [],
  );
}

/** When the first failed claim is made again; Infinity when none is. */
export function earliestClaim({ cursor, paused }: Claiming): number {
  if (paused) return Infinity;
  return Math.min(...cursor.slots.map(slot => slot.retry_at ?? Infinity));
}

/** A report of rows, or the failure of a claim, and what it lets in. */
export function decideClaimed(
  input: OutcomeInput,
  state: Claiming,
  context: TurnContext,
): NewEvent[] {
  const command = fenced(input, state.open.get(input.command_id));
  const fact = input.frame
    ? reported(command, input, input.frame, state)
    : [claimFailed(command, input, state)];
  return input.frame?.final === false ? fact : handOff(follow(fact, state, context), input);
}

/** A worker died with a frame: another one claims anew, or the slot gives up. */
export function decideLost(command: Command, state: Claiming, context: TurnContext): NewEvent[] {
  const lost = expiryOf(command, state.loop_id);
  if (command.deaths + 1 < context.settings.max_attempts) return [lost];
  const worker_id = command.holder?.worker_id ?? "";
  const failed = claimFailed(command, { result: exhausted(command), worker_id }, state);
  return follow([lost, failed], state, context);
}

function follow(facts: NewEvent[], state: Claiming, context: TurnContext): NewEvent[] {
  const after = facts.reduce((folded, fact) => evolve(folded, fact, context.now), fork(state));
  return [...facts, ...goOnClaiming(after as Claiming)];
}

function claimFailed(
  command: Command,
  { result, worker_id, stats }: Pick<OutcomeInput, "result" | "worker_id" | "stats">,
  { loop_id }: Claiming,
): NewEvent {
  if (result.status === "ok") {
    throw malformed(command, "says neither which rows are done nor why there are none");
  }
  const meta = { ...ofCommand(command), loop_id, delivery: command.delivery, worker_id };
  return {
    event_type: "command.failed",
    node_name: command.step,
    meta,
    ...(stats && { context: { stats } }),
    result,
  };
}

/** `[]` for a report that is known: its answer was lost. */
function reported(
  command: Command,
  input: OutcomeInput,
  report: FrameReport,
  state: Claiming,
): NewEvent[] {
  const { ok, failed } = numbersOf(command, report);
  const rows = [...ok, ...failed].sort((one, other) => one - other);
  const slot = state.cursor.slots[command.cursor?.slot ?? -1];
  const told = new Set(fromRanges(slot?.told ?? "", 0, Infinity));
  const known = rows.filter(row => told.has(row)).length;
  if (known > 0 && known === rows.length && !report.final) return [];
  if (known > 0) throw malformed(command, "names rows that are done");
  if (report.drained && (rows.length > 0 || told.size > 0 || report.left)) {
    throw malformed(command, "has rows of a claim that gave none");
  }
  const { delivery } = command;
  const { loop_id } = state;
  const { worker_id } = input;
  if (rows.length === 0 && !report.final) {
    const meta = { ...ofCommand(command), loop_id, delivery, worker_id };
    return [{ event_type: "frame.heartbeat", node_name: command.step, meta }];
  }
  return [commit(command, input, { report, ok, failed, rows }, state)];
}

interface Counted extends Sets {
  report: FrameReport;
  /** By number in the frame, ascending, as the sets are. */
  rows: number[];
}

/** Rows get their indexes when they are accepted: the next ones, in the order of their numbers. */
function commit(
  command: Command,
  input: OutcomeInput,
  { report, ok, failed, rows }: Counted,
  { loop_id, cursor: { accepted: first } }: Claiming,
): NewEvent {
  const places = new Map(rows.map((row, rank) => [row, first + rank]));
  const indexes = (numbers: readonly number[]) => numbers.map(row => places.get(row) as number);
  const sets = { ok: indexes(ok), failed: indexes(failed) };
  const { final, drained, broke, left } = report;
  const kept = left && { left: left as Json };
  const { fact } = acceptance(command, input, { loop_id, sets, ...(kept && { kept }) });
  return {
    ...fact,
    event_type: "frame.committed",
    meta: {
      ...fact.meta,
      ...{ first, count: rows.length, final, rows: toRanges(rows) },
      ...{ ok: toRanges(sets.ok), failed: toRanges(sets.failed) },
      ...(drained && { drained }),
      ...(broke && { broke }),
    },
  };
}

/** Rows of one report at most: a claim that gives more is a command of its own making. */
const NUMBERS_MAX = 1_000_000;

function numbersOf(command: Command, report: FrameReport): Sets {
  const sets = readSets(report, 0, NUMBERS_MAX);
  if (sets === "strange") throw malformed(command, "names rows that are none");
  if (sets === "twice") throw malformed(command, "names a row twice");
  return sets;
}

function malformed({ command_id }: Command, why: string): Rejected {
  return new Rejected(`the report of ${command_id} ${why}`, 422, { reason: "malformed" });
}

/** Whether a command that nobody has begun must be kept when its loop stops. */
export function holdsRows({ cursor }: Claiming, command: Command): boolean {
  return cursor.slots[command.cursor?.slot ?? -1]?.left !== undefined;
}
