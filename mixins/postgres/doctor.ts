// What `noetl doctor` asks the database. Reads only; none of it needs more than our own tables.
import pg from "pg";
import { Unavailable } from "../../schemas/errors.ts";
import type { LogPosition } from "./follow.ts";
import type { Query } from "./index.ts";

export interface ServerFacts {
  /** `server_version_num`: 180004 is 18.4. */
  version_num: number;
  version: string;
  fsync: string;
  full_page_writes: string;
  synchronous_commit: string;
  /** A standby, or a session that may only read: nothing can be appended there. */
  read_only: boolean;
}

export async function readServer(query: Query): Promise<ServerFacts> {
  const { rows } = await query.query<ServerFacts & Record<string, unknown>>(
    `select current_setting('server_version_num')::integer as version_num,
            current_setting('server_version') as version, current_setting('fsync') as fsync,
            current_setting('full_page_writes') as full_page_writes,
            current_setting('synchronous_commit') as synchronous_commit,
            pg_is_in_recovery() or current_setting('transaction_read_only') = 'on' as read_only`,
  );
  return rows[0] as ServerFacts;
}

/** The database's clock, milliseconds since 1970. */
export async function readClock(query: Query): Promise<number> {
  const { rows } = await query.query<{ now: string }>(
    "select extract(epoch from clock_timestamp()) * 1000 as now",
  );
  return Number(rows[0]?.now);
}

/**
 * Whether something answers in the server's place. A server announces its own process id when a
 * session begins; a pooler makes one up, because its sessions have no process of their own. Throws
 * Unavailable.
 */
export async function detectPooler(url: string, timeoutMs: number): Promise<boolean> {
  const client = new pg.Client({
    connectionString: url,
    connectionTimeoutMillis: timeoutMs,
    query_timeout: timeoutMs,
  });
  client.on("error", () => undefined);
  try {
    await client.connect();
    const { rows } = await client.query<{ pid: number }>("select pg_backend_pid() as pid");
    return (client as unknown as { processID: number }).processID !== rows[0]?.pid;
  } catch (error) {
    throw new Unavailable(`Postgres cannot be reached: ${(error as Error).message}`);
  } finally {
    await client.end().catch(() => undefined);
  }
}

/**
 * Names of the event partitions that are missing among this week's and those of the weeks ahead,
 * and rows that fell into the default partition, counted up to `rowsMax`.
 */
export async function readPartitions(
  query: Query,
  { ahead, rowsMax }: { ahead: number; rowsMax: number },
): Promise<{ missing: string[]; strays: number }> {
  const { rows } = await query.query<{ missing: string[]; strays: string }>(
    `with weeks as (
       select generate_series(this, this + $1::integer) as week
       from (select (extract(epoch from now()) * 1000 - 1704067200000)::bigint / 604800000) t(this)
     ), names as (
       select 'event_' || to_char(
         to_timestamp((1704067200000 + week * 604800000) / 1000.0) at time zone 'UTC', 'YYYYMMDD'
       ) as name
       from weeks
     )
     select array(select name from names where to_regclass('noetl.' || name) is null order by name)
              as missing,
            (select count(*) from (select 1 from noetl.event_default limit $2) s) as strays`,
    [ahead, rowsMax],
  );
  return { missing: rows[0]?.missing ?? [], strays: Number(rows[0]?.strays) };
}

export interface WatermarkFacts {
  /** How long the oldest fact has waited for older transactions to end; null when none waits. */
  waiting_ms: number | null;
  /** The oldest transaction that writes, as far as our user may see others. */
  holder: string | null;
  holder_ms: number | null;
}

