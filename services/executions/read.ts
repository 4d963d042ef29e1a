// What readers are told about executions: rows of the projection and pages of the log.
import { batched } from "../../mixins/batched.ts";
import type { Runtime } from "../../mixins/runtime.ts";
import { listDeadLetters } from "../../mixins/postgres/dead-letter.ts";
import { pageEvents, readStepResult } from "../../mixins/postgres/event.ts";
import { listExecutions, type ExecutionRow } from "../../mixins/postgres/execution.ts";
import { Rejected } from "../../schemas/errors.ts";
import type { OutcomeResult } from "../../schemas/events.ts";
import type { JsonObject } from "../../schemas/json.ts";
import { paceOf } from "../../schemas/loop-pace.ts";
import type {
  ExecutionsDeadLetters,
  ExecutionsEvents,
  ExecutionsList,
  ExecutionsResult,
} from "../../schemas/requests.ts";

/** An execution as every door shows it; ids are strings, times ISO 8601. */
export interface ExecutionView {
  execution_id: string;
  parent_execution_id: string | null;
  path: string;
  version: number;
  status: string;
  last_event_type: string;
  last_node_name: string | null;
  start_time: string;
  end_time: string | null;
  duration_ms: number;
  error: JsonObject | null;
  result: unknown;
  /**
   * By step: `{loop_id, total, done, failed, in_flight, completed, rate_per_second, eta_seconds}`.
   */
  loop_progress: JsonObject;
  /** The same of fan-outs, with `total_shards` and `status`; their counts are of shards. */
  fanout_progress: JsonObject;
  state: JsonObject;
}

/** Results up to this size are shown whole; larger ones by reference. */
const SHOWN_BYTES_MAX = 65_536;

/** One row, its result loaded when it is small. Throws Rejected 404. */
export async function readExecution(runtime: Runtime, executionId: string): Promise<ExecutionView> {
  return viewOf(runtime, await rowOf(runtime, executionId));
}

/** A row as it is shown, its result loaded when it is small. */
export async function viewOf(runtime: Runtime, row: ExecutionRow): Promise<ExecutionView> {
  return { ...toView(row, runtime.clock.now()), result: await shownResult(runtime, row) };
}

type RowReader = (executionId: string) => Promise<ExecutionRow | undefined>;

const readers = new WeakMap<Runtime, RowReader>();

/** The row of an execution; reads of many callers go out together. Throws Rejected 404. */
export async function rowOf(runtime: Runtime, executionId: string): Promise<ExecutionRow> {
  let reader = readers.get(runtime);
  if (!reader) {
    reader = batched(async (ids: string[]) => {
      const rows = await runtime.rows.read(ids);
      const byId = new Map(rows.map(row => [row.execution_id, row]));
      return ids.map(id => byId.get(id));
    });
    readers.set(runtime, reader);
  }
  const row = await reader(executionId);
  if (row) return row;
  throw unknownExecution(executionId);
}

export function unknownExecution(executionId: string): Rejected {
  return new Rejected(`there is no execution ${executionId}`, 404, { execution_id: executionId });
}

async function shownResult(runtime: Runtime, row: ExecutionRow): Promise<unknown> {
  const result = row.result as {
    context?: unknown;
    reference?: { ref: string; bytes: number };
  } | null;
  if (!result?.reference) return result?.context ?? null;
  const { reference } = result;
  if (reference.bytes === 0 || reference.bytes > SHOWN_BYTES_MAX) return { reference };
  try {
    return await runtime.values.load(reference as never);
  } catch {
    // The row is still true when the value is no longer kept.
    return { reference };
  }
}

export function toView(row: ExecutionRow, now: number): ExecutionView {
  const { start_time, end_time, state } = row;
  return {
    execution_id: row.execution_id,
    parent_execution_id: row.parent_execution_id,
    path: row.path,
    version: row.playbook_version,
    status: row.status,
    last_event_type: row.last_event_type,
    last_node_name: row.last_node_name,
    start_time: new Date(start_time).toISOString(),
    end_time: end_time === null ? null : new Date(end_time).toISOString(),
    duration_ms: Math.max(0, Math.round((end_time ?? now) - start_time)),
    error: row.error,
    result: (row.result as { context?: unknown } | null)?.context ?? null,
    loop_progress: progressOf(row, now),
    fanout_progress: fanoutsOf(row, now),
    state,
  };
}

