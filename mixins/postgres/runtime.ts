// noetl.runtime: one row per worker, and whose beats have stopped.
import type { JsonObject } from "../../schemas/json.ts";
import { encode } from "./encode.ts";
import type { Query } from "./index.ts";

export interface WorkerRow {
  worker_id: string;
  incarnation: string;
  /**
   * Host, boot and pid namespace: processes with the same value can see whether each other's pid
   * lives.
   */
  machine: string;
  pid: number;
  capacity: JsonObject;
}

/** Registers an incarnation, or says that it is still there. Uses the database's clock. */
export async function beat(
  query: Query,
  worker: WorkerRow,
  status: "ready" | "draining",
): Promise<void> {
  await query.query(
    `insert into noetl.runtime (worker_id, incarnation, machine, pid, status, capacity)
     values ($1, $2, $3, $4, $5, $6::jsonb)
     on conflict (worker_id) do update set
       incarnation = excluded.incarnation, machine = excluded.machine, pid = excluded.pid,
       status = excluded.status, capacity = excluded.capacity, seen_at = now()`,
    [
      worker.worker_id,
      worker.incarnation,
      worker.machine,
      worker.pid,
      status,
      encode(worker.capacity),
    ],
  );
}

/** An incarnation that will never report again: its commands need not wait for their leases. */
export async function markGone(query: Query, incarnations: string[]): Promise<void> {
  await query.query("update noetl.runtime set status = 'gone' where incarnation = any ($1)", [
    incarnations,
  ]);
}

/** Workers that were last seen on this machine and are not known to be gone. */
export async function listOnMachine(
  query: Query,
  machine: string,
): Promise<{ worker_id: string; incarnation: string; pid: number }[]> {
  const { rows } = await query.query<{ worker_id: string; incarnation: string; pid: number }>(
    "select worker_id, incarnation, pid from noetl.runtime where machine = $1 and status <> 'gone'",
    [machine],
  );
  return rows;
}

/**
 * What the workers' rows say of holders, by incarnation: when it was last seen (milliseconds of the
 * database's clock), or that it is gone: marked so, or another incarnation took its name. A holder
 * whose worker has no row at all is absent.
 */
export async function readSeen(
  query: Query,
  holders: { worker_id: string; incarnation: string }[],
): Promise<Map<string, number | "gone">> {
  const { rows } = await query.query<{ incarnation: string; seen: string | null }>(
    `select h.incarnation,
            case when r.incarnation = h.incarnation and r.status <> 'gone'
                 then extract(epoch from r.seen_at) * 1000 end as seen
     from unnest($1::text[], $2::text[]) as h(worker_id, incarnation)
     join noetl.runtime r on r.worker_id = h.worker_id`,
    [holders.map(one => one.worker_id), holders.map(one => one.incarnation)],
  );
  return new Map(rows.map(row => [row.incarnation, row.seen === null ? "gone" : Number(row.seen)]));
}

export interface SeenWorker extends Omit<WorkerRow, "pid"> {
  status: "ready" | "draining" | "gone";
  /** ISO 8601. */
  seen_at: string;
  /** Since then, by the database's clock. */
  silent_ms: number;
}

/** Workers by name, those that are gone last, at most `limit`. */
export async function listWorkers(query: Query, limit: number): Promise<SeenWorker[]> {
  const { rows } = await query.query(
    `select worker_id, incarnation, machine, status, capacity,
            to_char(seen_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') as seen_at,
            round(extract(epoch from now() - seen_at) * 1000)::float8 as silent_ms
     from noetl.runtime order by status = 'gone', worker_id limit $1`,
    [limit],
  );
  return rows as unknown as SeenWorker[];
}

/** Workers that have shown life within so long. */
export async function countReady(query: Query, silentMs: number): Promise<number> {
  const { rows } = await query.query<{ n: number }>(
    `select count(*)::integer as n from noetl.runtime
     where status = 'ready' and seen_at > now() - make_interval(secs => $1::float8 / 1000)`,
    [silentMs],
  );
  return rows[0]?.n ?? 0;
}

/** Forgets workers that were last seen longer ago than any lease can last. */
export async function forgetWorkers(query: Query, olderThanSeconds: number): Promise<void> {
  await query.query(
    "delete from noetl.runtime where seen_at < now() - make_interval(secs => $1::double precision)",
    [olderThanSeconds],
  );
}
