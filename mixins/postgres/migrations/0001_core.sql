-- The event store and its readers. noetl.event is the only truth; everything else can be derived from it,
-- or is a lease, a definition or a secret. No trigger anywhere.

create schema if not exists noetl;

-- Node numbers of snowflakes: a process takes the next one when it starts. 1,024 processes may start
-- before a number comes round again.
create sequence noetl.node_number as integer minvalue 0 maxvalue 1023 cycle;

-- One fact. execution_id leads every key because ids are ordered by time: retention drops partitions.
create table noetl.event (
  execution_id bigint      not null,
  stream_id    bigint      not null,
  version      integer     not null,
  event_id     bigint      not null,
  event_type   text        not null,
  node_name    text,
  meta         jsonb       not null,
  context      jsonb,
  result       jsonb,
  tx           xid8        not null default pg_current_xact_id(),
  created_at   timestamptz not null default now(),
  primary key (execution_id, stream_id, version)
) partition by range (execution_id);

-- Rows here mean that nobody kept partitions ahead; `noetl doctor` says so.
create table noetl.event_default partition of noetl.event default;

-- Guards. On the happy path nothing ever hits them.
create unique index uidx_event_command_issued_command_id
  on noetl.event (execution_id, (meta->>'command_id')) where event_type = 'command.issued';
create unique index uidx_event_command_terminal
  on noetl.event (execution_id, (meta->>'command_id'))
  where event_type in ('command.completed', 'command.failed', 'command.cancelled');
create unique index uidx_event_loop_done_loop_id
  on noetl.event (execution_id, (meta->>'loop_id')) where event_type = 'loop.done';
create unique index uidx_event_loop_fanin_completed_loop_id
  on noetl.event (execution_id, (meta->>'loop_id')) where event_type = 'loop.fanin.completed';
create unique index uidx_event_execution_terminal
  on noetl.event (execution_id, (meta->>'generation'))
  where event_type in ('playbook.completed', 'playbook.failed', 'execution.cancelled');

create index idx_event_loop_id_type
  on noetl.event (execution_id, (meta->>'loop_id'), event_type) where meta ? 'loop_id';
-- Following the log: below the watermark, in this order, nothing is missed.
create index idx_event_tx on noetl.event (tx, event_id);

-- Event partitions are a week of execution ids wide. Returns how many were made. A week that already has
-- facts in the default partition cannot have its own any more; the weeks after it still get theirs.
create function noetl.ensure_event_partitions(ahead integer) returns integer language plpgsql as $$
declare
  week_ms   constant bigint := 604800000;
  epoch_ms  constant bigint := 1704067200000;
  this_week constant bigint := (extract(epoch from now()) * 1000 - 1704067200000)::bigint / 604800000;
  made integer := 0;
  week bigint;
  name text;
begin
  perform pg_advisory_xact_lock(hashtext('noetl.ensure_event_partitions'));
  for week in select generate_series(this_week, this_week + ahead) loop
    name := 'event_' || to_char(to_timestamp((epoch_ms + week * week_ms) / 1000.0) at time zone 'UTC', 'YYYYMMDD');
    if to_regclass('noetl.' || name) is null then
      begin
        execute format(
          'create table noetl.%I partition of noetl.event for values from (%s) to (%s)',
          name, (week * week_ms) << 22, ((week + 1) * week_ms) << 22);
        made := made + 1;
      exception when check_violation then
        null;
      end;
    end if;
  end loop;
  return made;
end $$;

select noetl.ensure_event_partitions(2);

-- The head of a stream. wake_at is a lower bound of the next deadline; the reaper reads nothing else.
create table noetl.stream (
  stream_id     bigint      primary key,
  execution_id  bigint      not null,
  kind          text        not null,
  version       integer     not null,
  status        text        not null default 'open' check (status in ('open', 'ended')),
  wake_at       timestamptz,
  owner         text,
  acked_version integer     not null default 0,
  failures      integer     not null default 0,
  last_error    text
) with (fillfactor = 60);
create index idx_stream_wake on noetl.stream (wake_at) where status = 'open';
create index idx_stream_execution on noetl.stream (execution_id);

