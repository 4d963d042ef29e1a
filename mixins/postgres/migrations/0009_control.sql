-- Commands that were given up because their workers died (quarantine). It is read out of the log, so that it
-- can neither miss one nor say anything else than the log does.
create index idx_event_quarantined on noetl.event (execution_id, event_id)
  where event_type in ('command.failed', 'loop.shard.failed') and result->'error'->>'code' = 'WORKER_LOST';
create index idx_event_command_expired on noetl.event (execution_id, (meta->>'command_id'))
  where event_type = 'command.expired';

-- One command; `deaths` are its deliveries that ended with their worker, in order.
create view noetl.dead_letter as
select e.execution_id, e.stream_id, e.event_id, e.meta->>'command_id' as command_id, e.node_name as step,
       (e.meta->>'activation')::integer as activation, (e.meta->>'iter_index')::integer as iter_index,
       e.result->'error' as error, d.deaths, e.created_at as quarantined_at
from noetl.event e
cross join lateral (
  select jsonb_agg(jsonb_build_object('worker_id', x.meta->>'worker_id',
                                      'delivery', (x.meta->>'delivery')::integer,
                                      'at', x.created_at) order by x.version) as deaths
  from noetl.event x
  where x.execution_id = e.execution_id and x.event_type = 'command.expired'
    and x.meta->>'command_id' = e.meta->>'command_id'
) d
-- A tool may say the same word of itself: then nobody has died.
where e.event_type in ('command.failed', 'loop.shard.failed') and e.result->'error'->>'code' = 'WORKER_LOST' and d.deaths is not null;
