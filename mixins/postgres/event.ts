// noetl.event: the grouped append, and the ways to read the log.
import { EVENT_TYPES, type NewEvent, type StoredEvent } from "../../schemas/events.ts";
import { Unavailable } from "../../schemas/errors.ts";
import { encode } from "./encode.ts";
import type { Query, Row } from "./index.ts";

/** The facts one decision adds to one stream, and what they do to its head. */
export interface StreamAppend {
  stream_id: string;
  execution_id: string;
  kind: string;
  /** Version the decision was made at; 0 makes the stream. */
  expected: number;
  events: (NewEvent & { event_id: string })[];
  /** Milliseconds since 1970; only moves the wake-up earlier. Absent when the stream ends. */
  wake_at?: number;
  /** No more facts and no unacknowledged messages: the reaper forgets the stream. */
  ended: boolean;
  /** Hint: the node that decided. */
  owner: string;
  /** Only for an execution's first append. */
  start?: StartRow;
}

/** What a start writes besides its events: its row for readers and its idempotency key. */
export interface StartRow {
  path: string;
  playbook_version: number;
  hash: string;
  parent_execution_id?: string;
  last_node_name?: string;
  key?: string;
  request_hash?: string;
  /** Seconds the key is kept. */
  key_ttl_seconds?: number;
}

export interface AppendResult {
  /**
   * Streams whose expected version was the head's; the others are in conflict and nothing of theirs
   * is written.
   */
  accepted: Set<string>;
  /** The database's clock after the statement, milliseconds since 1970. */
  now: number;
  /** `created_at` of the events, as a read gives it. */
  at: number;
}

/**
 * Appends many streams' facts in one statement (design §5): locks the heads in stream order, moves
 * those whose version still matches, makes new heads sorted, and writes the events of exactly the
 * streams it moved or made.
 */
export async function appendEvents(query: Query, appends: StreamAppend[]): Promise<AppendResult> {
  const heads = appends.map(({ events, ...head }) => ({
    ...head,
    version: head.expected + events.length,
  }));
  const rows = appends.flatMap(append =>
    append.events.map((event, index) => ({
      execution_id: append.execution_id,
      stream_id: append.stream_id,
      version: append.expected + index + 1,
      ...event,
    })),
  );
  const result = await query.query<{
    accepted_id: string | null;
    clock_ms: string;
    made_ms: string;
  }>("select accepted_id, clock_ms, made_ms from noetl.append_events($1::json, $2::json)", [
    encode(heads),
    encode(rows),
  ]);
  const accepted = new Set<string>();
  for (const row of result.rows) if (row.accepted_id !== null) accepted.add(row.accepted_id);
  const [first] = result.rows;
  return { accepted, now: Number(first?.clock_ms), at: Number(first?.made_ms) };
}

export interface EventRow extends Row {
  execution_id: string;
  stream_id: string;
  version: number;
  event_id: string;
  event_type: string;
  node_name: string | null;
  meta: Record<string, unknown>;
  context: Record<string, unknown> | null;
  result: Record<string, unknown> | null;
  at: string;
}

const COLUMNS = `execution_id, stream_id, version, event_id, event_type, node_name,
  meta, context, result,
  extract(epoch from created_at) * 1000 as at`;

/**
 * Events of one stream after `version`, in order, at most `limit`. Throws Unavailable on an unknown
 * type.
 */
export async function readStream(
  query: Query,
  stream: { execution_id: string; stream_id: string },
  version: number,
  limit: number,
): Promise<StoredEvent[]> {
  const { rows } = await query.query<EventRow>(
    `select ${COLUMNS} from noetl.event
     where execution_id = $1 and stream_id = $2 and version > $3 order by version limit $4`,
    [stream.execution_id, stream.stream_id, version, limit],
  );
  return rows.map(toEvent);
}

/** The newest result of a finished step, undefined when it never finished. */
export async function readStepResult(
  query: Query,
  step: { execution_id: string; step: string },
): Promise<Record<string, unknown> | undefined> {
  const { rows } = await query.query<{ result: Record<string, unknown> }>(
    `select result from noetl.event
     where execution_id = $1 and stream_id = $1 and node_name = $2
       and meta ? 'next' and result is not null
     order by version desc limit 1`,
    [step.execution_id, step.step],
  );
  return rows[0]?.result;
}

/** All events of an execution, every stream, each in version order. For a rebuild. */
export async function readExecution(query: Query, executionId: string): Promise<StoredEvent[]> {
  const { rows } = await query.query<EventRow>(
    `select ${COLUMNS} from noetl.event where execution_id = $1 order by stream_id, version`,
    [executionId],
  );
  return rows.map(toEvent);
}

export interface EventPage {
  total: number;
  events: Row[];
}

/** One page of what readers see of an execution's log (noetl.event_view), oldest first. */
export async function pageEvents(
  query: Query,
  filter: { execution_id: string; event_type?: string; offset: number; limit: number },
): Promise<EventPage> {
  const { rows } = await query.query<Row & { total: string }>(
    `select count(*) over () as total, event_id, execution_id, stream_id, version, event_type,
            node_name,            status, meta, context, result,
            to_char(created_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as created_at
     from noetl.event_view
     where execution_id = $1 and ($2::text is null or event_type = $2)
     order by event_id, version, part offset $3 limit $4`,
    [filter.execution_id, filter.event_type ?? null, filter.offset, filter.limit],
  );
  const total = Number(rows[0]?.total ?? 0);
  return { total, events: rows.map(({ total: _total, ...row }) => row) };
}

/** The fact in a row. Throws Unavailable for a type that only a newer build knows. */
export function toEvent(row: EventRow): StoredEvent {
  if (!EVENT_TYPES.has(row.event_type)) {
    throw new Unavailable(
      `stream ${row.stream_id} holds an event of type '${row.event_type}', unknown to this build`,
      { stream_id: row.stream_id, event_type: row.event_type },
    );
  }
  return {
    ...row,
    node_name: row.node_name ?? undefined,
    context: row.context ?? undefined,
    result: row.result ?? undefined,
    at: Number(row.at),
  } as unknown as StoredEvent;
}
