// noetl.capacity: a quota that workers share. Every change locks the quota's row first, so that two
// of them neither overlap nor wait for each other in a circle.
import type { Query } from "./index.ts";

/** A holder's part of a quota. */
export interface QuotaHolder {
  name: string;
  holder: string;
}

/** Makes the quota's row, where there is none. */
export async function openQuota(query: Query, name: string): Promise<void> {
  await query.query("insert into noetl.capacity (name) values ($1) on conflict do nothing", [name]);
}

/**
 * Takes up to `count` of what is free below `limit`, for `leaseMs`; how many it got. One statement:
 * the row's lock is the arbiter, and the sums after `set` are made of the row as it is then.
 */
export async function reserveQuota(
  query: Query,
  { name, holder }: QuotaHolder,
  { count, limit, leaseMs }: { count: number; limit: number; leaseMs: number },
): Promise<number> {
  const { rows } = await query.query<{ got: number }>(
    `with taken as (
       update noetl.capacity
       set used = used + least($3::integer, $4::integer - used),
           changed = least($3::integer, $4::integer - used)
       where name = $1 and used < $4::integer returning changed
     )
     insert into noetl.capacity_lease (name, holder, count, expires_at)
     select $1, $2, changed, now() + make_interval(secs => $5::double precision / 1000) from taken
     on conflict (name, holder) do update
       set count = noetl.capacity_lease.count + excluded.count, expires_at = excluded.expires_at
     returning (select changed from taken) as got`,
    [name, holder, count, limit, leaseMs],
  );
  return rows[0]?.got ?? 0;
}

/** Gives back up to `count` of what the holder's lease still has. */
export async function releaseQuota(
  query: Query,
  { name, holder }: QuotaHolder,
  count: number,
): Promise<void> {
  await query.query(
    `with head as materialized (
       select name from noetl.capacity where name = $1 for update
     ), given as (
       update noetl.capacity_lease
       set count = count - least(count, $3::integer), changed = least(count, $3::integer)
       where name = (select name from head) and holder = $2 returning changed
     )
     update noetl.capacity set used = used - (select changed from given)
     where name = $1 and exists (select from given)`,
    [name, holder, count],
  );
}

/** Says that the holder lives; how many its lease still has. */
export async function renewQuota(
  query: Query,
  { name, holder }: QuotaHolder,
  leaseMs: number,
): Promise<number> {
  const { rows } = await query.query<{ count: number }>(
    `update noetl.capacity_lease
     set expires_at = now() + make_interval(secs => $3::double precision / 1000)
     where name = $1 and holder = $2 returning count`,
    [name, holder, leaseMs],
  );
  return rows[0]?.count ?? 0;
}

/** Takes back what the dead hold, once: a lease is gone with what it had. */
export async function expireQuota(query: Query, name: string): Promise<void> {
  await query.query(
    `with head as materialized (
       select name from noetl.capacity where name = $1 for update
     ), dead as (
       delete from noetl.capacity_lease
       where name = (select name from head) and expires_at < now() returning count
     )
     update noetl.capacity set used = used - (select sum(count) from dead)
     where name = $1 and exists (select from dead)`,
    [name],
  );
}

/** How much of it is used; 0 for a quota that nobody has opened. */
export async function readQuota(query: Query, name: string): Promise<number> {
  const { rows } = await query.query<{ used: number }>(
    "select used from noetl.capacity where name = $1",
    [name],
  );
  return rows[0]?.used ?? 0;
}
