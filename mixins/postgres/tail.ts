// What a follower of an execution looks at: cheap marks that say whether there is news, and facts.
import type { Query, Row } from "./index.ts";

export interface ExecutionMark {
  execution_id: string;
  /** Head of the execution's own stream. */
  version: number;
  /** Changes with every write of the projection's row; means nothing else. */
  seen: string;
  status: string;
}

/** Marks of many executions in one read; unknown ones are absent. */
export async function readMarks(
  query: Query,
  executionIds: string[],
): Promise<Map<string, ExecutionMark>> {
  // A row's xmin is the transaction that wrote it: no counter of changes has to be kept.
  const { rows } = await query.query<ExecutionMark & Row>(
    `select e.execution_id, e.status, e.xmin::text as seen, coalesce(s.version, 0) as version
     from noetl.execution e left join noetl.stream s on s.stream_id = e.execution_id
     where e.execution_id = any ($1::bigint[])`,
    [executionIds],
  );
  return new Map(rows.map(row => [row.execution_id, row]));
}

/**
 * Recorded facts of an execution's own stream after a version, oldest first, at most `limit`. Of
 * noetl.event_view it is the part that is stored: one row a version, so that nothing is between.
 */
export async function readFacts(
  query: Query,
  stream: { execution_id: string; after: number; limit: number },
): Promise<(Row & { version: number })[]> {
  const { rows } = await query.query<Row & { version: number }>(
    `select event_id, execution_id, stream_id, version, event_type, node_name, status, meta,
            context, result,
            to_char(created_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as created_at
     from noetl.event_view
     where execution_id = $1 and stream_id = $1 and version > $2 and part = 2
     order by version limit $3`,
    [stream.execution_id, stream.after, stream.limit],
  );
  return rows;
}
