// Reading noetl.event for the projection: the whole log in its order, and what a stream misses.
import { EVENT_TYPES, type StoredEvent } from "../../schemas/events.ts";
import { toEvent, type EventRow } from "./event.ts";
import type { Query } from "./index.ts";

/** A place in the log: everything at or before it has been read. */
export interface LogPosition {
  tx: string;
  event_id: string;
}

/** Of contexts and results only what the projection folds; the rest may be large. */
const FOLDED = `execution_id, stream_id, version, event_id, event_type, node_name, meta,
  extract(epoch from created_at) * 1000 as at,
  case when context ? 'stats' then jsonb_build_object('stats', context->'stats')
       when context ? 'collection_ref'
       then jsonb_build_object('collection_ref', context->'collection_ref')
  end as context,
  case when event_type in ('playbook.completed', 'playbook.failed') then result
       when event_type in ('command.failed', 'loop.shard.failed')
       then jsonb_build_object('error', jsonb_build_object('code', result->'error'->'code'))
  end as result`;

/**
 * Events after `position` and below the watermark: no older transaction can commit behind a
 * reader's back. With what the projection folds only.
 */
export async function followLog(
  query: Query,
  position: LogPosition,
  limit: number,
): Promise<{ events: StoredEvent[]; position: LogPosition }> {
  const { rows } = await query.query<EventRow & { tx: string }>(
    `select tx, ${FOLDED}
     from noetl.event
     where (tx, event_id) > ($1::xid8, $2::bigint) and tx < pg_snapshot_xmin(pg_current_snapshot())
     order by tx, event_id limit $3`,
    [position.tx, position.event_id, limit],
  );
  const last = rows.at(-1);
  return {
    events: rows.map(toEvent),
    position: last ? { tx: last.tx, event_id: last.event_id } : position,
  };
}

/** Versions of one stream between two that are known. */
export interface Gap {
  execution_id: string;
  stream_id: string;
  after: number;
  before: number;
}

/**
 * What lies in the gaps, each stream in version order, at most `limit` in all and a page of each:
 * by primary key, however far the log's watermark is behind. With what the projection folds only.
 */
export async function readGaps(
  query: Query,
  gaps: Gap[],
  limit: { page: number; all: number },
): Promise<StoredEvent[]> {
  const { rows } = await query.query<EventRow>(
    `select missing.* from unnest($1::bigint[], $2::bigint[], $3::integer[], $4::integer[])
       as gap(execution_id, stream_id, after, before)
     cross join lateral (
       select ${FOLDED} from noetl.event e
       where e.execution_id = gap.execution_id and e.stream_id = gap.stream_id
         and e.version > gap.after and e.version < gap.before
       order by e.version limit $5
     ) missing limit $6`,
    [
      gaps.map(gap => gap.execution_id),
      gaps.map(gap => gap.stream_id),
      gaps.map(gap => gap.after),
      gaps.map(gap => gap.before),
      limit.page,
      limit.all,
    ],
  );
  // What only a newer build knows ends what can be filled here.
  return rows.filter(row => EVENT_TYPES.has(row.event_type)).map(toEvent);
}
