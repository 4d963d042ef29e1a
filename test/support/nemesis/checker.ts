// Whether what is left is what must be left (design §4): each rule says what breaks it.
import { WORKER_LOST } from "../../../schemas/lease.ts";
import { findFaults, type LogEvent } from "../log-checker.ts";
import { untoldItems } from "../lost-work.ts";
import { acceptedOf, stepOf, type Accepted, type Evidence } from "./evidence.ts";
import type { Run } from "./feeder.ts";
import { CURSOR_ROWS, type PlannedStep } from "./kitchen-sink.ts";
import { valueOf, type Call } from "./upstream.ts";

/** What is known of one execution, with its children. */
interface Case {
  run: Run;
  events: LogEvent[];
  /** Facts of its children. */
  below: LogEvent[];
  accepted: Map<string, Accepted>;
  calls: Call[];
  /** Rows by `step/item`. */
  rows: Map<string, { value: string; times: number }>;
  told: Map<string, Record<string, number>>;
}

export interface CaseRule {
  name: string;
  check(one: Case): string[];
}

/** All that is broken, each with the execution it is broken in. */
export function findViolations(evidence: Evidence): string[] {
  return [
    ...findFaults(evidence.log).map(fault => `log: ${fault}`),
    ...evidence.proven.map(fault => `verify: ${fault}`),
    ...evidence.leaks.map(place => `secret: ${place}`),
    ...casesOf(evidence).flatMap(one =>
      CASE_RULES.flatMap(({ name, check }) =>
        check(one).map(fault => `${name}: execution ${one.run.id}: ${fault}`),
      ),
    ),
  ];
}

export const CASE_RULES: CaseRule[] = [
  { name: "end", check: checkEnd },
  { name: "items", check: one => one.run.plan.steps.flatMap(step => checkItems(one, step)) },
  { name: "effects", check: one => one.run.plan.steps.flatMap(step => checkEffects(one, step)) },
  { name: "invented", check: checkInvented },
  { name: "told", check: one => one.run.plan.steps.flatMap(step => checkTold(one, step)) },
  { name: "repeats", check: checkRepeats },
  { name: "cancel", check: checkCancel },
];

export function casesOf({ runs, log, rows, told, calls }: Evidence): Case[] {
  const parents = new Map(log.rows.map(row => [row.execution_id, row.parent_execution_id]));
  const events = Map.groupBy(log.events, event => event.execution_id);
  const below = Map.groupBy(log.events, event => parents.get(event.execution_id) ?? "");
  const rowsOf = Map.groupBy(rows, row => row.execution_id);
  const toldOf = Map.groupBy(told, row => row.execution_id);
  const callsOf = Map.groupBy(calls, call => call.execution);
  return runs.map(run => ({
    run,
    events: events.get(run.id) ?? [],
    below: below.get(run.id) ?? [],
    accepted: acceptedOf(events.get(run.id) ?? []),
    calls: callsOf.get(run.id) ?? [],
    rows: new Map((rowsOf.get(run.id) ?? []).map(row => [`${row.step}/${row.item}`, row])),
    told: new Map((toldOf.get(run.id) ?? []).map(({ step, counts }) => [step, counts])),
  }));
}

/** Commands given up because each worker that ran them died: an allowed end of an item. */
export function quarantinedOf(events: LogEvent[]): LogEvent[] {
  return events.filter(
    ({ event_type, code }) => event_type === "command.failed" && code === WORKER_LOST,
  );
}

const NOTHING: Accepted = { ok: new Set(), failed: new Map() };

/** It ended, and as its end may be: by itself, or because it was asked to. */
function checkEnd({ run, events, below }: Case): string[] {
  const { status, cancelled_at } = run;
  if (status === "COMPLETED") return [];
  if (status === "CANCELLED") return cancelled_at === undefined ? ["nobody has cancelled it"] : [];
  if (status !== "FAILED") return [`it has not ended: ${status}`];
  return quarantinedOf([...events, ...below]).length > 0
    ? []
    : ["it failed, and nothing was given up"];
}

/** In a completed execution every item is accepted, and only those fail that have to. */
function checkItems({ run, accepted, below }: Case, step: PlannedStep): string[] {
  if (run.status !== "COMPLETED") return [];
  const { ok, failed } = accepted.get(step.name) ?? NOTHING;
  const faults: string[] = [];
  const lost = quarantinedOf(below).length;
  for (const [item, code] of failed) {
    const isPlanned = step.failing.includes(item);
    const isGivenUp = code === WORKER_LOST || (step.kind === "children" && lost > 0);
    if (!isPlanned && !isGivenUp) faults.push(`item ${item} of ${step.name} failed (${code})`);
  }
  for (const item of step.failing) {
    if (!failed.has(item)) faults.push(`item ${item} of ${step.name} should have failed`);
  }
  if (step.poison !== undefined && failed.get(step.poison) !== WORKER_LOST) {
    faults.push(`the poison ${step.poison} of ${step.name} was not given up`);
  }
  const settled = ok.size + failed.size;
  // What a frame had done and not told before its worker died is not claimed again.
  const isShort = step.isCursor ? settled > step.items : settled !== step.items;
  if (isShort) faults.push(`${step.name} accepted ${settled} of ${step.items} items`);
  return faults;
}

