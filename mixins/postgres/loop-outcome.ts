// What the iterations of a loop came to, read from noetl.event: it lives nowhere else.
import type { Query, Row } from "./index.ts";

/** What one item, or the items `ok` and `failed` of a frame, came to. */
export interface LoopOutcome {
  version: number;
  iter_index: number | null;
  /** Of one item: whether it succeeded. */
  isOk: boolean;
  ok: string | null;
  failed: string | null;
  first: number | null;
  count: number | null;
  result: Record<string, unknown> | null;
}

/**
 * One page of a loop's accepted outcomes after a version, in order of acceptance; with `failed`
 * those only that say of an item that it failed.
 */
export async function pageLoopOutcomes(
  query: Query,
  page: {
    execution_id: string;
    loop_id: string;
    after: number;
    limit: number;
    failed?: boolean;
  },
): Promise<LoopOutcome[]> {
  const { rows } = await query.query<LoopOutcome & Row>(
    `select version, (meta->>'iter_index')::integer as iter_index,
            event_type = 'command.completed' as "isOk", meta->>'ok' as ok,
            meta->>'failed' as failed, (meta->>'first')::integer as first,
            (meta->>'count')::integer as count, result
     from noetl.event
     where execution_id = $1 and stream_id = $2 and version > $3
       and (event_type in ('command.failed', 'frame.committed')
            or (event_type = 'command.completed' and not $5))
       and (not $5 or meta->>'failed' is distinct from '')
     order by version limit $4`,
    [page.execution_id, page.loop_id, page.after, page.limit, page.failed ?? false],
  );
  return rows;
}
