-- noetl.verify_execution(id): recomputes from the log what the log says of itself, and names what is wrong.
-- It reads only, and leaves no session state: settings of a function last as long as its call. Events of a
-- running execution are verified as far as they go.

-- Streams: versions go from 1 to the head without a gap, and what is open has a waker (design §4.7).
create function noetl.verify_streams(id bigint)
  returns table (rule text, subject text, ok boolean, detail text)
  language sql stable set work_mem = '64MB' set jit = off as $$
  with facts as materialized (
    select stream_id, count(*) as facts, min(version) as first, max(version) as last
    from noetl.event where execution_id = id group by stream_id
  ), heads as (
    select * from noetl.stream where execution_id = id
  ), faults as (
    select 'versions' as rule, 'stream ' || coalesce(f.stream_id, h.stream_id) as subject,
           case when f.stream_id is null then 'has a head at version ' || h.version || ' and no facts'
                when h.stream_id is null then 'has ' || f.facts || ' facts and no head'
                when f.first <> 1 or f.last <> f.facts
                then f.facts || ' facts lie between version ' || f.first || ' and ' || f.last
                else 'its facts end at version ' || f.last || ', its head says ' || h.version end as detail
    from facts f full join heads h on h.stream_id = f.stream_id
    where f.stream_id is null or h.stream_id is null or f.first <> 1 or f.last <> f.facts
       or f.last <> h.version
    union all
    select 'wakers', 'stream ' || stream_id, 'is open, and nothing will wake it'
    from heads where status = 'open' and wake_at is null
  )
  select rule, subject, false, detail from faults
  union all
  select 'versions', 'execution ' || id, true,
         coalesce(sum(facts), 0) || ' facts in ' || count(*) || ' streams, without a gap'
  from facts having not exists (select 1 from faults where rule = 'versions')
  union all
  select 'wakers', 'execution ' || id, true,
         count(*) filter (where status = 'open') || ' open streams'
  from heads having not exists (select 1 from faults where rule = 'wakers')
$$;

