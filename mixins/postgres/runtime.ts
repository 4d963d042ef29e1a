// noetl.runtime: one row per worker, and whose beats have stopped.
import type { JsonObject } from "../../schemas/json.ts";
import { encode } from "./event.ts";
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
 * When each incarnation was last seen, milliseconds of the database's clock; gone ones are absent.
 */
export async function readSeen(query: Query, incarnations: string[]): Promise<Map<string, number>> {
  const { rows } = await query.query<{ incarnation: string; seen: string }>(
    `select incarnation, extract(epoch from seen_at) * 1000 as seen from noetl.runtime
     where incarnation = any ($1) and status <> 'gone'`,
    [incarnations],
  );
  return new Map(rows.map(row => [row.incarnation, Number(row.seen)]));
}

/** Forgets workers that were last seen longer ago than any lease can last. */
export async function forgetWorkers(query: Query, olderThanSeconds: number): Promise<void> {
  await query.query(
    "delete from noetl.runtime where seen_at < now() - make_interval(secs => $1::double precision)",
    [olderThanSeconds],
  );
}
