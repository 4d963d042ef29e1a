-- Values too large for a row of the log, kept in the database itself: the tier that every part can read
-- without a shared folder or an object store.
create table noetl.result_value (
  key          text        primary key,
  -- Of the run that made it: retention removes a run's values with its facts.
  execution_id bigint      not null,
  bytes        bytea       not null,
  created_at   timestamptz not null default now()
);
create index idx_result_value_execution on noetl.result_value (execution_id);
-- The values are JSON: compress them with the quicker of the two methods.
alter table noetl.result_value alter column bytes set storage extended;
