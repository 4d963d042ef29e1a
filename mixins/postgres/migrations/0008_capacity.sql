-- A quota that workers share, kept exactly: what is used of it, and who has how much of that.
create table noetl.capacity (
  name text primary key,
  used integer not null default 0 check (used >= 0),
  -- Of the last change, so that the statement that made it can tell how much it was.
  changed integer not null default 0
);

-- One row a worker. What its holder does not renew in time, whoever finds the quota full takes back.
create table noetl.capacity_lease (
  name text not null,
  holder text not null,
  count integer not null default 0 check (count >= 0),
  changed integer not null default 0,
  expires_at timestamptz not null,
  primary key (name, holder)
);
