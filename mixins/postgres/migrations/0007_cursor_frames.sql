-- Frames of loops over a cursor, for readers: playbooks join these names in SQL (playbook-dsl §3.12).
-- The columns are null for every other fact, which costs no byte: a row has a null bitmap already.
alter table noetl.event add column frame_id text, add column status text;

-- As in 0006_append.sql, and with these two.
create or replace function noetl.append_events(heads json, facts json)
  returns table (accepted_id bigint, clock_ms numeric, made_ms numeric)
  language plpgsql as $$
#variable_conflict use_column
begin
  return query
  with input as (
    select * from json_to_recordset(heads) as i(
      stream_id bigint, execution_id bigint, kind text, expected integer, version integer,
      wake_at double precision, ended boolean, owner text, start json)
  ), locked as materialized (
    select s.stream_id, s.version from noetl.stream s
    where s.stream_id = any (select stream_id from input where expected > 0)
    order by s.stream_id for update
  ), moved as (
    update noetl.stream s set
      version = i.version, owner = i.owner, failures = 0, last_error = null,
      status = case when i.ended then 'ended' else 'open' end,
      acked_version = case when i.ended then i.version else s.acked_version end,
      wake_at = case
        when i.ended then null
        -- Only earlier, and only by more than a second: a value that stays keeps the update HOT.
        when i.wake_at is null then s.wake_at
        when s.wake_at < to_timestamp(i.wake_at / 1000) + interval '1 second' then s.wake_at
        else to_timestamp(i.wake_at / 1000) end
    from input i join locked l on l.stream_id = i.stream_id
    where s.stream_id = i.stream_id and l.version = i.expected and s.version = i.expected
    returning s.stream_id
  ), keyed as (
    insert into noetl.start_request (key, request_hash, execution_id, expires_at)
    select i.start->>'key', i.start->>'request_hash', i.execution_id,
           now() + make_interval(secs => (i.start->>'key_ttl_seconds')::double precision)
    from input i where i.start->>'key' is not null order by 1
    on conflict do nothing returning execution_id
  ), created as (
    insert into noetl.stream (stream_id, execution_id, kind, version, status, wake_at, owner)
    select i.stream_id, i.execution_id, i.kind, i.version,
           case when i.ended then 'ended' else 'open' end,
           case when i.ended then null else to_timestamp(i.wake_at / 1000) end, i.owner
    from input i
    where i.expected = 0
      and (i.start is null or i.start->>'key' is null
           or i.execution_id in (select execution_id from keyed))
    order by i.stream_id
    on conflict do nothing returning stream_id
  ), accepted as (
    select stream_id from moved union all select stream_id from created
  ), written as (
    insert into noetl.event
      (execution_id, stream_id, version, event_id, event_type, node_name, meta, context, result,
       frame_id, status)
    select e.execution_id, e.stream_id, e.version, e.event_id, e.event_type, e.node_name,
           e.meta, e.context, e.result,
           case when e.meta ? 'slot' then e.meta->>'command_id' end,
           case when e.event_type = 'command.expired' and e.meta ? 'slot' then 'ABANDONED' end
    from json_to_recordset(facts) as e(
      execution_id bigint, stream_id bigint, version integer, event_id bigint, event_type text,
      node_name text, meta jsonb, context jsonb, result jsonb)
    join accepted a on a.stream_id = e.stream_id
  ), shown as (
    insert into noetl.execution
      (execution_id, parent_execution_id, path, playbook_version, hash, status, last_event_type,
       last_node_name, start_time, version)
    select i.execution_id, (i.start->>'parent_execution_id')::bigint, i.start->>'path',
           (i.start->>'playbook_version')::integer, i.start->>'hash',
           'RUNNING', 'playbook.initialized',
           i.start->>'last_node_name', now(), 0
    from input i join created c on c.stream_id = i.stream_id
    where i.start is not null
  )
  select a.stream_id, extract(epoch from clock_timestamp()) * 1000 as now,
         extract(epoch from now()) * 1000 as at
  from (select 1) one left join accepted a on true;
end
$$;

-- One loop over a cursor.
create view noetl.stage as
select e.stream_id as stage_id, e.execution_id, e.node_name as step_name,
       (e.meta->>'activation')::integer as activation, e.created_at as started_at
from noetl.event e
where e.event_type = 'loop.started' and e.meta->>'mode' = 'cursor';

-- One claim that gave rows, or is being made. Its lease counts from the last that was heard of it.
create view noetl.frame as
select f.frame_id, f.execution_id, f.stream_id as stage_id, f.slot, f.round, f.attempt,
       case when f.drops then 'CANCELLED' when f.fails then 'FAILED'
            when f.ends then 'COMPLETED' when f.holds then 'CLAIMED' else 'PENDING' end as status,
       f.row_count, f.issued_at,
       f.heard_at + make_interval(
         secs => (s.context->'plan'->'cursor'->>'lease_seconds')::double precision) as lease_until,
       case when f.ends or f.fails or f.drops then f.heard_at end as completed_at
from (
  select e.execution_id, e.stream_id, e.meta->>'command_id' as frame_id,
         max((e.meta->>'slot')::integer) as slot, max((e.meta->>'round')::integer) as round,
         max((e.meta->>'attempt')::integer) as attempt,
         min(e.created_at) as issued_at, max(e.created_at) as heard_at,
         bool_or(e.event_type = 'frame.committed' and e.meta->>'final' = 'true') as ends,
         bool_or(e.event_type = 'command.failed') as fails,
         bool_or(e.event_type = 'command.cancelled') as drops,
         bool_or(e.event_type = 'command.claimed' or e.meta ? 'claim_id') as holds,
         coalesce(sum((e.meta->>'count')::integer), 0)::integer as row_count
  from noetl.event e
  where e.meta ? 'command_id'
  group by 1, 2, 3
  having bool_or(e.frame_id is not null) and not bool_or(e.meta ? 'drained')
) f
join noetl.event s
  on s.execution_id = f.execution_id and s.stream_id = f.stream_id
 and s.version = 1 and s.event_type = 'loop.started';
