// noetl.credential: sealed credentials by name. Nothing here can open them.
import type { Query } from "./index.ts";

/** What may be shown. Times are ISO 8601. */
export interface CredentialSummary {
  name: string;
  type: string;
  key_id: string;
  created_at: string;
  updated_at: string;
}

export interface SealedCredential extends CredentialSummary {
  data: Buffer;
}

const SAVE = `
  insert into noetl.credential (name, type, data, key_id) values ($1, $2, $3, $4)
  on conflict (name) do update
    set type = excluded.type, data = excluded.data, key_id = excluded.key_id, updated_at = now()
  returning name, type, key_id,
    to_char(created_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') as created_at,
    to_char(updated_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') as updated_at`;

const FIND = `
  select name, type, key_id, data,
    to_char(created_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') as created_at,
    to_char(updated_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') as updated_at
  from noetl.credential where name = $1`;

const LIST = `
  select name, type, key_id,
    to_char(created_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') as created_at,
    to_char(updated_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') as updated_at
  from noetl.credential order by name limit $1`;

const REMOVE = "delete from noetl.credential where name = $1";

/** Adds a credential or replaces the one of that name. */
export async function saveCredential(
  query: Query,
  sealed: { name: string; type: string; data: Buffer; key_id: string },
): Promise<CredentialSummary> {
  const values = [sealed.name, sealed.type, sealed.data, sealed.key_id];
  const { rows } = await query.query(SAVE, values);
  return rows[0] as unknown as CredentialSummary;
}

export async function findCredential(
  query: Query,
  name: string,
): Promise<SealedCredential | undefined> {
  const { rows } = await query.query(FIND, [name]);
  return rows[0] as unknown as SealedCredential | undefined;
}

/** By name, at most `limit`. */
export async function listCredentials(query: Query, limit: number): Promise<CredentialSummary[]> {
  const { rows } = await query.query(LIST, [limit]);
  return rows as unknown as CredentialSummary[];
}

/** Whether there was one. */
export async function removeCredential(query: Query, name: string): Promise<boolean> {
  return (await query.query(REMOVE, [name])).rowCount > 0;
}
