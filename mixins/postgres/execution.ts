// noetl.execution: the projection's rows, its checkpoint, and start requests.
import type { JsonObject } from "../../schemas/json.ts";
import { jsonbText } from "../../schemas/jsonb-text.ts";
import { encode } from "./encode.ts";
import type { LogPosition } from "./follow.ts";
import type { Query, Row } from "./index.ts";

/** A row of the projection as the fold sees it; times are milliseconds since 1970. */
export interface ExecutionRow {
  execution_id: string;
  parent_execution_id: string | null;
  path: string;
  playbook_version: number;
  hash: string;
  status: string;
  last_event_type: string;
  last_node_name: string | null;
  start_time: number;
  end_time: number | null;
  state: JsonObject;
  error: JsonObject | null;
  result: JsonObject | null;
  version: number;
}

const COLUMNS = `execution_id, parent_execution_id, path, playbook_version, hash, status,
  last_event_type,  last_node_name, extract(epoch from start_time) * 1000 as start_time,
  extract(epoch from end_time) * 1000 as end_time, state, error, result, version`;

function toRow(row: Row): ExecutionRow {
  const end = row["end_time"];
  return {
    ...row,
    start_time: Number(row["start_time"]),
    end_time: end === null ? null : Number(end),
  } as unknown as ExecutionRow;
}

/** A row that was just written as a reader finds it, to the order of its keys. */
export function asRead(row: ExecutionRow): ExecutionRow {
  return JSON.parse(jsonbText(row)) as ExecutionRow;
}

export async function readExecutions(query: Query, ids: string[]): Promise<ExecutionRow[]> {
  const { rows } = await query.query(
    `select ${COLUMNS} from noetl.execution where execution_id = any ($1::bigint[])`,
    [ids],
  );
  return rows.map(toRow);
}

/** Newest first; `before` is an execution id to page from. */
export async function listExecutions(
  query: Query,
  filter: { limit: number; before?: string; status?: string; path?: string },
): Promise<ExecutionRow[]> {
  const { rows } = await query.query(
    `select ${COLUMNS} from noetl.execution
     where ($2::bigint is null or execution_id < $2) and ($3::text is null or status = $3)
       and ($4::text is null or path = $4)
     order by execution_id desc limit $1`,
    [filter.limit, filter.before ?? null, filter.status ?? null, filter.path ?? null],
  );
  return rows.map(toRow);
}

/** Descendants of an execution that have not ended: the first `limit` ids after `after`. */
export async function listOpenDescendants(
  query: Query,
  executionId: string,
  limit: number,
  after = "0",
): Promise<string[]> {
  const { rows } = await query.query<{ execution_id: string }>(
    `with recursive family as (
       select execution_id, status from noetl.execution where parent_execution_id = $1
       union all
       select e.execution_id, e.status from noetl.execution e
       join family f on e.parent_execution_id = f.execution_id
     )
     select f.execution_id from family f
     join noetl.stream s on s.stream_id = f.execution_id and s.status = 'open'
     where f.execution_id > $3 order by f.execution_id limit $2`,
    [executionId, limit, after],
  );
  return rows.map(row => row.execution_id);
}

/** A writer's right to a shard: its epoch must still be the checkpoint's. */
export interface ShardClaim {
  shard: number;
  epoch: number;
}

/**
 * Writes folded rows if the shard is still ours. Returns false when a newer epoch has it: nothing
 * is written.
 */
export async function writeExecutions(
  query: Query,
  claim: ShardClaim,
  rows: ExecutionRow[],
): Promise<boolean> {
  const result = await query.query<{ ours: boolean }>(
    `with held as (
       select epoch from noetl.projection_checkpoint where shard = $1 and epoch = $2 for share
     ), input as (
       select * from json_to_recordset($3::json) as i(
         execution_id bigint, parent_execution_id bigint, path text, playbook_version integer,
         hash text,
         status text, last_event_type text, last_node_name text, start_time double precision,
         end_time double precision, state jsonb, error jsonb, result jsonb, version integer)
     ), written as (
       insert into noetl.execution as x
         (execution_id, parent_execution_id, path, playbook_version, hash, status, last_event_type,
          last_node_name, start_time, end_time, state, error, result, version)
       select i.execution_id, i.parent_execution_id, i.path, i.playbook_version, i.hash, i.status,
              i.last_event_type, i.last_node_name, to_timestamp(i.start_time / 1000),
              to_timestamp(i.end_time / 1000), i.state, i.error, i.result, i.version
       from input i where exists (select 1 from held) order by i.execution_id
       on conflict (execution_id) do update set
         status = excluded.status, last_event_type = excluded.last_event_type,
         last_node_name = excluded.last_node_name, end_time = excluded.end_time,
         state = excluded.state,
         error = excluded.error, result = excluded.result, version = excluded.version
       where x.version <= excluded.version
     )
     select exists (select 1 from held) as ours`,
    [claim.shard, claim.epoch, encode(rows)],
  );
  return result.rows[0]?.ours === true;
}

