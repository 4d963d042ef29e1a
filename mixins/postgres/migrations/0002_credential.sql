-- Credentials of users. data is AES-256-GCM: a version byte, the nonce, the tag, the ciphertext; the name is
-- authenticated with it, so that a row copied to another name does not open. The key is never here.
create table noetl.credential (
  name       text        primary key,
  type       text        not null,
  data       bytea       not null,
  -- Which key sealed it: a digest, so that a wrong key is told from a damaged row.
  key_id     text        not null,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);
