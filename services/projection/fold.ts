// The fold of the log into the row people read. Deterministic: a rebuilt row equals the one it
// replaces.
import { EXECUTION_TERMINALS, type OutcomeResult, type StoredEvent } from "../../schemas/events.ts";
import type { ExecutionRow } from "../../mixins/postgres/execution.ts";
import type { JsonObject } from "../../schemas/json.ts";
import { countOf } from "../../schemas/ranges.ts";
import {
  activated,
  ended,
  moved,
  parkedOf,
  retriesOf,
  withMarks,
  type Activation,
} from "./activation.ts";
import { fanoutsOf, foldFanout } from "./fanout.ts";

/** Facts that somebody may wait for, in the row: ends, and what was asked for from outside. */
const AWAITED: ReadonlySet<string> = new Set([
  ...EXECUTION_TERMINALS,
  "execution.cancel_requested",
  "execution.pause_requested",
  "execution.paused",
  "execution.resumed",
  "execution.redriven",
]);

/** Progress of a step's newest loop activation, in `state.loop.<step>`. */
export interface LoopProgress extends Activation {
  /** Only of a loop over a cursor, whose total is what came so far. */
  mode?: "cursor";
  total: number;
}

/**
 * The row with one event more, when that is the next one of its stream; "old" when it was folded
 * before, "gap" when one before it is missing (the log brings both again).
 */
export function foldNext(row: ExecutionRow, event: StoredEvent): ExecutionRow | "old" | "gap" {
  const expected = expectedVersion(row, event);
  if (expected === "old") return "old";
  return expected === event.version ? foldEvent(row, event) : "gap";
}

/** How far a row has come. */
export type Folded = Pick<ExecutionRow, "version" | "state">;

/** The version that must come next in the event's stream; "old" when this one is passed. */
export function expectedVersion(row: Folded, event: StoredEvent): number | "old" {
  if (event.stream_id === event.execution_id) {
    return event.version <= row.version ? "old" : row.version + 1;
  }
  const known = { ...loopsOf(row), ...fanoutsOf(row) };
  const loop = Object.values(known).find(progress => progress.loop_id === event.stream_id);
  if (loop) return event.version <= loop.version ? "old" : loop.version + 1;
  // A step is either a loop or a fan-out, in all of its activations.
  const shown = known[event.node_name ?? ""];
  if (!shown) return 1;
  // Loops are made by many nodes, so their ids do not say which is newer; their activations do.
  const { activation } = event.meta as { activation?: number };
  if (activation !== undefined) return activation > shown.activation ? 1 : "old";
  return BigInt(shown.loop_id) > BigInt(event.stream_id) ? "old" : 1;
}

function loopsOf(row: Folded): Record<string, LoopProgress> {
  return (row.state["loop"] ?? {}) as unknown as Record<string, LoopProgress>;
}

function foldEvent(row: ExecutionRow, event: StoredEvent): ExecutionRow {
  if (event.stream_id !== event.execution_id) return foldOther(row, event);
  const next = {
    ...row,
    version: event.version,
    last_event_type: event.event_type,
    last_node_name: event.node_name ?? row.last_node_name,
  };
  return { ...next, ...outcomeOf(event), state: foldCounts(row.state, event) };
}

function outcomeOf(event: StoredEvent): Partial<ExecutionRow> {
  switch (event.event_type) {
    case "playbook.completed":
      return {
        status: "COMPLETED",
        end_time: event.at,
        result: event.result ?? null,
      };
    case "playbook.failed": {
      const { error, step } = (event.result ?? {}) as { error?: JsonObject; step?: string };
      return { status: "FAILED", end_time: event.at, error: { ...error, ...(step && { step }) } };
    }
    case "execution.cancelled":
      return { status: "CANCELLED", end_time: event.at };
    case "execution.paused":
      return { status: "PAUSED" };
    case "execution.resumed":
      return { status: "RUNNING" };
    case "execution.redriven":
      return { status: "RUNNING", end_time: null, error: null, result: null };
    default:
      return {};
  }
}

/** Counters of steps: constant size however long a run is. */
function foldCounts(state: JsonObject, event: StoredEvent): JsonObject {
  const counts = {
    steps: 0,
    retries: 0,
    ...(state["counts"] as Record<string, number> | undefined),
  };
  const entered =
    event.event_type === "step.enter" ||
    (event.event_type === "command.issued" && event.meta.enter === true);
  if (entered) counts.steps += 1;
  counts.retries += retriesOf(event);
  switch (event.event_type) {
    case "execution.cancel_requested":
      if (event.meta.timeout_ms !== undefined) return { ...state, counts };
      return { ...state, counts, cancel_requested: true };
    case "execution.redriven":
      return { ...state, counts, generation: event.meta.generation };
    case "execution.pause_requested":
      return { ...state, counts, pause_requested: true };
    case "execution.paused":
    case "execution.resumed": {
      const { pause_requested: _asked, ...rest } = state;
      return { ...rest, counts };
    }
    default:
      return { ...state, counts };
  }
}

