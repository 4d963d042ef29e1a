-- noetl.verify_execution knows fan-outs. As in 0007_verify_commands.sql and 0007_verify_loops.sql, and with the
-- facts of shards.

-- Commands: issued once under the name that they derive from, claimed in turns, ended once by who held them,
-- and never claimed once that must not be (design §4.4, §4.5, §9).
create or replace function noetl.verify_commands(id bigint)
  returns table (rule text, subject text, ok boolean, detail text)
  language sql stable set work_mem = '64MB' set jit = off set enable_nestloop = off as $$
  with fact as materialized (
    select stream_id, version, tx, created_at, event_type as type,
           meta->>'command_id' collate "C" as command_id, (meta->>'delivery')::integer as delivery,
           meta->>'worker_id' as worker_id,
           event_type = 'command.issued' as issues,
           event_type = 'command.claimed' or (event_type = 'command.issued' and meta ? 'claim_id')
             as claims,
           event_type in ('command.completed', 'command.failed', 'command.cancelled',
                          'loop.shard.done', 'loop.shard.failed')
             or (event_type = 'frame.committed' and (meta->>'final')::boolean) as ends,
           -- Failures that an owner decides itself: nobody holds the command then.
           event_type in ('command.completed', 'frame.committed', 'loop.shard.done')
             or (event_type in ('command.failed', 'loop.shard.failed')
                 and coalesce(result->'error'->>'code', '')
                     not in ('WORKER_LOST', 'STEP_TIMEOUT', 'QUEUE_TIMEOUT'))
             as accepts,
           case when meta ? 'attempt' then
             ':' || (meta->>'activation') ||
             coalesce(':' || (meta->>'iter_index'), ':c' || (meta->>'slot') || '-' || (meta->>'round'),
                      ':f' || (meta->>'first') || '-' || (meta->>'count'), '') ||
             ':' || (meta->>'attempt') end as suffix
    from noetl.event
    where execution_id = id
      and event_type in ('command.issued', 'command.claimed', 'command.expired', 'command.released',
                         'command.completed', 'command.failed', 'command.cancelled', 'frame.committed',
                         'loop.shard.done', 'loop.shard.failed')
  ), mark as materialized (
    select stream_id, version, tx, created_at, event_type as type
    from noetl.event
    where execution_id = id
      and event_type in ('loop.done', 'loop.fanin.completed', 'playbook.completed', 'playbook.failed',
                         'execution.cancelled', 'execution.cancel_requested', 'execution.redriven')
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

-- Loops: begun once and done once, every index accepted at most once and counted, and the digests equal to what
-- the stored results give (design §4.6; the digest is defined in schemas/loop-digest.ts). Also the progress that
-- the execution's row shows of each. Fan-outs are loops here, down to their items; what concerns their shards
-- is noetl.verify_fanins.
create or replace function noetl.verify_loops(id bigint)
  returns table (rule text, subject text, ok boolean, detail text)
  language sql stable set work_mem = '64MB' set jit = off set enable_nestloop = off as $$
  with loop as materialized (
    select stream_id, max(node_name) as step,
           count(*) filter (where event_type in ('loop.started', 'loop.fanout.started')) as started,
           count(*) filter (where event_type in ('loop.done', 'loop.fanin.completed')) as done,
           max((meta->>'collection_size')::bigint)
             filter (where event_type in ('loop.started', 'loop.fanout.started')) as begun_size,
           (max(meta::text) filter (where event_type in ('loop.done', 'loop.fanin.completed')))::jsonb as report,
           -- What a redriven loop was given by the one before; a cursor's rows are those that come.
           coalesce(sum((meta->'inherited'->>'ok')::bigint), 0) as given_ok,
           coalesce(sum((meta->'inherited'->>'failed')::bigint), 0) as given_failed,
           bool_or(meta->>'mode' = 'cursor') as is_cursor,
           bool_and(meta->>'loop_id' = stream_id::text) as is_its_own
    from noetl.event
    where execution_id = id
      and event_type in ('loop.started', 'loop.done', 'loop.fanout.started', 'loop.fanin.completed')
    group by stream_id
  ), visit as (
    select meta->>'loop_id' as loop_id, max(node_name) as step,
           count(*) filter (where event_type = 'step.enter') as entered,
           count(*) filter (where event_type = 'step.exit') as exited
    from noetl.event
    where execution_id = id and stream_id = id and event_type in ('step.enter', 'step.exit')
      and meta ? 'loop_id'
    group by 1
  ), outcome as materialized (
    select stream_id, version, meta->>'digest' as digest, (meta->>'attempt') as attempt,
           coalesce((meta->>'first')::bigint, (meta->>'iter_index')::bigint) as first,
           coalesce((meta->>'count')::bigint, 1) as count,
           -- Of a shard's attempt that is made again only what succeeded is accepted.
           case when event_type in ('frame.committed', 'loop.shard.failed') or meta ? 'shard_id' and meta ? 'ok'
                then coalesce(meta->>'ok', '')
                when event_type in ('command.completed', 'loop.shard.done') then meta->>'iter_index'
                else '' end as succeeded,
           case when event_type = 'frame.committed' then meta->>'failed'
                when event_type = 'loop.shard.failed' then coalesce(meta->>'failed', meta->>'iter_index')
                when event_type = 'command.failed' and not meta ? 'shard_id' then meta->>'iter_index'
                else '' end as failed,
           case when meta ? 'digest' then
             encode(sha256(convert_to(result::text, 'UTF8')), 'hex') end as stored
    from noetl.event
    where execution_id = id and stream_id <> id
      and event_type in ('command.completed', 'command.failed', 'frame.committed',
                         'loop.shard.done', 'loop.shard.failed')
  ), span as materialized (
    -- Indexes as the facts name them: from low to high.
    select stream_id, version, word, attempt, stored, first, count,
           split_part(part, '-', 1)::bigint as low,
           coalesce(nullif(split_part(part, '-', 2), ''), part)::bigint as high
    from outcome
    cross join lateral (values ('ok', succeeded), ('failed', failed)) as named (word, ranges)
    cross join lateral unnest(string_to_array(ranges, ',')) as part
  ), overlap as (
    select stream_id, version, low,
           max(high) over (partition by stream_id order by low, version
                           rows between unbounded preceding and 1 preceding) as before
    from span
  ), word_sum as materialized (
    select s.stream_id, s.version, sum(w0)::bigint as w0, sum(w1)::bigint as w1,
           sum(w2)::bigint as w2, sum(w3)::bigint as w3
    from span s
    cross join lateral (
      select sum(('x' || substr(h, 1, 8))::bit(32)::bigint) as w0,
             sum(('x' || substr(h, 9, 8))::bit(32)::bigint) as w1,
             sum(('x' || substr(h, 17, 8))::bit(32)::bigint) as w2,
             sum(('x' || substr(h, 25, 8))::bit(32)::bigint) as w3
      from (select encode(sha256(convert_to(
              item || ':' || s.attempt || ':' || s.word || ':' || s.stored, 'UTF8')), 'hex') as h
            from generate_series(s.low, s.high) as item offset 0) as hashed
    ) as words
    where s.stored is not null
    group by s.stream_id, s.version
  ), sum_of_loop as (
    select stream_id, noetl.digest_text(sum(w0)::bigint, sum(w1)::bigint, sum(w2)::bigint,
                                        sum(w3)::bigint) as digest
    from word_sum group by stream_id
  ), tally as (
    select stream_id, coalesce(sum(high - low + 1) filter (where word = 'ok'), 0) as success,
           coalesce(sum(high - low + 1) filter (where word = 'failed'), 0) as failed
    from span group by stream_id
  ), unsigned as (
    select stream_id, count(*) as facts from outcome
    where digest is null and concat(succeeded, failed) <> '' group by stream_id
  ), known as materialized (
    select l.*, given_ok + coalesce(t.success, 0) as success, given_failed + coalesce(t.failed, 0) as failed,
           coalesce((report->>'collection_size')::bigint, begun_size) as size,
           coalesce(d.digest, repeat('0', 32)) as digest, coalesce(u.facts, 0) as unsigned,
           'loop ' || l.stream_id || ' of ' || coalesce(l.step, '?') as subject
    from loop l left join tally t using (stream_id) left join sum_of_loop d using (stream_id)
         left join unsigned u using (stream_id)
  ), ended as (
    select max(version) filter (where event_type <> 'execution.redriven')
             > coalesce(max(version) filter (where event_type = 'execution.redriven'), 0) as is_over
    from noetl.event
    where execution_id = id and stream_id = id
      and event_type in ('playbook.completed', 'playbook.failed', 'execution.cancelled',
                         'execution.redriven')
  ), shown as (
    select step, value as progress from noetl.execution x, jsonb_each(x.state->'loop') as s(step, value)
    where x.execution_id = id and jsonb_typeof(x.state->'loop') = 'object'
  ), faults as (
    select 'loops' as rule, subject,
           case when started <> 1 then 'has ' || started || ' × loop.started'
                when done > 1 then 'has ' || done || ' × loop.done'
                when done = 0 then 'is not done, and its execution has ended'
                else 'has facts that name another loop' end as detail
    from known, ended
    where started <> 1 or done > 1 or (done = 0 and is_over) or not is_its_own
    union all
    select 'loops', 'loop ' || v.loop_id || ' of ' || coalesce(v.step, '?'),
           case when l.stream_id is null then 'was entered and never began'
                else 'is entered ' || entered || ' times and left ' || exited || ' times' end
    from visit v left join loop l on l.stream_id::text = v.loop_id cross join ended
    where entered <> 1 or exited > 1 or (is_over and (l.stream_id is null or exited <> 1))
    union all
    select 'items', 'loop ' || stream_id,
           'item ' || low || ' of version ' || version || ' was accepted before'
    from overlap where low <= before
    union all
    select 'items', k.subject,
           'version ' || s.version || ' accepts items ' || s.low || ' to ' || s.high || ' of '
             || case when s.low < s.first or s.high >= s.first + s.count
                     then 'a command that carries ' || s.first || ' to ' || s.first + s.count - 1
                     else k.size || ' items' end
    from span s join known k using (stream_id)
    where s.low < s.first or s.high >= s.first + s.count or s.low < 0
       or (s.high >= k.size and (k.done > 0 or k.is_cursor is not true))
    union all
    select 'counts', subject,
           'the log has ' || success || ' succeeded and ' || failed || ' failed of ' || size
             || '; loop.done says ' || coalesce(report->>'stats', 'nothing')
    from known
    where done > 0 and (
      (report->'stats'->>'success')::bigint is distinct from success
      or (report->'stats'->>'failed')::bigint is distinct from failed
      or (report->'stats'->>'not_run')::bigint is distinct from size - success - failed
      or (report->'stats'->>'total')::bigint is distinct from size
      or (report->>'status' in ('ok', 'complete') and success + failed <> size))
    union all
    select 'digest', k.subject || coalesce(', item ' || o.first, ''),
           'version ' || o.version || ' says ' || o.digest || ', its stored result gives '
             || coalesce(noetl.digest_text(w.w0, w.w1, w.w2, w.w3), repeat('0', 32))
    from outcome o join known k using (stream_id)
    left join word_sum w on w.stream_id = o.stream_id and w.version = o.version
    where o.digest is not null
      and o.digest <> coalesce(noetl.digest_text(w.w0, w.w1, w.w2, w.w3), repeat('0', 32))
    union all
    select 'digest', subject,
           'loop.done says ' || (report->>'digest') || ', the log gives ' || digest
    from known
    where done > 0 and unsigned = 0 and report ? 'digest' and report->>'digest' <> digest
    union all
    select 'row', k.subject,
           'loop_progress says ' || (p.progress->>'done') || ' done and ' || (p.progress->>'failed')
             || ' failed; the log has ' || k.success || ' and ' || k.failed
    from shown p join known k on k.stream_id::text = p.progress->>'loop_id'
    join noetl.stream h on h.stream_id = k.stream_id
    where (p.progress->>'version')::integer = h.version
      and ((p.progress->>'done')::bigint <> k.success or (p.progress->>'failed')::bigint <> k.failed
           or (p.progress->>'total')::bigint <> k.size
           or (p.progress->>'completed')::boolean <> (k.done > 0))
    union all
    select 'row', k.subject,
           'loop_progress is at version ' || (p.progress->>'version') || ', the log at ' || h.version
    from shown p join known k on k.stream_id::text = p.progress->>'loop_id'
    join noetl.stream h on h.stream_id = k.stream_id
    join noetl.event e on e.execution_id = id and e.stream_id = h.stream_id and e.version = h.version
    where (p.progress->>'version')::integer > h.version
       or ((p.progress->>'version')::integer < h.version
           and e.created_at < now() - interval '10 seconds')
  ), said (rule, detail) as (
    select 'loops', count(*) || ' begun, ' || sum(done) || ' done, each once'
    from known having count(*) > 0
    union all
    select 'items', sum(success + failed) || ' of ' || sum(size) || ' accepted, each once'
    from known having count(*) > 0
    union all
    select 'counts', sum(success) || ' succeeded, ' || sum(failed) || ' failed, '
           || sum(greatest(size - success - failed, 0)) || case when sum(done) = count(*) then ' not run' else ' to do' end
    from known having count(*) > 0
    union all
    select 'digest', case
             when bool_and(report ? 'digest') and count(*) = 1 then max(report->>'digest')
             when count(*) filter (where report ? 'digest') > 0
             then count(*) filter (where report ? 'digest') || ' equal to the stored results'
             else 'of what was accepted so far' end
           || case when count(*) filter (where unsigned > 0 or (done > 0 and not report ? 'digest')) > 0
              then '; ' || count(*) filter (where unsigned > 0 or (done > 0 and not report ? 'digest'))
                   || ' of an older build, with no digest' else '' end
    from known having count(*) > 0
  )
  select rule, subject, false, detail from faults
  union all
  select rule, 'execution ' || id, true, detail from said
  where rule not in (select rule from faults)
$$;
