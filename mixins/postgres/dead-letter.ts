// noetl.dead_letter: commands that were given up because their workers died.
import type { Query, Row } from "./index.ts";

export interface DeadLetter extends Row {
  execution_id: string;
  /** The execution itself, or one of its loops. */
  stream_id: string;
  event_id: string;
  command_id: string;
  step: string;
  activation: number;
  /** Of a loop's item. */
  iter_index: number | null;
  error: { kind: string; code: string; message: string };
  deaths: { worker_id: string; delivery: number; at: string }[];
  /** ISO 8601. */
  quarantined_at: string;
}

/** Newest first; of one execution, or of all. `before` is the event_id to page from. */
export async function listDeadLetters(
  query: Query,
  filter: { limit: number; execution_id?: string | undefined; before?: string | undefined },
): Promise<DeadLetter[]> {
  const { rows } = await query.query<DeadLetter>(
    `select execution_id, stream_id, event_id, command_id, step, activation, iter_index, error,
            deaths, to_json(quarantined_at)#>>'{}' as quarantined_at
     from noetl.dead_letter
     where ($2::bigint is null or execution_id = $2) and ($3::bigint is null or event_id < $3)
     order by event_id desc limit $1`,
    [filter.limit, filter.execution_id ?? null, filter.before ?? null],
  );
  return rows;
}

/** How many were given up within so many seconds, up to `max`. */
export async function countDeadLetters(
  query: Query,
  { seconds, max }: { seconds: number; max: number },
): Promise<number> {
  const { rows } = await query.query<{ count: string }>(
    `select count(*) as count from (
       select from noetl.dead_letter
       where quarantined_at > now() - make_interval(secs => $1::double precision) limit $2
     ) recent`,
    [seconds, max],
  );
  return Number(rows[0]?.count ?? 0);
}
