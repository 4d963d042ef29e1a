-- The last report of a frame is the terminal of its command.
drop index noetl.uidx_event_command_terminal;
create unique index uidx_event_command_terminal
  on noetl.event (execution_id, (meta->>'command_id'))
  where event_type in ('command.completed', 'command.failed', 'command.cancelled')
     or (event_type = 'frame.committed' and (meta->>'final')::boolean);

-- Readers see each item of a frame, and the claim of a command that was handed over as it was issued.
create or replace view noetl.event_view as
select e.execution_id, e.stream_id, e.version, e.event_id, d.part, d.event_type, e.event_type as stored_as,
       e.node_name, d.status,
       case when d.item is null then e.meta
            else (e.meta - 'ok' - 'failed') || jsonb_build_object('iter_index', d.item) end as meta,
       e.context, e.result, e.created_at
from noetl.event e
cross join lateral (
  select 1 as part, 'step.enter' as event_type, 'running' as status, null::integer as item
    where e.event_type = 'command.issued' and e.meta->'enter' = 'true'
  union all
  select 2, e.event_type,
    case e.event_type
      when 'command.issued' then 'pending' when 'command.claimed' then 'claimed'
      when 'command.completed' then 'completed' when 'command.failed' then 'failed'
      when 'playbook.completed' then 'completed' when 'playbook.failed' then 'failed'
      else 'recorded' end, null
  union all
  select 3, 'command.claimed', 'claimed', null
    where e.event_type = 'command.issued' and e.meta ? 'claim_id'
  union all
  select 4, 'command.started', 'running', null
    where e.event_type = 'command.claimed'
       or (e.event_type = 'command.issued' and e.meta ? 'claim_id')
  union all
  select 5, 'call.done', 'completed', null where e.event_type = 'command.completed'
  union all
  select 5, 'call.error', 'failed', null where e.event_type = 'command.failed'
  union all
  select 5, items.type, items.status, item
    from (values ('call.done', 'completed', e.meta->>'ok'), ('call.error', 'failed', e.meta->>'failed'))
           as items (type, status, ranges),
         lateral regexp_split_to_table(items.ranges, ',') as range,
         lateral generate_series(
           split_part(range, '-', 1)::integer,
           coalesce(nullif(split_part(range, '-', 2), ''), split_part(range, '-', 1))::integer) as item
    where e.event_type = 'frame.committed' and items.ranges <> ''
  union all
  select 6, 'step.exit', coalesce(e.meta->>'step_status', 'ok'), null
    where e.event_type in ('command.completed', 'command.failed') and e.meta ? 'next'
  union all
  select 7, 'step.failed', 'failed', null
    where e.event_type in ('command.completed', 'command.failed', 'step.exit')
      and e.meta->>'step_status' = 'failed'
  union all
  select 8, 'ctx.updated', 'recorded', null
    where e.event_type <> 'ctx.updated' and e.context->'ctx' is not null and e.context->'ctx' <> '{}'
) d;
