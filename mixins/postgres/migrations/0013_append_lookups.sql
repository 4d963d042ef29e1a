-- As in 0007_cursor_frames.sql, but for how streams are found. A function's plan is kept for as long
-- as its connection, and one that was made while the table was small read all of it ever after: half
-- of Postgres' time after ten thousand executions. Each stream is looked up by its key now, whatever
-- the planner takes the table for.
create or replace function noetl.append_events(heads json, facts json)
  returns table (accepted_id bigint, clock_ms numeric, made_ms numeric)
  language plpgsql set enable_seqscan = off as $$
#variable_conflict use_column
begin
  return query
  with input as (
    select * from json_to_recordset(heads) as i(
      stream_id bigint, execution_id bigint, kind text, expected integer, version integer,
      wake_at double precision, ended boolean, owner text, start json)
  ), locked as materialized (
    select s.stream_id, s.version
    from (select stream_id from input where expected > 0 order by stream_id) i
    cross join lateral (
      select stream_id, version from noetl.stream where stream_id = i.stream_id limit 1 for update
    ) s
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
