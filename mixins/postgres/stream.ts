// noetl.stream: heads, wake-ups and parking.
import type { Query } from "./index.ts";

export interface Head {
  stream_id: string;
  execution_id: string;
  kind: string;
  version: number;
  status: "open" | "ended";
  owner: string | null;
}

/**
 * Head rows of many streams in one read; streams that do not exist are absent. `now` is the
 * database's clock.
 */
export async function readHeads(
  query: Query,
  streamIds: string[],
): Promise<{ heads: Map<string, Head>; now: number }> {
  const { rows } = await query.query<Head & { now: string } & Record<string, unknown>>(
    `select s.stream_id, s.execution_id, s.kind, s.version, s.status, s.owner,
            extract(epoch from clock_timestamp()) * 1000 as now
     from (select 1) one left join noetl.stream s on s.stream_id = any ($1::bigint[])`,
    [streamIds],
  );
  const heads = new Map<string, Head>();
  for (const row of rows) if (row.stream_id !== null) heads.set(row.stream_id, row);
  return { heads, now: Number(rows[0]?.now) };
}

export interface DueStream {
  stream_id: string;
  execution_id: string;
  kind: string;
}

/**
 * Streams whose wake_at has passed, at most `limit`. The pick itself moves wake_at forward by a
 * backoff, so that a reaper that dies with them costs that time and two reapers never take the same
 * stream. `owner` limits the pick to streams that node decided last; undefined takes everybody's.
 */
export async function pickDue(
  query: Query,
  options: { limit: number; backoffMs: number; owner?: string },
): Promise<DueStream[]> {
  const { rows } = await query.query<DueStream & Record<string, unknown>>(
    `with due as (
       select stream_id from noetl.stream
       where status = 'open' and wake_at <= now() and ($3::text is null or owner = $3)
       order by wake_at limit $1 for update skip locked
     )
     update noetl.stream s set wake_at = now() + make_interval(secs => $2::double precision / 1000)
     from due where s.stream_id = due.stream_id
     returning s.stream_id, s.execution_id, s.kind`,
    [options.limit, options.backoffMs, options.owner ?? null],
  );
  return rows;
}

/**
 * Moves wake-ups of streams that still are at the version the deadline was computed for. A stream
 * that is due stays due: the pick has moved it on, so somebody has asked for a wake-up since.
 */
export async function setWakes(
  query: Query,
  wakes: { stream_id: string; version: number; wake_at: number }[],
): Promise<void> {
  await query.query(
    `with input as (
       select * from json_to_recordset($1::json)
         as i(stream_id bigint, version integer, wake_at double precision)
     ), locked as materialized (
       select s.stream_id from noetl.stream s where s.stream_id in (select stream_id from input)
       order by s.stream_id for update
     )
     update noetl.stream s set wake_at = to_timestamp(i.wake_at / 1000)
     from input i join locked l on l.stream_id = i.stream_id
     where s.stream_id = i.stream_id and s.version = i.version and s.status = 'open'
       and s.wake_at > now()`,
    [JSON.stringify(wakes)],
  );
}

/**
 * Ends a stream that is over and whose every message is acknowledged. false when it has moved on.
 */
export async function endStream(query: Query, streamId: string, version: number): Promise<boolean> {
  const { rowCount } = await query.query(
    `update noetl.stream set status = 'ended', wake_at = null, acked_version = version
     where stream_id = $1 and version = $2`,
    [streamId, version],
  );
  return rowCount > 0;
}

/**
 * Parks a stream whose turn keeps failing: wake-up after 2^failures seconds up to an hour, the
 * error named.
 */
export async function parkStream(query: Query, streamId: string, message: string): Promise<void> {
  await query.query(
    `update noetl.stream set failures = failures + 1, last_error = left($2, 2000),
       wake_at = now() + make_interval(secs => least(3600, power(2, least(failures + 1, 12))))
     where stream_id = $1 and status = 'open'`,
    [streamId, message],
  );
}

/** Makes this node the owner of an execution's open streams and wakes them: `noetl resume`. */
export async function adoptExecution(
  query: Query,
  executionId: string,
  owner: string,
): Promise<number> {
  const { rowCount } = await query.query(
    `with recursive family as (
       select execution_id from noetl.execution where execution_id = $1
       union all
       select e.execution_id from noetl.execution e
       join family f on e.parent_execution_id = f.execution_id
     ), locked as materialized (
       select stream_id from noetl.stream
       where status = 'open' and execution_id in (select execution_id from family)
       order by stream_id for update
     )
     update noetl.stream s set owner = $2, wake_at = now()
     from locked l where s.stream_id = l.stream_id`,
    [executionId, owner],
  );
  return rowCount;
}

/** A stream, and who decided last for it. */
export interface StreamOwner {
  stream_id: string;
  owner: string | null;
}

/** Who decided last for each open stream of an execution and its descendants. */
export async function readOwners(query: Query, executionId: string): Promise<StreamOwner[]> {
  const { rows } = await query.query<StreamOwner & Record<string, unknown>>(
    `with recursive family as (
       select execution_id from noetl.execution where execution_id = $1
       union all
       select e.execution_id from noetl.execution e
       join family f on e.parent_execution_id = f.execution_id
     )
     select stream_id, owner from noetl.stream
     where status = 'open' and execution_id in (select execution_id from family)`,
    [executionId],
  );
  return rows;
}

/** Makes streams that `from` has decided last the others' again, and wakes them there. */
export async function giveBackStreams(
  query: Query,
  owners: StreamOwner[],
  from: string,
): Promise<void> {
  await query.query(
    `with input as (
       select * from json_to_recordset($1::json) as i(stream_id bigint, owner text)
     ), locked as materialized (
       select s.stream_id from noetl.stream s
       where s.status = 'open' and s.stream_id in (select stream_id from input)
       order by s.stream_id for update
     )
     update noetl.stream s set owner = i.owner, wake_at = now()
     from input i join locked l on l.stream_id = i.stream_id
     where s.stream_id = i.stream_id and s.owner = $2`,
    [JSON.stringify(owners), from],
  );
}

/** Streams that are parked, for people. */
export async function listParked(
  query: Query,
  limit: number,
): Promise<
  { stream_id: string; execution_id: string; kind: string; failures: number; last_error: string }[]
> {
  const { rows } = await query.query(
    `select stream_id, execution_id, kind, failures, last_error from noetl.stream
     where status = 'open' and failures > 0 order by failures desc limit $1`,
    [limit],
  );
  return rows as never;
}

/** How many streams are parked, up to `max`. */
export async function countParked(query: Query, max: number): Promise<number> {
  const { rows } = await query.query<{ count: string }>(
    `select count(*) as count from (
       select from noetl.stream where status = 'open' and failures > 0 limit $1
     ) parked`,
    [max],
  );
  return Number(rows[0]?.count ?? 0);
}

/**
 * Wakes the open streams that the given nodes decided last: those nodes are gone. Heads are locked
 * in stream order as every append does, so that neither waits for the other in a circle.
 */
export async function wakeStreamsOf(query: Query, owners: string[]): Promise<void> {
  await query.query(
    `with locked as materialized (
       select stream_id from noetl.stream where status = 'open' and owner = any ($1)
       order by stream_id for update
     )
     update noetl.stream s set wake_at = now() from locked l where s.stream_id = l.stream_id`,
    [owners],
  );
}
