// noetl.api_key: keys of the HTTP API by name. Only digests of keys come here.
import type { ApiRole } from "../../schemas/access.ts";
import type { Query } from "./index.ts";

/** What may be shown of a key. Times are ISO 8601; null is not yet. */
export interface ApiKeyRow {
  name: string;
  role: ApiRole;
  created_at: string;
  created_by: string | null;
  last_used_at: string | null;
  revoked_at: string | null;
}

export interface KnownKey {
  /** Sha256 of the key, as hex. */
  key_hash: string;
  name: string;
  role: ApiRole;
}

const ADD = `
  insert into noetl.api_key (name, role, key_hash, created_by)
  values ($1, $2, decode($3, 'hex'), $4)`;

// The time of use is written once a minute; a rival that writes it just now is not waited for.
const FIND = `
  with used as (
    update noetl.api_key set last_used_at = now()
    where name in (
      select name from noetl.api_key
      where key_hash = any(array(select decode(h, 'hex') from unnest($1::text[]) h))
        and revoked_at is null
        and (last_used_at is null or last_used_at < now() - interval '1 minute')
      for update skip locked
    )
  )
  select encode(key_hash, 'hex') as key_hash, name, role from noetl.api_key
  where key_hash = any(array(select decode(h, 'hex') from unnest($1::text[]) h))
    and revoked_at is null`;

const LIST = `
  select name, role, created_by,
    to_char(created_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') as created_at,
    to_char(last_used_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') as last_used_at,
    to_char(revoked_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') as revoked_at
  from noetl.api_key order by api_key.revoked_at nulls first, name limit $1`;

const REVOKE = `
  update noetl.api_key set revoked_at = coalesce(revoked_at, now()) where name = $1
  returning to_char(revoked_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') as revoked_at`;

/** Adds a key. Fails with 23505 when the name is taken, by a revoked key too. */
export async function addApiKey(
  query: Query,
  key: KnownKey & { created_by: string | undefined },
): Promise<void> {
  await query.query(ADD, [key.name, key.role, key.key_hash, key.created_by ?? null]);
}

/** Those of these digests that belong to a key which is not revoked; one read. */
export async function findApiKeys(query: Query, hashes: string[]): Promise<KnownKey[]> {
  return (await query.query(FIND, [hashes])).rows as unknown as KnownKey[];
}

/** Good keys first, by name, at most `limit`. */
export async function listApiKeys(query: Query, limit: number): Promise<ApiKeyRow[]> {
  return (await query.query(LIST, [limit])).rows as unknown as ApiKeyRow[];
}

/** When the key was revoked, now or before; undefined when there is none of that name. */
export async function revokeApiKey(query: Query, name: string): Promise<string | undefined> {
  const { rows } = await query.query<{ revoked_at: string }>(REVOKE, [name]);
  return rows[0]?.revoked_at;
}
