-- Steps whose commands wait because no known worker offers what they require. A note for people,
-- renewed while it is so, and never read by a decision.
create table noetl.unserved (
  execution_id bigint not null,
  step text not null,
  requires text[] not null,
  seen_at timestamptz not null default now(),
  primary key (execution_id, step)
);
