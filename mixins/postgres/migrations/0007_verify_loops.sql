-- Of noetl.verify_execution: what concerns loops.

-- A sum of digests as text: four words of 32 bits, the highest first, each a sum that carries into the one before.
-- One expression, so that it costs no call.
create function noetl.digest_text(w0 bigint, w1 bigint, w2 bigint, w3 bigint) returns text
language sql immutable parallel safe as $$
  select lpad(to_hex((w0 + ((w1 + ((w2 + (w3 >> 32)) >> 32)) >> 32)) & 4294967295), 8, '0') ||
         lpad(to_hex((w1 + ((w2 + (w3 >> 32)) >> 32)) & 4294967295), 8, '0') ||
         lpad(to_hex((w2 + (w3 >> 32)) & 4294967295), 8, '0') ||
         lpad(to_hex(w3 & 4294967295), 8, '0')
$$;

-- Loops: begun once and done once, every index accepted at most once and counted, and the digests equal to what
-- the stored results give (design §4.6; the digest is defined in schemas/loop-digest.ts). Also the progress that
-- the execution's row shows of each.
create function noetl.verify_loops(id bigint)
  returns table (rule text, subject text, ok boolean, detail text)
  language sql stable set work_mem = '64MB' set jit = off set enable_nestloop = off as $$
  with loop as materialized (
    select stream_id, max(node_name) as step,
           count(*) filter (where event_type = 'loop.started') as started,
           count(*) filter (where event_type = 'loop.done') as done,
           max((meta->>'collection_size')::bigint) filter (where event_type = 'loop.started') as begun_size,
           (max(meta::text) filter (where event_type = 'loop.done'))::jsonb as report,
           -- What a redriven loop was given by the one before; a cursor's rows are those that come.
           coalesce(sum((meta->'inherited'->>'ok')::bigint), 0) as given_ok,
           coalesce(sum((meta->'inherited'->>'failed')::bigint), 0) as given_failed,
           bool_or(meta->>'mode' = 'cursor') as is_cursor,
           bool_and(meta->>'loop_id' = stream_id::text) as is_its_own
    from noetl.event
    where execution_id = id and event_type in ('loop.started', 'loop.done') group by stream_id
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
           case event_type when 'frame.committed' then meta->>'ok'
                when 'command.completed' then meta->>'iter_index' else '' end as succeeded,
           case event_type when 'frame.committed' then meta->>'failed'
                when 'command.failed' then meta->>'iter_index' else '' end as failed,
           case when meta ? 'digest' then
             encode(sha256(convert_to(result::text, 'UTF8')), 'hex') end as stored
    from noetl.event
    where execution_id = id and stream_id <> id
      and event_type in ('command.completed', 'command.failed', 'frame.committed')
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
      or (report->>'status' = 'ok' and success + failed <> size))
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
