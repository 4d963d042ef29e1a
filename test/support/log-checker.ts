// What the log must show of any history (design §4): read by SQL, checked by replaying each stream.
import { strict as assert } from "node:assert";
import { ask, until } from "./actors.ts";
import { checkStream } from "./log-stream.ts";

export interface LogEvent {
  execution_id: string;
  stream_id: string;
  version: number;
  event_id: string;
  event_type: string;
  meta: Record<string, unknown>;
  /** `error.code` of its result. */
  code: string | null;
  /** Seconds since 1970. */
  at: number;
}

export interface LogHead {
  stream_id: string;
  execution_id: string;
  kind: string;
  version: number;
  status: string;
  has_wake: boolean;
}

interface Shown {
  loop_id: string;
  total: number;
  done: number;
  failed: number;
}

export interface LogRow {
  execution_id: string;
  parent_execution_id: string | null;
  status: string;
  loop: Record<string, Shown> | null;
  fanout?: Record<string, Omit<Shown, "total">> | null;
}

export interface Log {
  events: LogEvent[];
  heads: LogHead[];
  rows: LogRow[];
}

/** Events that end an execution, and the status that its row must have then. */
const ENDS = new Map([
  ["playbook.completed", "COMPLETED"],
  ["playbook.failed", "FAILED"],
  ["execution.cancelled", "CANCELLED"],
]);

/** Everything in the store, or of one execution. */
export async function readLog(url: string, executionId?: string): Promise<Log> {
  const id = executionId ?? null;
  const where = "where $1::bigint is null or execution_id = $1";
  const [events, heads, rows] = await Promise.all([
    ask<LogEvent>(
      url,
      `select execution_id, stream_id, version, event_id, event_type, meta,
              result->'error'->>'code' as code,
              extract(epoch from created_at)::double precision as at
       from noetl.event ${where} order by stream_id, version`,
      [id],
    ),
    ask<LogHead>(
      url,
      `select stream_id, execution_id, kind, version, status, wake_at is not null as has_wake
       from noetl.stream ${where}`,
      [id],
    ),
    ask<LogRow>(
      url,
      `select execution_id, parent_execution_id, status, state->'loop' as loop,
              state->'fanout' as fanout
       from noetl.execution ${where}`,
      [id],
    ),
  ]);
  return { events, heads, rows };
}

/**
 * Every invariant that is broken, as a sentence; none for a sound log. A log whose executions have
 * ended must also have settled: every command with its terminal, every stream ended.
 */
export function findFaults(log: Log): string[] {
  const streams = Map.groupBy(log.events, event => event.stream_id);
  const heads = new Map(log.heads.map(head => [head.stream_id, head]));
  return [
    ...[...streams].flatMap(([id, events]) => checkVersions(id, events, heads.get(id))),
    ...log.heads.filter(head => !streams.has(head.stream_id)).map(emptyStream),
    ...log.heads.flatMap(checkHead),
    ...[...streams].flatMap(([id, events]) => checkStream(id, events)),
    ...checkIds(log.events),
    ...[...Map.groupBy(log.events, event => event.execution_id)].flatMap(([id, events]) =>
      checkExecution(id, events, log),
    ),
  ];
}

/** What the database itself finds wrong with one execution, or with all of them. */
export async function provenFaults(url: string, executionId?: string): Promise<string[]> {
  const found = await ask<{ rule: string; subject: string; detail: string }>(
    url,
    `select v.rule, v.subject, v.detail
     from (select distinct execution_id from noetl.event
           where $1::bigint is null or execution_id = $1) e,
          noetl.verify_execution(e.execution_id) v
     where not v.ok`,
    [executionId ?? null],
  );
  return found.map(({ rule, subject, detail }) => `${rule}: ${subject}: ${detail}`);
}

/**
 * Fails, with all that is wrong, for the checks above and for `noetl verify`. Waits for what comes
 * after the end: acknowledgements, the row.
 */