/** What keeps facts above the watermark, which readers of the log must not pass. */
export async function readWatermark(query: Query): Promise<WatermarkFacts> {
  const { rows } = await query.query<Record<keyof WatermarkFacts, string | null>>(
    `with waiting as (
       select created_at from noetl.event where tx >= pg_snapshot_xmin(pg_current_snapshot())
       order by tx, event_id limit 1
     ), writers as (
       select 'pid ' || pid || coalesce(' (' || nullif(application_name, '') || ')', '') as name,
              xact_start as since
       from pg_stat_activity where backend_xid is not null and pid <> pg_backend_pid()
       union all
       select 'prepared transaction ' || gid, prepared from pg_prepared_xacts
     ), oldest as (
       select name, since from writers order by since limit 1
     )
     select extract(epoch from clock_timestamp() - w.created_at) * 1000 as waiting_ms,
            o.name as holder, extract(epoch from clock_timestamp() - o.since) * 1000 as holder_ms
     from (select 1) one left join waiting w on true left join oldest o on true`,
  );
  const { waiting_ms = null, holder = null, holder_ms = null } = rows[0] ?? {};
  return { waiting_ms: numberOrNull(waiting_ms), holder, holder_ms: numberOrNull(holder_ms) };
}

function numberOrNull(text: string | null): number | null {
  return text === null ? null : Number(text);
}

export interface StreamFacts {
  open: number;
  parked: number;
  /** Streams whose wake-up is longer past than asked for, and the longest wait among them. */
  overdue: number;
  overdue_ms: number;
}

export async function readStreams(query: Query, overdueMs: number): Promise<StreamFacts> {
  const { rows } = await query.query<Record<keyof StreamFacts, string>>(
    `select count(*) as open, count(*) filter (where failures > 0) as parked,
            count(*) filter (where late > $1) as overdue,
            coalesce(max(late) filter (where late > $1), 0) as overdue_ms
     from (select failures, extract(epoch from now() - wake_at) * 1000 as late
           from noetl.stream where status = 'open') s`,
    [overdueMs],
  );
  const { open, parked, overdue, overdue_ms } = rows[0] as Record<keyof StreamFacts, string>;
  return {
    open: Number(open),
    parked: Number(parked),
    overdue: Number(overdue),
    overdue_ms: Number(overdue_ms),
  };
}

export interface CheckpointFacts {
  /** The nodes that keep the projection now: a server runs there. */
  holders: string[];
  /** Where the shard that is furthest behind has read to; undefined before the first server. */
  position: LogPosition | undefined;
  /** The checkpoint is of another cluster: this database came back from a backup. */
  restored: boolean;
}

export async function readCheckpoint(query: Query): Promise<CheckpointFacts> {
  const { rows } = await query.query<{
    tx: string;
    event_id: string;
    holder: string | null;
    restored: boolean;
  }>(
    `select c.tx, c.event_id, case when c.lease_until > now() then c.holder end as holder,
            c.system_identifier <> s.system_identifier::text as restored
     from noetl.projection_checkpoint c, pg_control_system() s
     order by c.tx, c.event_id`,
  );
  const first = rows[0];
  return {
    holders: [...new Set(rows.flatMap(row => row.holder ?? []))],
    position: first && { tx: first.tx, event_id: first.event_id },
    restored: rows.some(row => row.restored),
  };
}

/** Facts after a place in the log, counted up to `limit`, and the age of the oldest. */
export async function readLag(
  query: Query,
  position: LogPosition,
  limit: number,
): Promise<{ events: number; oldest_ms: number }> {
  const { rows } = await query.query<{ events: string; oldest_ms: string }>(
    `select count(*) as events,
            coalesce(extract(epoch from clock_timestamp() - min(created_at)) * 1000, 0) as oldest_ms
     from (select created_at from noetl.event where (tx, event_id) > ($1::xid8, $2::bigint)
           order by tx, event_id limit $3) behind`,
    [position.tx, position.event_id, limit],
  );
  return { events: Number(rows[0]?.events), oldest_ms: Number(rows[0]?.oldest_ms) };
}

/** How many credentials are sealed in the database. */
export async function countCredentials(query: Query): Promise<number> {
  const { rows } = await query.query<{ count: string }>("select count(*) from noetl.credential");
  return Number(rows[0]?.count);
}