export async function deleteExecution(query: Query, executionId: string): Promise<void> {
  await query.query("delete from noetl.execution where execution_id = $1", [executionId]);
}

export interface ShardWanted {
  shard: number;
  holder: string;
  leaseMs: number;
  /** Of the claim that is renewed. A process comes without, also under the name of one before. */
  epoch?: number | undefined;
}

/**
 * Takes or renews a projection shard for `leaseMs`. A new holder gets a higher epoch. Undefined
 * when another holds it. After a restore into another cluster the transaction ids of old events are
 * stamped anew, or they would lie above the watermark for ever.
 */
export async function holdShard(
  query: Query,
  options: ShardWanted,
): Promise<(ShardClaim & { position: LogPosition }) | undefined> {
  const { rows } = await query.query<{
    epoch: number;
    tx: string;
    event_id: string;
    restored: boolean;
  }>(
    `with cluster as (select system_identifier::text as id from pg_control_system())
     insert into noetl.projection_checkpoint as c
       (shard, tx, event_id, epoch, holder, lease_until, system_identifier)
     select $1, '0'::xid8, 0, 1, $2,
            now() + make_interval(secs => $3::double precision / 1000), cluster.id
     from cluster
     on conflict (shard) do update set
       epoch = case when c.holder = excluded.holder and c.epoch = $4 then c.epoch
                    else c.epoch + 1 end,
       holder = excluded.holder, lease_until = excluded.lease_until
     where c.holder = excluded.holder or c.holder is null or c.lease_until < now()
     returning epoch, tx, event_id, system_identifier <> (select id from cluster) as restored`,
    [options.shard, options.holder, options.leaseMs, options.epoch ?? null],
  );
  const row = rows[0];
  if (!row) return undefined;
  if (row.restored) {
    await restamp(query);
    return holdShard(query, options);
  }
  return {
    shard: options.shard,
    epoch: row.epoch,
    position: { tx: row.tx, event_id: row.event_id },
  };
}

async function restamp(query: Query): Promise<void> {
  await query.query(
    "update noetl.event set tx = '0'::xid8 where tx >= pg_snapshot_xmin(pg_current_snapshot())",
  );
  await query.query(
    `update noetl.projection_checkpoint set tx = '0'::xid8, event_id = 0,
       system_identifier = (select system_identifier::text from pg_control_system())`,
  );
}

/** Who keeps a projection shard at present; undefined while nobody does. */
export async function readShardHolder(query: Query, shard: number): Promise<string | undefined> {
  const { rows } = await query.query<{ holder: string | null }>(
    "select holder from noetl.projection_checkpoint where shard = $1 and lease_until > now()",
    [shard],
  );
  return rows[0]?.holder ?? undefined;
}

/** Moves a checkpoint forward; a writer with an old epoch changes nothing. */
export async function saveCheckpoint(
  query: Query,
  claim: ShardClaim,
  position: LogPosition,
): Promise<void> {
  await query.query(
    `update noetl.projection_checkpoint set tx = $3::xid8, event_id = $4
     where shard = $1 and epoch = $2`,
    [claim.shard, claim.epoch, position.tx, position.event_id],
  );
}

/** Gives a shard back at once, so that the next holder need not wait for the lease. */
export async function releaseShard(query: Query, claim: ShardClaim): Promise<void> {
  await query.query(
    "update noetl.projection_checkpoint set holder = null where shard = $1 and epoch = $2",
    [claim.shard, claim.epoch],
  );
}

/**
 * Gives the shards of dead nodes back; should one of them live after all, its epoch is old then.
 */
export async function releaseShardsOf(query: Query, holders: string[]): Promise<void> {
  await query.query(
    "update noetl.projection_checkpoint set holder = null where holder = any ($1)",
    [holders],
  );
}

/** The start that owns an idempotency key. */
export async function findStart(
  query: Query,
  key: string,
): Promise<{ execution_id: string; request_hash: string } | undefined> {
  const { rows } = await query.query<{ execution_id: string; request_hash: string }>(
    "select execution_id, request_hash from noetl.start_request where key = $1",
    [key],
  );
  return rows[0];
}

export async function forgetStarts(query: Query): Promise<void> {
  await query.query("delete from noetl.start_request where expires_at < now()");
}

/**
 * Weeks of event partitions that exist ahead of now are made up to `ahead`; returns how many were
 * missing.
 */
export async function ensurePartitions(query: Query, ahead: number): Promise<number> {
  const { rows } = await query.query<{ made: number }>(
    "select noetl.ensure_event_partitions($1) as made",
    [ahead],
  );
  return rows[0]?.made ?? 0;
}

/** A number for this process's snowflakes, and the database's clock. */
export async function takeNodeNumber(query: Query): Promise<{ node: number; now: number }> {
  const { rows } = await query.query<{ node: string; now: string }>(
    `select nextval('noetl.node_number') as node,
            extract(epoch from clock_timestamp()) * 1000 as now`,
  );
  return { node: Number(rows[0]?.node), now: Number(rows[0]?.now) };
}
