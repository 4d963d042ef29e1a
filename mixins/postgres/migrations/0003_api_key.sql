-- Keys of the HTTP API. Only the sha256 of a key is kept: 32 random bytes need no slow hash, and a copy of this
-- table opens nothing. A revoked key keeps its row: events name who asked, and a name means one key for ever.
create table noetl.api_key (
  name         text        primary key,
  role         text        not null check (role in ('admin', 'operator', 'viewer', 'worker')),
  key_hash     bytea       not null unique check (octet_length(key_hash) = 32),
  created_at   timestamptz not null default now(),
  -- The key that asked for this one; null when it was made beside the API.
  created_by   text,
  -- Written at most once a minute.
  last_used_at timestamptz,
  revoked_at   timestamptz
);
