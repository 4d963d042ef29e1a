// The tables of schema noetl in memory, with what their statements do to them (mixins/postgres):
// each function here is one statement, done at once.
import type { AppendOutcome } from "../../mixins/event-store.ts";
import type { StreamAppend, StartRow } from "../../mixins/postgres/event.ts";
import type { ExecutionRow } from "../../mixins/postgres/execution.ts";
import type { Head } from "../../mixins/postgres/stream.ts";
import { COMMAND_TERMINALS, EXECUTION_TERMINALS, type StoredEvent } from "../../schemas/events.ts";
import type { Json } from "../../schemas/json.ts";

export interface StreamRow extends Head {
  /** Milliseconds since 1970; null when nothing wakes it. */
  wake_at: number | null;
  failures: number;
  last_error: string | null;
}

export interface WorkerRuntimeRow {
  worker_id: string;
  incarnation: string;
  machine: string;
  pid: number;
  status: "ready" | "draining" | "gone";
  seen_at: number;
}

export interface Checkpoint {
  tx: string;
  event_id: string;
  epoch: number;
  holder: string | null;
  lease_until: number;
}

/** A unique index over events: of those it covers, no two may have one key. */
export interface Guard {
  name: string;
  types: ReadonlySet<string>;
  column: "command_id" | "loop_id" | "generation";
  /** Covered only when this holds of its meta. */
  where?: (event: StoredEvent) => boolean;
}

/** The guards of migrations/*.sql. */
export const GUARDS: Guard[] = [
  {
    name: "uidx_event_command_issued_command_id",
    types: new Set(["command.issued"]),
    column: "command_id",
  },
  {
    name: "uidx_event_command_terminal",
    types: new Set([...COMMAND_TERMINALS, "frame.committed"]),
    column: "command_id",
    where: event => event.event_type !== "frame.committed" || event.meta.final,
  },
  { name: "uidx_event_loop_done_loop_id", types: new Set(["loop.done"]), column: "loop_id" },
  {
    name: "uidx_event_loop_fanin_completed_loop_id",
    types: new Set(["loop.fanin.completed"]),
    column: "loop_id",
  },
  {
    name: "uidx_event_execution_terminal",
    types: new Set(EXECUTION_TERMINALS),
    column: "generation",
  },
];

export interface LogEntry {
  tx: number;
  event: StoredEvent;
}

export class MemoryTables {
  readonly streams = new Map<string, StreamRow>();
  /** By stream, in version order. */
  readonly events = new Map<string, StoredEvent[]>();
  /** In the order of commits. */
  readonly log: LogEntry[] = [];
  readonly snapshots = new Map<string, { version: number; state: Json }>();
  readonly starts = new Map<string, { execution_id: string; request_hash: string }>();
  readonly executions = new Map<string, ExecutionRow>();
  readonly checkpoints = new Map<number, Checkpoint>();
  readonly workers = new Map<string, WorkerRuntimeRow>();
  /** Transactions that have begun and not ended: the watermark is the lowest of them. */
  readonly open = new Set<number>();
  /** Rows of the projection that went back to what was before. */
  readonly setBack = new Set<string>();
  guards: Guard[] = GUARDS;
  /** false: readers of the log see what is behind an open transaction. */
  hasWatermark = true;
  readonly #guarded = new Map<string, Set<string>>(GUARDS.map(({ name }) => [name, new Set()]));
  #tx = 1_000;
  /** The database's clock, milliseconds since 1970. */
  readonly now: () => number;

  constructor(now: () => number) {
    this.now = now;
  }

