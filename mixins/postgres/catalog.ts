// noetl.catalog: playbooks by path and version.
import type { Query } from "./index.ts";

export interface CatalogEntry {
  path: string;
  version: number;
  hash: string;
  content: string;
  created_at: string;
}

/**
 * Adds a version unless the newest has the same hash. Returns the entry's version and whether it is
 * new.
 */
export async function addPlaybook(
  query: Query,
  playbook: { path: string; hash: string; content: string },
): Promise<{ version: number; created: boolean }> {
  const { rows } = await query.query<{ version: number; created: boolean }>(
    `with newest as (
       select version, hash from noetl.catalog where path = $1 order by version desc limit 1
     ), added as (
       insert into noetl.catalog (path, version, hash, content)
       select $1, coalesce((select version from newest), 0) + 1, $2, $3
       where not exists (select 1 from newest where hash = $2)
       on conflict do nothing returning version
     )
     select version, true as created from added
     union all select version, false from newest where hash = $2`,
    [playbook.path, playbook.hash, playbook.content],
  );
  const row = rows[0];
  // A rival took the version number between our read and our insert: it is there now.
  return row ?? addPlaybook(query, playbook);
}

/** A playbook by path: of a version, or the newest. */
export interface CatalogKey {
  path: string;
  version?: number;
}

/** The entries asked for, in that order; undefined where there is none. One read. */
export async function findPlaybooks(
  query: Query,
  keys: CatalogKey[],
): Promise<(CatalogEntry | undefined)[]> {
  const { rows } = await query.query<CatalogEntry & { place: string } & Record<string, unknown>>(
    `select k.place, c.path, c.version, c.hash, c.content, c.created_at
     from rows from (unnest($1::text[]), unnest($2::integer[]))
       with ordinality as k(path, version, place)
     cross join lateral (
       select * from noetl.catalog c
       where c.path = k.path and (k.version is null or c.version = k.version)
       order by c.version desc limit 1
     ) c`,
    [keys.map(key => key.path), keys.map(key => key.version ?? null)],
  );
  const entries: (CatalogEntry | undefined)[] = keys.map(() => undefined);
  for (const { place, ...entry } of rows) entries[Number(place) - 1] = entry;
  return entries;
}

/** One entry; see `findPlaybooks`. */
export async function findPlaybook(
  query: Query,
  path: string,
  version?: number,
): Promise<CatalogEntry | undefined> {
  const [entry] = await findPlaybooks(query, [{ path, version }]);
  return entry;
}

/** The newest version of every path, without contents. */
export async function listPlaybooks(
  query: Query,
  limit: number,
): Promise<Omit<CatalogEntry, "content">[]> {
  const { rows } = await query.query(
    `select distinct on (path) path, version, hash, created_at from noetl.catalog
     order by path, version desc limit $1`,
    [limit],
  );
  return rows as never;
}

/** All known paths, for the nearest one in an error. */
export async function listPaths(query: Query, limit: number): Promise<string[]> {
  const { rows } = await query.query<{ path: string }>(
    "select distinct path from noetl.catalog order by path limit $1",
    [limit],
  );
  return rows.map(row => row.path);
}
