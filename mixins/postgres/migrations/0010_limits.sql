-- Rate limits that an operator sets while everything runs. Each process reads them again within seconds.
create table noetl.rate_limit (
  -- As schemas/rate-limit.ts writes it: http:host:api.example.com
  target     text             primary key,
  -- Null exempts the target from wider limits.
  per_second double precision check (per_second > 0),
  burst      integer          not null check (burst > 0),
  updated_at timestamptz      not null default now(),
  updated_by text
);

-- What all workers share: when the next call of a bucket may begin, in milliseconds since 1970 by this server's
-- clock. Unlogged: no fsync for a lease. A crash of the server empties it, which forgets a pause and costs an upstream
-- one burst at most. The last three columns are the answer to the last lease: an upsert returns new values only.
create unlogged table noetl.rate_bucket (
  bucket       text             primary key,
  next_ms      double precision not null,
  -- An upstream has asked everybody to wait until then.
  paused_ms    double precision not null default 0,
  granted      integer          not null default 0,
  wait_ms      double precision not null default 0
) with (fillfactor = 50, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);