/** The effect of each accepted item is there, right, after a call that was answered. */
function checkEffects({ run, accepted, calls, rows }: Case, step: PlannedStep): string[] {
  const answered = new Set(
    calls.filter(call => call.status === 200).map(call => `${call.step}/${call.item}`),
  );
  const { ok } = accepted.get(step.name) ?? NOTHING;
  const isAll = step.isCursor && run.status === "COMPLETED";
  const items = isAll ? Array.from({ length: step.items }, (_, item) => item) : [...ok];
  if (step.isCursor && !isAll) return [];
  // A result by reference is accepted before its effect, which the next step has.
  const isBefore = step.kind === "large" && !accepted.get(`${step.name}_use`)?.ok.has(0);
  return items.flatMap(item => {
    const key = `${step.name}/${item}`;
    const row = rows.get(key);
    const faults: string[] = [];
    if (!answered.has(key)) faults.push(`${key} is accepted, and was never asked for`);
    if (!row && !isBefore) faults.push(`${key} is accepted, and its effect is not there`);
    if (row && row.value !== valueOf(run.id, step.name, String(item))) {
      faults.push(`${key} has the effect ${row.value}`);
    }
    return faults;
  });
}

/** No effect without an item, and no call without its credential. */
function checkInvented({ run, calls, rows }: Case): string[] {
  const steps = new Map(run.plan.steps.map(step => [step.name, step]));
  const isItem = (key: string): boolean => {
    const [name = "", item] = key.split("/");
    const step = steps.get(name);
    return step !== undefined && Number(item) < step.items && !step.failing.includes(Number(item));
  };
  const bare = calls.filter(call => !call.authorized);
  return [
    ...[...rows.keys()]
      .filter(key => !isItem(key))
      .map(key => `${key} has an effect, and is no item`),
    ...bare.slice(0, 1).map(() => `${bare.length} calls came without the credential`),
  ];
}

/** What the playbook was told of a loop's counts is what the log has. */
function checkTold({ run, accepted, told }: Case, step: PlannedStep): string[] {
  if (!step.isLoop || run.status !== "COMPLETED") return [];
  const counts = told.get(step.name);
  if (!counts) return [`the counts of ${step.name} were not written`];
  const { ok, failed } = accepted.get(step.name) ?? NOTHING;
  const truth = { success: ok.size, failed: failed.size };
  return Object.entries(truth).flatMap(([name, value]) =>
    counts[name] === value ? [] : [`${step.name} was told ${counts[name]} ${name}, not ${value}`],
  );
}

/** Calls that were answered once more: only for items whose worker died before it told of them. */
function checkRepeats({ events, below, calls }: Case): string[] {
  const answered = calls.filter(call => call.status === 200);
  const items = new Set(answered.map(call => `${call.step}/${call.item}`));
  const repeated = answered.length - items.size;
  const all = [...events, ...below];
  const allowed = untoldItems(all) + cursorRows(all) + releasedItems(all);
  return repeated > allowed ? [`${repeated} calls repeated, ${allowed} were not told of`] : [];
}

/** Rows of frames whose worker died: a frame of a cursor is issued without its rows. */
function cursorRows(events: LogEvent[]): number {
  const lost = events.filter(
    ({ event_type, meta }) => event_type === "command.expired" && meta["slot"] !== undefined,
  );
  return lost.length * (CURSOR_ROWS - 1);
}

/** Work that was given back, by a worker that forgot it: it began again under the same name. */
function releasedItems(events: LogEvent[]): number {
  const counts = new Map<unknown, number>();
  let released = 0;
  for (const { event_type, meta } of events) {
    const id = meta["command_id"];
    if (event_type === "command.issued") counts.set(id, Number(meta["count"] ?? 1));
    if (event_type !== "command.released") continue;
    released += meta["slot"] === undefined ? (counts.get(id) ?? 1) : CURSOR_ROWS;
  }
  return released;
}

/** A worker that stood still hears of a cancel when it goes on. */
const CANCEL_MAX_MS = 15_000;

/** Nothing is begun any more. */
function checkCancel({ run, events, calls }: Case): string[] {
  const end = events.find(event => event.event_type === "execution.cancelled");
  if (!end) return [];
  const late = calls.filter(call => call.at > end.at * 1_000 + CANCEL_MAX_MS);
  const claims = events.filter(
    event => event.event_type === "command.claimed" && event.at > end.at,
  );
  return [
    ...claims.map(claim => `${stepOf(claim.meta["command_id"])} is claimed after the cancel`),
    ...(late.length > 0 ? [`${late.length} calls long after its cancel (${run.status})`] : []),
  ];
}