/** Of each loop how far it is and how fast it goes, from what its row keeps. */
function progressOf({ state }: ExecutionRow, now: number): JsonObject {
  const loops = (state["loop"] ?? {}) as unknown as Record<string, Parameters<typeof paceOf>[0]>;
  const shown = Object.entries(loops).map(([step, { marks, ...loop }]) => {
    return [step, { ...loop, ...paceOf({ ...loop, ...(marks && { marks }) }, now) }] as const;
  });
  return Object.fromEntries(shown);
}

type Shown = Omit<Parameters<typeof paceOf>[0], "total"> & { total_shards: number };

/** The same of fan-outs: a shard is what is counted there. */
function fanoutsOf({ state }: ExecutionRow, now: number): JsonObject {
  const fanouts = (state["fanout"] ?? {}) as unknown as Record<string, Shown>;
  const shown = Object.entries(fanouts).map(([step, { marks, ...fanout }]) => {
    const counted = { ...fanout, total: fanout.total_shards, ...(marks && { marks }) };
    return [step, { ...fanout, ...paceOf(counted, now) }] as const;
  });
  return Object.fromEntries(shown);
}

/** playbook-dsl §3.1 *status*. */
export async function readStatus(runtime: Runtime, executionId: string) {
  const row = await rowOf(runtime, executionId);
  const { status } = row;
  return {
    execution_id: executionId,
    path: row.path,
    status,
    completed: status === "COMPLETED",
    failed: status === "FAILED",
    is_cancelled: status === "CANCELLED",
    current_step: row.last_node_name,
    progress: progressOf(row, runtime.clock.now()),
    fanout_progress: fanoutsOf(row, runtime.clock.now()),
  };
}

/** The value of a step's newest result, whole, wherever it is kept. */
export async function readResult(runtime: Runtime, request: ExecutionsResult) {
  const { execution_id, step } = request;
  const row = await rowOf(runtime, execution_id);
  const found =
    step === undefined
      ? row.result
      : await readStepResult(runtime.database, { execution_id, step });
  const result = found as OutcomeResult | null | undefined;
  if (!result) return { found: false, value: null };
  const value = result.reference
    ? await runtime.values.load(result.reference)
    : (result.context ?? null);
  return { found: true, value };
}

export async function listRows(runtime: Runtime, filter: ExecutionsList) {
  const rows = await listExecutions(runtime.database, { ...filter, limit: filter.limit + 1 });
  const now = runtime.clock.now();
  const shown = rows.slice(0, filter.limit).map(row => {
    const { state: _state, ...view } = toView(row, now);
    return view;
  });
  return {
    executions: shown,
    ...(rows.length > filter.limit && { next: shown.at(-1)?.execution_id }),
  };
}

export async function listEvents(runtime: Runtime, request: ExecutionsEvents) {
  const { execution_id, page, page_size, event_type } = request;
  const row = await rowOf(runtime, execution_id);
  const offset = (page - 1) * page_size;
  const filter = { execution_id, event_type, offset, limit: page_size };
  const { total, events } = await pageEvents(runtime.database, filter);
  return {
    execution_id,
    status: row.status,
    path: row.path,
    events: events.map(event => forReaders(event, row)),
    pagination: { page, page_size, total, has_next: offset + events.length < total },
  };
}

/** Commands that were given up because their workers died. */
export async function listQuarantined(runtime: Runtime, filter: ExecutionsDeadLetters) {
  const limit = filter.limit + 1;
  const rows = await listDeadLetters(runtime.database, { ...filter, limit });
  const dead_letters = rows.slice(0, filter.limit);
  const next = rows.length > filter.limit ? dead_letters.at(-1)?.event_id : undefined;
  return { dead_letters, ...(next !== undefined && { next }) };
}

/**
 * Readers look for the command's id in the context and the parent beside it (playbook-dsl §3.1).
 */
export function forReaders(event: Record<string, unknown>, row: ExecutionRow) {
  const meta = event["meta"] as { command_id?: string };
  const context = (event["context"] ?? {}) as JsonObject;
  return {
    ...event,
    node_id: event["node_name"],
    parent_execution_id: row.parent_execution_id,
    context: meta.command_id === undefined ? context : { ...context, command_id: meta.command_id },
  };
}
