// Commands in the log, found by their ids through the two guards that index them.
import type { Query, Row } from "./index.ts";

export interface CommandRow extends Row {
  command_id: string;
  execution_id: string;
  stream_id: string;
  event_id: string;
  step: string;
  kind: string;
  /** `open` until a terminal fact is in the log. */
  status: "open" | "completed" | "failed" | "cancelled";
  issued_at: string;
  ended_at: string | null;
}

/**
 * Of these commands, those with a terminal fact: completed, failed or cancelled. One look into the
 * index of terminals each.
 */
export async function findOver(query: Query, commandIds: string[]): Promise<string[]> {
  const { rows } = await query.query<{ command_id: string }>(
    `select h.command_id
     from unnest($1::bigint[], $2::text[]) as h (execution_id, command_id)
     join noetl.event t
       on t.execution_id = h.execution_id and t.meta->>'command_id' = h.command_id
      and (t.event_type in ('command.completed', 'command.failed', 'command.cancelled',
                            'loop.shard.done', 'loop.shard.failed')
        or (t.event_type = 'frame.committed' and (t.meta->>'final')::boolean))`,
    [commandIds.map(id => id.split(":")[0]), commandIds],
  );
  return rows.map(one => one.command_id);
}

/** A command by its id, undefined when it was never issued. */
export async function findCommand(
  query: Query,
  command: { execution_id: string; command_id: string },
): Promise<CommandRow | undefined> {
  const { rows } = await query.query<CommandRow>(
    `select i.meta->>'command_id' as command_id, i.execution_id, i.stream_id, i.event_id,
            i.node_name as step, i.meta->>'kind' as kind,
            case t.event_type when 'frame.committed' then 'completed'
                 when 'loop.shard.done' then 'completed' when 'loop.shard.failed' then 'failed'
                 else coalesce(replace(t.event_type, 'command.', ''), 'open') end as status,
            i.created_at as issued_at, t.created_at as ended_at
     from noetl.event i
     left join noetl.event t
       on t.execution_id = i.execution_id and t.meta->>'command_id' = i.meta->>'command_id'
      and (t.event_type in ('command.completed', 'command.failed', 'command.cancelled',
                            'loop.shard.done', 'loop.shard.failed')
        or (t.event_type = 'frame.committed' and (t.meta->>'final')::boolean))
     where i.execution_id = $1 and i.meta->>'command_id' = $2
       and i.event_type = 'command.issued'`,
    [command.execution_id, command.command_id],
  );
  return rows[0];
}
