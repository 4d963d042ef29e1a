-- Fan-outs: the terminals of shards are the terminals of their commands, and the fan-in counts them.
drop index noetl.uidx_event_command_terminal;
create unique index uidx_event_command_terminal
  on noetl.event (execution_id, (meta->>'command_id'))
  where event_type in ('command.completed', 'command.failed', 'command.cancelled',
                       'loop.shard.done', 'loop.shard.failed')
     or (event_type = 'frame.committed' and (meta->>'final')::boolean);

-- Readers see the enqueue of a shard, each item of a frame or of a shard that has several, and the claim of a command that was handed over as it was issued.
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
      when 'loop.shard.done' then 'completed' when 'loop.shard.failed' then 'failed'
      when 'playbook.completed' then 'completed' when 'playbook.failed' then 'failed'
      else 'recorded' end, null
  union all
  select 3, 'loop.shard.enqueued', 'pending', null
    where e.event_type = 'command.issued' and e.meta ? 'shard_id'
  union all
  select 4, 'command.claimed', 'claimed', null
    where e.event_type = 'command.issued' and e.meta ? 'claim_id'
  union all
  select 5, 'command.started', 'running', null
    where e.event_type = 'command.claimed'
       or (e.event_type = 'command.issued' and e.meta ? 'claim_id')
  union all
  select 6, 'call.done', 'completed', null
    where e.event_type = 'command.completed'
       or (e.event_type = 'loop.shard.done' and not e.meta ? 'ok')
  union all
  select 6, 'call.error', 'failed', null
    where e.event_type = 'command.failed'
       or (e.event_type = 'loop.shard.failed' and not e.meta ? 'ok')
  union all
  select 6, items.type, items.status, item
    from (values ('call.done', 'completed', e.meta->>'ok'), ('call.error', 'failed', e.meta->>'failed'))
           as items (type, status, ranges),
         lateral regexp_split_to_table(items.ranges, ',') as range,
         lateral generate_series(
           split_part(range, '-', 1)::integer,
           coalesce(nullif(split_part(range, '-', 2), ''), split_part(range, '-', 1))::integer) as item
    where e.event_type in ('frame.committed', 'loop.shard.done', 'loop.shard.failed')
      and items.ranges <> ''
  union all
  select 7, 'step.exit', coalesce(e.meta->>'step_status', 'ok'), null
    where e.event_type in ('command.completed', 'command.failed') and e.meta ? 'next'
  union all
  select 8, 'step.failed', 'failed', null
    where e.event_type in ('command.completed', 'command.failed', 'step.exit')
      and e.meta->>'step_status' = 'failed'
  union all
  select 9, 'ctx.updated', 'recorded', null
    where e.event_type <> 'ctx.updated' and e.context->'ctx' is not null and e.context->'ctx' <> '{}'
) d;

-- What a fan-in gathers: a set of shards, each by its last terminal, however often one is told. A failed attempt
-- that is made again is no terminal of its shard.
create function noetl.fanin_counts(id bigint, loop text)
  returns table (succeeded bigint, failed bigint)
  language sql stable as $$
  select count(*) filter (where shard.last = 'loop.shard.done'),
         count(*) filter (where shard.last = 'loop.shard.failed')
  from (
    select distinct on (e.meta->>'shard_id') e.event_type as last
    from noetl.event e
    -- The first clause is the predicate of idx_event_loop_id_type.
    where e.meta ? 'loop_id' and e.execution_id = id and e.meta->>'loop_id' = loop
      and e.event_type in ('loop.shard.done', 'loop.shard.failed')
    order by e.meta->>'shard_id', e.version desc
  ) shard
$$;

