-- Of noetl.verify_execution: the end of the run and its row, and the whole.

-- The execution: one terminal in each generation, and the row that people read is what the log says. A row is
-- given a few seconds: it follows the log.
create function noetl.verify_end(id bigint)
  returns table (rule text, subject text, ok boolean, detail text)
  language sql stable as $$
  with own as materialized (
    select version, event_type as type, meta->>'generation' as generation, created_at
    from noetl.event
    where execution_id = id and stream_id = id
      and event_type in ('playbook.initialized', 'playbook.completed', 'playbook.failed',
                         'execution.cancelled', 'execution.redriven', 'execution.paused', 'execution.resumed')
  ), head as (
    select max(version) as version, max(created_at) < now() - interval '10 seconds' as is_old,
           count(*) filter (where event_type = 'step.enter' or meta->'enter' = 'true') as steps
    from noetl.event where execution_id = id and stream_id = id
  ), last as (
    select type from own where type <> 'playbook.initialized' order by version desc limit 1
  ), told as (
    select case (select type from last)
             when 'playbook.completed' then 'COMPLETED' when 'playbook.failed' then 'FAILED'
             when 'execution.cancelled' then 'CANCELLED' when 'execution.paused' then 'PAUSED'
             else 'RUNNING' end as status
  ), faults as (
    select 'terminal' as rule,
           count(*) || ' facts end generation ' || coalesce(generation, '?') || ': '
             || string_agg(type, ', ' order by version) as detail
    from own where type in ('playbook.completed', 'playbook.failed', 'execution.cancelled')
    group by generation having count(*) > 1
    union all
    select 'terminal', count(*) || ' × playbook.initialized' from own
    where type = 'playbook.initialized' having count(*) <> 1
    union all
    select 'terminal', 'version ' || h.version || ' follows the end of version ' || e.version
    from head h, own e
    where e.type in ('playbook.completed', 'playbook.failed', 'execution.cancelled')
      and h.version > e.version
      and not exists (select 1 from own r where r.type = 'execution.redriven' and r.version > e.version)
    union all
    select 'row', 'there is no row of it in noetl.execution'
    where not exists (select 1 from noetl.execution where execution_id = id)
    union all
    select 'row', 'the row says ' || x.status || ', the log says ' || t.status
    from noetl.execution x, told t, head h
    where x.execution_id = id and x.version >= h.version and x.status <> t.status
    union all
    select 'row', 'the row counts ' || (x.state->'counts'->>'steps') || ' steps, the log has ' || h.steps
    from noetl.execution x, head h
    where x.execution_id = id and x.version = h.version
      and (x.state->'counts'->>'steps')::bigint <> h.steps
    union all
    select 'row', 'the row is at version ' || x.version || ', the log at ' || h.version
    from noetl.execution x, head h
    where x.execution_id = id and (x.version > h.version or (x.version < h.version and h.is_old))
  ), said (rule, detail) as (
    select 'terminal', case when status in ('RUNNING', 'PAUSED') then 'none so far: it is ' || status
                            else 'one: ' || (select type from last) end from told
    union all
    select 'row', case when x.version < h.version then 'on its way: version ' || x.version || ' of ' || h.version
                       else x.status || ', as the log says' end
    from noetl.execution x, head h where x.execution_id = id
  )
  select rule, 'execution ' || id, false, detail from faults
  union all
  select rule, 'execution ' || id, true, detail from said
  where rule not in (select rule from faults)
$$;

-- Everything that is wrong with one execution, at most 20 of a rule, and one line for each rule that holds.
create function noetl.verify_execution(id bigint)
  returns table (rule text, subject text, ok boolean, detail text)
  language sql stable as $$
  with found as (
    select 1 as part, * from noetl.verify_streams(id)
    union all select 2, * from noetl.verify_commands(id)
    union all select 3, * from noetl.verify_loops(id)
    union all select 4, * from noetl.verify_end(id)
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
