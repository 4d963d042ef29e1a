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
  /** Of a cursor's frame: the numbers of its rows, whose indexes are the next ones from `first`. */
  rows: string | null;
  /** Of the last report of a cursor's frame that had rows: `{slot, round, worker_id}`. */
  frame: Record<string, unknown> | null;
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
    /** Only of indexes from `from` up to but not `to`, and of frames that have some of these. */
    from?: number;
    to?: number;
  },
): Promise<LoopOutcome[]> {
  const { rows } = await query.query<LoopOutcome & Row>(
    `select version, (meta->>'iter_index')::integer as iter_index,
            event_type in ('command.completed', 'loop.shard.done') as "isOk", meta->>'ok' as ok,
            case when event_type <> 'command.failed' then meta->>'failed' end as failed,
            (meta->>'first')::integer as first,
            (meta->>'count')::integer as count, meta->>'rows' as rows,
            case when meta ? 'rows' and meta->>'final' = 'true' and not meta ? 'drained'
                 then jsonb_build_object('slot', meta->'slot', 'round', meta->'round',
                                         'worker_id', meta->'worker_id') end as frame,
            result
     from noetl.event
     where execution_id = $1 and stream_id = $2 and version > $3
       and (event_type in ('command.failed', 'frame.committed', 'loop.shard.failed')
            or (event_type in ('command.completed', 'loop.shard.done') and not $5))
       -- Of a shard's attempt that is made again only what succeeded is accepted.
       and (event_type <> 'command.failed' or not meta ? 'shard_id'
            or (meta->>'ok' <> '' and not $5))
       and (not $5 or meta->>'failed' is distinct from '')
       and ($6::integer is null
            or ((meta->>'iter_index')::integer >= $6 and (meta->>'iter_index')::integer < $7)
            or ((meta->>'first')::integer < $7
                and (meta->>'first')::integer + (meta->>'count')::integer > $6))
     order by version limit $4`,
    [
      ...[page.execution_id, page.loop_id, page.after, page.limit, page.failed ?? false],
      ...[page.from ?? null, page.to ?? null],
    ],
  );
  return rows;
}

/** How many rows a loop over a cursor has accepted. */
export async function countRows(
  query: Query,
  loop: { execution_id: string; loop_id: string },
): Promise<number> {
  const { rows } = await query.query<{ count: number }>(
    `select coalesce(sum((meta->>'count')::integer), 0)::integer as count from noetl.event
     where execution_id = $1 and stream_id = $2 and event_type = 'frame.committed'`,
    [loop.execution_id, loop.loop_id],
  );
  return rows[0]?.count ?? 0;
}