create table noetl.snapshot (
  stream_id  bigint      primary key,
  version    integer     not null,
  state      jsonb       not null,
  created_at timestamptz not null default now()
);

-- One idempotency key, written in the start's own append.
create table noetl.start_request (
  key          text        primary key,
  request_hash text        not null,
  execution_id bigint      not null,
  expires_at   timestamptz not null
);
create index idx_start_request_expires on noetl.start_request (expires_at);

-- Projection: what people and programs read about an execution.
create table noetl.execution (
  execution_id        bigint      primary key,
  parent_execution_id bigint,
  path                text        not null,
  playbook_version    integer     not null,
  hash                text        not null,
  status              text        not null
    check (status in ('RUNNING', 'PAUSED', 'COMPLETED', 'FAILED', 'CANCELLED')),
  last_event_type     text        not null,
  last_node_name      text,
  start_time          timestamptz not null,
  end_time            timestamptz,
  state               jsonb       not null default '{}',
  error               jsonb,
  result              jsonb,
  version             integer     not null
) with (fillfactor = 60);
create index idx_execution_parent on noetl.execution (parent_execution_id)
  where parent_execution_id is not null;
create index idx_execution_path on noetl.execution (path, execution_id);
create index idx_execution_status on noetl.execution (status, execution_id);

-- How far each projection shard has read. A writer whose epoch is old changes nothing.
create table noetl.projection_checkpoint (
  shard             integer     primary key,
  tx                xid8        not null,
  event_id          bigint      not null,
  epoch             integer     not null,
  holder            text,
  lease_until       timestamptz not null,
  system_identifier text        not null
);

create table noetl.catalog (
  path       text        not null,
  version    integer     not null,
  hash       text        not null,
  content    text        not null,
  created_at timestamptz not null default now(),
  primary key (path, version)
);

-- Workers: liveness is this row, not a row per command.
create table noetl.runtime (
  worker_id   text        primary key,
  incarnation text        not null unique,
  machine     text        not null,
  pid         integer     not null,
  status      text        not null check (status in ('ready', 'draining', 'gone')),
  capacity    jsonb       not null default '{}',
  started_at  timestamptz not null default now(),
  seen_at     timestamptz not null default now()
) with (fillfactor = 60);

-- The log as readers know it: rows that are not stored are derived from those that are.
-- `part` orders the rows that come from one event.
create view noetl.event_view as
select e.execution_id, e.stream_id, e.version, e.event_id, d.part, d.event_type, e.event_type as stored_as,
       e.node_name, d.status, e.meta, e.context, e.result, e.created_at
from noetl.event e
cross join lateral (
  select 1 as part, 'step.enter' as event_type, 'running' as status
    where e.event_type = 'command.issued' and e.meta->'enter' = 'true'
  union all
  select 2, e.event_type,
    case e.event_type
      when 'command.issued' then 'pending' when 'command.claimed' then 'claimed'
      when 'command.completed' then 'completed' when 'command.failed' then 'failed'
      when 'playbook.completed' then 'completed' when 'playbook.failed' then 'failed'
      else 'recorded' end
  union all
  select 3, 'command.started', 'running' where e.event_type = 'command.claimed'
  union all
  select 4, 'call.done', 'completed' where e.event_type = 'command.completed'
  union all
  select 4, 'call.error', 'failed' where e.event_type = 'command.failed'
  union all
  select 5, 'step.exit', coalesce(e.meta->>'step_status', 'ok')
    where e.event_type in ('command.completed', 'command.failed') and e.meta ? 'next'
  union all
  select 6, 'step.failed', 'failed'
    where e.event_type in ('command.completed', 'command.failed', 'step.exit')
      and e.meta->>'step_status' = 'failed'
  union all
  select 7, 'ctx.updated', 'recorded'
    where e.event_type <> 'ctx.updated' and e.context->'ctx' is not null and e.context->'ctx' <> '{}'
) d;