  begin(): number {
    this.#tx += 1;
    this.open.add(this.#tx);
    return this.#tx;
  }

  end(tx: number): void {
    this.open.delete(tx);
  }

  watermark(): number {
    return this.hasWatermark && this.open.size > 0 ? Math.min(...this.open) : this.#tx + 1;
  }

  /**
   * noetl.append_events for one stream; `at` is when its transaction began. The events are the
   * table's own from here on: the caller has none of their objects.
   */
  append(append: StreamAppend, tx: number, at: number): AppendOutcome {
    const { stream_id, expected } = append;
    const head = this.streams.get(stream_id);
    const isKeyed = this.#takeKey(append);
    const fits = expected === 0 ? !head && isKeyed : head?.version === expected;
    if (!fits) return { status: "conflict" };
    const events = stored(append, at);
    const broken = this.#brokenBy(events);
    if (broken) {
      // The statement is undone as a whole.
      if (append.start?.key !== undefined) this.starts.delete(append.start.key);
      return { status: "refused", error: broken };
    }
    this.#guard(events);
    this.streams.set(stream_id, movedHead(head, append));
    const kept = this.events.get(stream_id);
    if (kept) kept.push(...events);
    else this.events.set(stream_id, events);
    for (const event of events) this.log.push({ tx, event });
    if (append.start && expected === 0) this.#show(append, append.start, at);
    return { status: "committed", at };
  }

  #takeKey({ start, execution_id }: StreamAppend): boolean {
    const { key, request_hash = "" } = start ?? {};
    if (key === undefined) return true;
    if (this.starts.has(key)) return false;
    this.starts.set(key, { execution_id, request_hash });
    return true;
  }

  #brokenBy(events: StoredEvent[]): Error | undefined {
    const fresh = new Set<string>();
    for (const [guard, key] of guardedKeys(this.guards, events)) {
      const name = `${guard.name}/${key}`;
      const isTaken = fresh.has(name) || this.#guarded.get(guard.name)?.has(key);
      fresh.add(name);
      if (!isTaken) continue;
      const message = `duplicate key value violates unique constraint "${guard.name}"`;
      return Object.assign(new Error(message), { code: "23505", constraint: guard.name });
    }
    return undefined;
  }

  #guard(events: StoredEvent[]): void {
    for (const [guard, key] of guardedKeys(this.guards, events))
      this.#guarded.get(guard.name)?.add(key);
  }

  #show({ execution_id }: StreamAppend, start: StartRow, at: number): void {
    this.executions.set(execution_id, {
      execution_id,
      parent_execution_id: start.parent_execution_id ?? null,
      path: start.path,
      playbook_version: start.playbook_version,
      hash: start.hash,
      status: "RUNNING",
      last_event_type: "playbook.initialized",
      last_node_name: start.last_node_name ?? null,
      start_time: at,
      end_time: null,
      state: {},
      error: null,
      result: null,
      version: 0,
    });
  }
}

function* guardedKeys(guards: Guard[], events: StoredEvent[]): Iterable<[Guard, string]> {
  for (const event of events) {
    for (const guard of guards) {
      if (!guard.types.has(event.event_type) || guard.where?.(event) === false) continue;
      const value = (event.meta as Record<string, unknown>)[guard.column];
      // NULLs are never equal.
      if (value !== undefined) yield [guard, `${event.execution_id}/${String(value)}`];
    }
  }
}

/** Events as they lie in the table. */
function stored({ stream_id, execution_id, expected, events }: StreamAppend, at: number) {
  return (events as StoredEvent[]).map((event, index) => ({
    ...event,
    execution_id,
    stream_id,
    version: expected + index + 1,
    at,
  }));
}

/** The head after an append: `wake_at` only moves earlier, and by more than a second. */
function movedHead(head: StreamRow | undefined, append: StreamAppend): StreamRow {
  const { stream_id, execution_id, kind, expected, events, ended, owner } = append;
  const wanted = append.wake_at ?? null;
  const before = head?.wake_at ?? null;
  const isSoon = wanted === null || (before !== null && before < wanted + 1_000);
  const ids = { stream_id, execution_id, kind: head?.kind ?? kind, owner };
  return {
    ...ids,
    version: expected + events.length,
    status: ended ? "ended" : "open",
    wake_at: ended ? null : head && isSoon ? before : wanted,
    failures: 0,
    last_error: null,
  };
}