function foldOther(row: ExecutionRow, event: StoredEvent): ExecutionRow {
  const fanouts = fanoutsOf(row);
  const isFanout =
    event.event_type === "loop.fanout.started" ||
    fanouts[event.node_name ?? ""]?.loop_id === event.stream_id;
  if (!isFanout) return foldLoop(row, event);
  const step = event.node_name ?? "";
  const after = foldFanout(fanouts[step], event);
  if (!after) return row;
  const fanout = { ...fanouts, [step]: after } as unknown as JsonObject;
  return { ...row, state: { ...row.state, fanout } };
}

function foldLoop(row: ExecutionRow, event: StoredEvent): ExecutionRow {
  const step = event.node_name ?? "";
  const before = event.event_type === "loop.started" ? begun(event) : loopsOf(row)[step];
  if (!before) return row;
  const after: LoopProgress = { ...before, ...stepOf(before, event), version: event.version };
  const progress = parkedOf(withMarks(before, after, event.at), event);
  const loop = { ...loopsOf(row), [step]: progress } as unknown as JsonObject;
  return { ...row, state: { ...row.state, loop } };
}

function begun(event: StoredEvent & { event_type: "loop.started" }): LoopProgress {
  const { mode, collection_size: total, inherited } = event.meta;
  return {
    ...activated(event),
    ...(mode === "cursor" && { mode: "cursor" as const }),
    ...{ total, done: inherited?.ok ?? 0, failed: inherited?.failed ?? 0 },
  };
}

function stepOf(progress: LoopProgress, event: StoredEvent): Partial<LoopProgress> {
  const { done, failed, in_flight } = progress;
  switch (event.event_type) {
    case "command.completed":
      return { ...ended(progress, event), done: done + 1 };
    case "command.failed":
      // A claim that failed is no row.
      if (progress.mode === "cursor") return ended(progress, event);
      return { ...ended(progress, event), failed: failed + 1 };
    case "frame.committed":
      return {
        ...(progress.mode === "cursor" && { total: progress.total + event.meta.count }),
        done: done + countOf(event.meta.ok),
        failed: failed + countOf(event.meta.failed),
        retries: progress.retries + retriesOf(event),
        in_flight: Math.max(0, in_flight - (event.meta.final ? 1 : 0)),
      };
    case "loop.done":
      return {
        completed: true,
        in_flight: 0,
        status: event.meta.status,
        ended_at: Math.round(event.at),
        ...(event.meta.stats.not_run > 0 && { not_run: event.meta.stats.not_run }),
      };
    default:
      return moved(progress, event);
  }
}

/** An event with what is folded of it, as `followLog` reads it: the rest may be large. */
export function foldable({ context, result, ...event }: StoredEvent): StoredEvent {
  const { stats, collection_ref } = (context ?? {}) as JsonObject;
  return {
    ...event,
    ...(stats !== undefined && { context: { stats } }),
    ...(collection_ref !== undefined && { context: { collection_ref } }),
    ...(result && foldableResult(event.event_type, result)),
  } as StoredEvent;
}

function foldableResult(type: string, result: NonNullable<StoredEvent["result"]>): object {
  if (type === "playbook.completed" || type === "playbook.failed") return { result };
  if (type !== "command.failed" && type !== "loop.shard.failed") return {};
  return { result: { error: { code: (result as Partial<OutcomeResult>).error?.code } } };
}

/** Of each stream the newest event only: the ones before it can be read from the log. */
export function newestOf(events: StoredEvent[]): StoredEvent[] {
  const newest = new Map<string, StoredEvent>();
  for (const event of events) {
    const known = newest.get(event.stream_id);
    if (!known || known.version < event.version) newest.set(event.stream_id, event);
  }
  return [...newest.values()];
}

/** Somebody may wait until its row says it. */
export function isAwaited({ event_type }: StoredEvent): boolean {
  return AWAITED.has(event_type);
}

/** The row of an execution before any event but its start has been seen. */
export function emptyRow(
  event: StoredEvent & { event_type: "playbook.initialized" },
): ExecutionRow {
  const { path, playbook_version, hash, parent_execution_id } = event.meta;
  return {
    execution_id: event.execution_id,
    parent_execution_id: parent_execution_id ?? null,
    path,
    playbook_version,
    hash,
    status: "RUNNING",
    last_event_type: "playbook.initialized",
    last_node_name: event.node_name ?? null,
    start_time: event.at,
    end_time: null,
    state: {},
    error: null,
    result: null,
    version: 0,
  };
}
