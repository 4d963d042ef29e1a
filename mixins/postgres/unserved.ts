// noetl.unserved: steps that wait for a worker with what they require.
import type { Ring } from "../../schemas/decider.ts";
import type { Query, Row } from "./index.ts";

export interface UnservedRow extends Row {
  execution_id: string;
  step: string;
  requires: string[];
  /** ISO 8601. */
  seen_at: string;
}

/** Nobody has said it for so long: it is served, or over. */
const NEWS_SECONDS = 30;
const KEPT_SECONDS = 3_600;

/** Says it of the steps of these rings, and forgets what was said long ago. */
export async function saveUnserved(query: Query, rings: readonly Ring[]): Promise<void> {
  const steps = new Map(rings.map(ring => [`${ring.execution_id}/${ring.step}`, ring]));
  const rows = [...steps.values()];
  await query.query(
    `insert into noetl.unserved (execution_id, step, requires)
     select h.execution_id, h.step, string_to_array(h.requires, ',')
     from unnest($1::bigint[], $2::text[], $3::text[]) as h (execution_id, step, requires)
     order by 1, 2
     on conflict (execution_id, step) do update set
       requires = excluded.requires, seen_at = now()`,
    [
      rows.map(ring => ring.execution_id),
      rows.map(ring => ring.step),
      rows.map(ring => (ring.requires ?? []).join(",")),
    ],
  );
  await query.query(
    "delete from noetl.unserved where seen_at < now() - make_interval(secs => $1::float8)",
    [KEPT_SECONDS],
  );
}

/** What is true now, the oldest execution first. */
export async function listUnserved(query: Query, limit: number): Promise<UnservedRow[]> {
  const { rows } = await query.query<UnservedRow>(
    `select execution_id::text, step, requires,
            to_char(seen_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') as seen_at
     from noetl.unserved
     where seen_at > now() - make_interval(secs => $1::float8)
     order by noetl.unserved.execution_id, step limit $2`,
    [NEWS_SECONDS, limit],
  );
  return rows;
}
