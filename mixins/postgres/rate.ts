// noetl.rate_limit and noetl.rate_bucket: limits as operators set them, and the buckets that all
// workers share.
import type { Limit } from "../../schemas/rate-limit.ts";
import type { Query } from "./index.ts";

/** A wish for turns in one bucket. */
export interface Lease {
  bucket: string;
  wanted: number;
  /** Between two turns, milliseconds. */
  intervalMs: number;
  /** Turns that may come at once after a silence. */
  burst: number;
}

/** `granted` turns, one interval apart; the first is `wait_ms` from now, or when negative was. */
export interface Grant {
  granted: number;
  wait_ms: number;
}

/**
 * Each row is locked before the clock is read, so what two processes are granted never overlaps.
 * The formula is `leased` of mixins/rate-limit/buckets.ts.
 */
const LEASE = `
  insert into noetl.rate_bucket as b (bucket, next_ms, granted, wait_ms)
  select w.bucket, t.now_ms + (g.granted - w.burst + 1) * w.interval_ms, g.granted,
         (1 - w.burst) * w.interval_ms
  from unnest($1::text[], $2::integer[], $3::float8[], $4::integer[])
         as w(bucket, wanted, interval_ms, burst),
       lateral (select extract(epoch from clock_timestamp())::float8 * 1000 as now_ms) t,
       lateral (select least(w.wanted, floor($5::float8 / w.interval_ms) + w.burst)::integer
                  as granted) g
  on conflict (bucket) do update set (next_ms, granted, wait_ms) = (
    select case when g.granted = 0 then b.next_ms else s.start_ms + g.granted * w.interval_ms end,
           g.granted, s.start_ms - t.now_ms
    from unnest($1::text[], $2::integer[], $3::float8[], $4::integer[])
           as w(bucket, wanted, interval_ms, burst),
         lateral (select extract(epoch from clock_timestamp())::float8 * 1000 as now_ms) t,
         lateral (select greatest(b.next_ms, t.now_ms - (w.burst - 1) * w.interval_ms)
                    as start_ms) s,
         lateral (select greatest(0, least(w.wanted,
                    floor((t.now_ms + $5::float8 - s.start_ms) / w.interval_ms) + 1))::integer
                    as granted) g
    where w.bucket = b.bucket)
  returning b.bucket, b.granted, b.wait_ms`;

const PAUSE = `
  insert into noetl.rate_bucket as b (bucket, next_ms, paused_ms)
  select $1, t.now_ms + $2, t.now_ms + $2
  from (select extract(epoch from clock_timestamp())::float8 * 1000 as now_ms) t
  on conflict (bucket) do update set
    next_ms = greatest(b.next_ms, excluded.next_ms),
    paused_ms = greatest(b.paused_ms, excluded.paused_ms)`;

const PAUSED = `
  select bucket, paused_ms - extract(epoch from clock_timestamp())::float8 * 1000 as left_ms
  from noetl.rate_bucket
  where paused_ms > extract(epoch from clock_timestamp())::float8 * 1000
  order by paused_ms desc limit $1`;

const SET = `
  insert into noetl.rate_limit as l (target, per_second, burst, updated_by)
  values ($1, $2, $3, $4)
  on conflict (target) do update set per_second = excluded.per_second, burst = excluded.burst,
    updated_by = excluded.updated_by, updated_at = now()`;

const LIST = `
  select target, per_second, burst, updated_by,
    to_char(updated_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') as updated_at
  from noetl.rate_limit order by target limit $1`;

/** A limit as an operator has set it. */
export interface SetLimit extends Limit {
  /** ISO 8601. */
  updated_at: string;
  updated_by: string | null;
}

/** Takes turns in buckets, each named once; gives them in any order. */
export async function leaseRates(
  query: Query,
  leases: readonly Lease[],
  horizonMs: number,
): Promise<Map<string, Grant>> {
  // Always in the same order: two processes that want the same buckets cannot wait for each other.
  const sorted = [...leases].sort((one, other) => (one.bucket < other.bucket ? -1 : 1));
  const { rows } = await query.query<{ bucket: string; granted: number; wait_ms: number }>(LEASE, [
    sorted.map(one => one.bucket),
    sorted.map(one => one.wanted),
    sorted.map(one => one.intervalMs),
    sorted.map(one => one.burst),
    horizonMs,
  ]);
  return new Map(rows.map(({ bucket, granted, wait_ms }) => [bucket, { granted, wait_ms }]));
}

/** Nobody is granted a turn in this bucket for so long; a longer pause stays. */
export async function pauseRate(query: Query, bucket: string, ms: number): Promise<void> {
  await query.query(PAUSE, [bucket, ms]);
}

/** Buckets that are paused now, and for how much longer. */
export async function pausedRates(query: Query, limit: number): Promise<Map<string, number>> {
  const { rows } = await query.query<{ bucket: string; left_ms: number }>(PAUSED, [limit]);
  return new Map(rows.map(({ bucket, left_ms }) => [bucket, left_ms]));
}

/** Sets or replaces a limit. */
export async function setLimit(query: Query, limit: Limit, by: string | undefined): Promise<void> {
  const { target, rate } = limit;
  await query.query(SET, [target, rate?.per_second ?? null, rate?.burst ?? 1, by ?? null]);
}

/** False when there was none. */
export async function clearLimit(query: Query, target: string): Promise<boolean> {
  const { rowCount } = await query.query("delete from noetl.rate_limit where target = $1", [
    target,
  ]);
  return rowCount > 0;
}

export async function listLimits(query: Query, limit: number): Promise<SetLimit[]> {
  const { rows } = await query.query<{
    target: string;
    per_second: number | null;
    burst: number;
    updated_at: string;
    updated_by: string | null;
  }>(LIST, [limit]);
  return rows.map(({ target, per_second, burst, updated_at, updated_by }) => {
    const rate = per_second === null ? null : { per_second, burst };
    return { target, rate, updated_at, updated_by };
  });
}

/** Forgets buckets that have been full for so long: they hold nothing any more. */
export async function forgetBuckets(query: Query, olderThanSeconds: number): Promise<void> {
  await query.query(
    `delete from noetl.rate_bucket
     where next_ms < (extract(epoch from now())::float8 - $1::float8) * 1000`,
    [olderThanSeconds],
  );
}