-- Commands: issued once under the name that they derive from, claimed in turns, ended once by who held them,
-- and never claimed once that must not be (design §4.4, §4.5, §9).
create function noetl.verify_commands(id bigint)
  returns table (rule text, subject text, ok boolean, detail text)
  language sql stable set work_mem = '64MB' set jit = off set enable_nestloop = off as $$
  with fact as materialized (
    select stream_id, version, tx, created_at, event_type as type,
           meta->>'command_id' collate "C" as command_id, (meta->>'delivery')::integer as delivery,
           meta->>'worker_id' as worker_id,
           event_type = 'command.issued' as issues,
           event_type = 'command.claimed' or (event_type = 'command.issued' and meta ? 'claim_id')
             as claims,
           event_type in ('command.completed', 'command.failed', 'command.cancelled')
             or (event_type = 'frame.committed' and (meta->>'final')::boolean) as ends,
           -- Failures that an owner decides itself: nobody holds the command then.
           event_type in ('command.completed', 'frame.committed')
             or (event_type = 'command.failed'
                 and coalesce(result->'error'->>'code', '') not in ('WORKER_LOST', 'STEP_TIMEOUT'))
             as accepts,
           case when meta ? 'attempt' then
             ':' || (meta->>'activation') ||
             coalesce(':' || (meta->>'iter_index'), ':c' || (meta->>'slot') || '-' || (meta->>'round'),
                      ':f' || (meta->>'first') || '-' || (meta->>'count'), '') ||
             ':' || (meta->>'attempt') end as suffix
    from noetl.event
    where execution_id = id
      and event_type in ('command.issued', 'command.claimed', 'command.expired', 'command.released',
                         'command.completed', 'command.failed', 'command.cancelled', 'frame.committed')
  ), mark as materialized (
    select stream_id, version, tx, created_at, event_type as type
    from noetl.event
    where execution_id = id
      and event_type in ('loop.done', 'playbook.completed', 'playbook.failed', 'execution.cancelled',
                         'execution.cancel_requested', 'execution.redriven')
  ), closed as (
    -- Streams that have ended, and were not opened again after that.
    select stream_id from mark where type <> 'execution.cancel_requested'
    group by stream_id
    having max(version) > coalesce(max(version) filter (where type = 'execution.redriven'), 0)
  ), life as materialized (
    select f.stream_id, f.command_id,
           count(*) filter (where issues) as issued, count(*) filter (where ends) as ended,
           bool_or(accepts) as reported,
           min(version) < min(version) filter (where issues)
             or max(version) > min(version) filter (where ends) as is_disordered
    from fact f group by f.stream_id, f.command_id
  ), turn as materialized (
    -- Who holds a command since when, and until when.
    select stream_id, command_id, delivery, worker_id, claims, version as since,
           lead(version) over commands as until,
           count(*) filter (where claims) over commands as claim_number,
           lag(claims) over commands as was_held
    from fact where claims or type in ('command.expired', 'command.released')
    window commands as (partition by stream_id, command_id order by version)
  ), holder as (
    select * from turn where claims
  ), outcome as (
    select f.*, h.stream_id is not null as was_held
    from fact f
    left join holder h on h.stream_id = f.stream_id and h.command_id = f.command_id
      and h.delivery = f.delivery and h.worker_id = f.worker_id
      and h.since < f.version and (h.until is null or f.version <= h.until)
    where f.accepts
  ), faults as (
    select 'commands' as rule, 'command ' || command_id as subject,
           case when issued = 0 then 'was never issued'
                when issued > 1 then 'is issued ' || issued || ' times'
                when ended > 1 then 'has ' || ended || ' terminals'
                when ended = 0 then 'has no terminal, and its stream has ended'
                else 'has facts before its issue or after its terminal' end as detail
    from life left join closed using (stream_id)
    where issued <> 1 or ended > 1 or is_disordered or (ended = 0 and closed.stream_id is not null)
    union all
    select 'names', 'command ' || command_id,
           type || ' of version ' || version || ' says ' || id || ':…' || suffix
    from fact
    where suffix is not null
      and (command_id not like id || ':%' or right(command_id, length(suffix)) <> suffix)
    union all
    select 'fence', 'command ' || command_id,
           case when was_held then 'is claimed in version ' || since || ' while another holds it'
                else 'delivery ' || coalesce(delivery::text, '?') || ' is its claim number '
                     || claim_number end
    from turn where claims and (was_held or delivery is distinct from claim_number)
    union all
    select 'fence', 'command ' || command_id,
           type || ' of version ' || version || ' is of delivery ' || coalesce(delivery::text, '?')
             || ' by ' || coalesce(worker_id, '?') || ', who did not hold it then'
    from outcome where not was_held
    union all
    select 'cancel', 'command ' || f.command_id,
           f.type || ' of version ' || f.version || ' follows the cancel of version ' || c.version
    from fact f join mark c on c.stream_id = f.stream_id and c.type = 'execution.cancel_requested'
    where (f.issues or f.claims) and f.version > c.version
      -- A slot of a cursor finishes the rows that it has taken.
      and f.command_id !~ ':c\d+-\d+:\d+$'
      and not exists (select 1 from mark r
                      where r.type = 'execution.redriven' and r.stream_id = f.stream_id
                        and r.version > c.version and r.version < f.version)
    union all
    -- Across streams: a later transaction on a later clock. Of a restored log the transactions say nothing.
    select 'end', 'command ' || f.command_id,
           f.type || ' of stream ' || f.stream_id || ' is later than ' || e.type
    from fact f join mark e on e.stream_id = id
      and e.type in ('playbook.completed', 'playbook.failed', 'execution.cancelled')
    where (f.issues or f.claims) and f.tx > e.tx and f.created_at > e.created_at
      and not exists (select 1 from mark r
                      where r.type = 'execution.redriven' and r.stream_id = id
                        and r.tx >= e.tx and r.tx <= f.tx)
  ), counted as (
    select count(*) as commands, count(*) filter (where ended > 0) as ended from life
  ), said (rule, detail) as (
    select 'commands', commands || ' issued, each once; ' || ended || ' ended, each once'
           || case when commands > ended then '; ' || commands - ended || ' open' else '' end
    from counted
    union all select 'names', 'every command is named after its step, its item and its attempt'
    union all select 'fence', 'every outcome is of the worker and the delivery that held its command'
    union all select 'cancel', 'nothing was issued or claimed on a stream after its cancel'
    union all select 'end', 'nothing was issued or claimed after the end'
  )
  select rule, subject, false, detail from faults
  union all
  select rule, 'execution ' || id, true, detail from said
  where rule not in (select rule from faults)
$$;