-- Of noetl.verify_execution: the shards of fan-outs. Each ends once and keeps its name in every attempt; the one
-- fan-in says how they ended, and what the row shows is that.
create function noetl.verify_fanins(id bigint)
  returns table (rule text, subject text, ok boolean, detail text)
  language sql stable set work_mem = '64MB' set jit = off as $$
  with begun as materialized (
    select distinct on (stream_id) stream_id, node_name as step,
           (meta->>'total_shards')::bigint as total,
           coalesce((meta->'inherited_shards'->>'succeeded')::bigint, 0) as given_succeeded,
           coalesce((meta->'inherited_shards'->>'failed')::bigint, 0) as given_failed,
           coalesce((context->'plan'->'fanout'->>'allow_partial')::boolean, true) as allow_partial
    from noetl.event
    where execution_id = id and event_type = 'loop.fanout.started'
    order by stream_id, version
  ), gathered as materialized (
    select distinct on (stream_id) stream_id, meta as report
    from noetl.event
    where execution_id = id and event_type = 'loop.fanin.completed'
    order by stream_id, version
  ), known as materialized (
    select b.*, g.report, g.report->'stats' as stats,
           b.given_succeeded + n.succeeded as succeeded, b.given_failed + n.failed as failed,
           'loop ' || b.stream_id || ' of ' || coalesce(b.step, '?') as subject
    from begun b left join gathered g using (stream_id)
    cross join lateral noetl.fanin_counts(id, b.stream_id::text) n
  ), shard as materialized (
    select stream_id, meta->>'shard_id' as shard_id,
           count(*) filter (where event_type <> 'command.issued') as ended,
           count(distinct concat(meta->>'iter_key', ' of ', meta->>'iter_index', meta->>'first')) as names
    from noetl.event
    where execution_id = id and stream_id <> id and meta ? 'shard_id'
      and event_type in ('command.issued', 'loop.shard.done', 'loop.shard.failed')
    group by 1, 2
  ), shown as (
    select value as progress from noetl.execution x, jsonb_each(x.state->'fanout') as s(step, value)
    where x.execution_id = id and jsonb_typeof(x.state->'fanout') = 'object'
  ), faults as (
    select 'fanin' as rule, k.subject || ', shard ' || s.shard_id as subject,
           case when s.ended > 1 then 'has ' || s.ended || ' terminals'
                else 'has ' || s.names || ' names' end as detail
    from shard s join known k using (stream_id) where s.ended > 1 or s.names > 1
    union all
    select 'fanin', subject,
           'the log has ' || succeeded || ' succeeded and ' || failed || ' failed of ' || total
             || ' shards; loop.fanin.completed says ' || (report - 'digest')::text
    from known
    where report is not null and (
      (report->>'total')::bigint is distinct from total
      or (report->>'succeeded')::bigint is distinct from succeeded
      or (report->>'done')::bigint is distinct from succeeded
      or (report->>'failed')::bigint is distinct from failed
      or succeeded + failed > total)
    union all
    select 'fanin', subject, 'loop.fanin.completed says ' || (report->>'status') || ' of ' || stats::text
    from known
    where report is not null and not coalesce(case report->>'status'
      when 'complete' then (stats->>'success')::bigint = (stats->>'total')::bigint
      when 'partial' then allow_partial and (stats->>'success')::bigint > 0
                          and (stats->>'success')::bigint < (stats->>'total')::bigint
      when 'failed' then (stats->>'success')::bigint < (stats->>'total')::bigint
                         or (stats->>'total')::bigint = 0
      else report->>'status' = 'cancelled' end, false)
    union all
    select 'row', k.subject,
           'fanout_progress says ' || (p.progress->>'done') || ' done and ' || (p.progress->>'failed')
             || ' failed, ' || (p.progress->>'status') || '; the log has ' || k.succeeded || ' and ' || k.failed
    from shown p join known k on k.stream_id::text = p.progress->>'loop_id'
    join noetl.stream h on h.stream_id = k.stream_id
    where (p.progress->>'version')::integer = h.version
      and ((p.progress->>'done')::bigint <> k.succeeded or (p.progress->>'failed')::bigint <> k.failed
           or (p.progress->>'total_shards')::bigint <> k.total
           or p.progress->>'status' <> coalesce(k.report->>'status', 'running'))
    union all
    select 'row', k.subject,
           'fanout_progress is at version ' || (p.progress->>'version') || ', the log at ' || h.version
    from shown p join known k on k.stream_id::text = p.progress->>'loop_id'
    join noetl.stream h on h.stream_id = k.stream_id
    join noetl.event e on e.execution_id = id and e.stream_id = h.stream_id and e.version = h.version
    where (p.progress->>'version')::integer > h.version
       or ((p.progress->>'version')::integer < h.version
           and e.created_at < now() - interval '10 seconds')
  ), said (rule, detail) as (
    select 'fanin', sum(succeeded) || ' of ' || sum(total) || ' shards succeeded, ' || sum(failed)
           || ' failed; ' || coalesce(string_agg(distinct report->>'status', ', '), 'none gathered yet')
    from known having count(*) > 0
  )
  select rule, subject, false, detail from faults
  union all
  select rule, 'execution ' || id, true, detail from said
  where rule not in (select rule from faults)
$$;

-- Everything that is wrong with one execution, at most 20 of a rule, and one line for each rule that holds.
create or replace function noetl.verify_execution(id bigint)
  returns table (rule text, subject text, ok boolean, detail text)
  language sql stable as $$
  with found as (
    select 1 as part, * from noetl.verify_streams(id)
    union all select 2, * from noetl.verify_commands(id)
    union all select 3, * from noetl.verify_loops(id)
    union all select 4, * from noetl.verify_fanins(id)
    union all select 5, * from noetl.verify_end(id)
  ), numbered as (
    select *, row_number() over of_rule as place, count(*) over (partition by rule, ok) as total
    from found window of_rule as (partition by rule, ok order by part, subject, detail)
  )
  select rule, subject, ok and not exists (select 1 from found f where f.rule = n.rule and not f.ok),
         detail || case when place = 20 and total > 20 then ' (and ' || total - 20 || ' more)' else '' end
  from numbered n
  where place <= 20 and exists (select 1 from noetl.event where execution_id = id
                                union all select 1 from noetl.execution where execution_id = id)
    and (not ok or not exists (select 1 from found f where f.rule = n.rule and not f.ok))
  union all
  select 'known', 'execution ' || id, false, 'nothing is known of it'
  where not exists (select 1 from noetl.event where execution_id = id
                    union all select 1 from noetl.execution where execution_id = id)
$$;