export async function assertSound(url: string, executionId?: string): Promise<Log> {
  let log: Log = { events: [], heads: [], rows: [] };
  let faults: string[] = [];
  async function sound(): Promise<boolean> {
    log = await readLog(url, executionId);
    faults = findFaults(log);
    if (faults.length === 0) faults = await provenFaults(url, executionId);
    return faults.length === 0 && log.events.length > 0;
  }
  await until(sound, 15_000).catch(() => undefined);
  assert.deepEqual(faults, []);
  assert.ok(log.events.length > 0, "the log is empty");
  return log;
}

function checkVersions(id: string, events: LogEvent[], head: LogHead | undefined): string[] {
  const faults = events
    .filter((event, index) => event.version !== index + 1)
    .slice(0, 1)
    .map(event => `stream ${id}: version ${event.version} is not the next one`);
  if (head?.version !== events.length) {
    faults.push(`stream ${id}: ${events.length} events, but its head says ${head?.version}`);
  }
  return faults;
}

function emptyStream({ stream_id }: LogHead): string {
  return `stream ${stream_id}: a head without events`;
}

/** Every non-terminal thing has a waker (design §4.7). */
function checkHead({ stream_id, status, has_wake }: LogHead): string[] {
  return status === "open" && !has_wake ? [`stream ${stream_id}: open, and nothing wakes it`] : [];
}

function checkIds(events: LogEvent[]): string[] {
  const groups = Map.groupBy(events, event => event.event_id);
  return [...groups].flatMap(([id, { length }]) => {
    return length > 1 ? [`event id ${id} is had by ${length} events`] : [];
  });
}

function checkExecution(id: string, events: LogEvent[], { heads, rows }: Log): string[] {
  const ends = events.filter(event => ENDS.has(event.event_type));
  const generations = new Set(ends.map(event => event.meta["generation"]));
  const faults: string[] = [];
  if (ends.length > generations.size) faults.push(`${ends.length} terminals of one generation`);
  const end = ends.at(-1);
  if (!end) return faults.map(fault => `execution ${id}: ${fault}`);
  const row = rows.find(one => one.execution_id === id);
  const status = ENDS.get(end.event_type);
  if (row?.status !== status) faults.push(`${end.event_type}, but its row says ${row?.status}`);
  for (const event of events) {
    if (event.event_type === "command.claimed" && event.at > end.at) {
      faults.push(`${String(event.meta["command_id"])} is claimed after ${end.event_type}`);
    }
  }
  for (const head of heads) {
    if (head.execution_id === id && head.status === "open") {
      faults.push(`stream ${head.stream_id} is still open`);
    }
  }
  return [...faults, ...checkLoops(events, row)].map(fault => `execution ${id}: ${fault}`);
}

/** Every loop that was entered began, ended once, and was reported once; its progress is exact. */
function checkLoops(events: LogEvent[], row: LogRow | undefined): string[] {
  const faults: string[] = [];
  const count = (type: string, loop: unknown): LogEvent[] =>
    events.filter(event => event.event_type === type && event.meta["loop_id"] === loop);
  for (const { meta } of events.filter(event => event.event_type === "step.enter")) {
    const loop = meta["loop_id"];
    if (loop === undefined) continue;
    const isFanout = meta["loop_mode"] === "fanout";
    const ends = isFanout
      ? ["loop.fanout.started", "loop.fanin.completed"]
      : ["loop.started", "loop.done"];
    for (const type of [...ends, "step.exit"]) {
      const found = count(type, loop).length;
      if (found !== 1) faults.push(`loop ${String(loop)}: ${found} × ${type}`);
    }
  }
  for (const [step, shown] of Object.entries(row?.loop ?? {})) {
    const [done] = count("loop.done", shown.loop_id);
    const stats = done?.meta["stats"] as { success: number; failed: number } | undefined;
    if (stats && (stats.success !== shown.done || stats.failed !== shown.failed)) {
      faults.push(`loop_progress.${step} says ${shown.done} + ${shown.failed}`);
    }
  }
  for (const [step, shown] of Object.entries(row?.fanout ?? {})) {
    const said = count("loop.fanin.completed", shown.loop_id)[0]?.meta;
    if (said && (said["succeeded"] !== shown.done || said["failed"] !== shown.failed)) {
      faults.push(`fanout_progress.${step} says ${shown.done} + ${shown.failed}`);
    }
  }
  return faults;
}
