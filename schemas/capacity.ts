/** How much more may start under a limit that somebody else keeps. */

export interface Snapshot {
  /** As the target counts, before the ratio; absent where it only says what is free. */
  limit?: number;
  used?: number;
  /** Items that may still start. Infinity: as many as one likes. */
  free: number;
  /** Why there is none, when that needs words. */
  reason?: string;
}

/** A limit that makes no sense: to be corrected by whoever set it, not waited for. */
export class BadLimit extends Error {}

/**
 * How many may run under a limit: a part of it, and one at least. Throws BadLimit for a limit of
 * nothing and for what is no number.
 */
export function usable(limit: number, ratio: number): number {
  if (!Number.isFinite(limit) || limit <= 0)
    throw new BadLimit(`a limit of ${limit} admits nobody`);
  return Math.max(1, Math.floor(limit * ratio));
}

/** What is free under a limit of which a part is used. Throws BadLimit. */
export function freeOf({ limit, used }: { limit: number; used: number }, ratio: number): Snapshot {
  if (!Number.isFinite(used) || used < 0) throw new BadLimit(`${used} in use makes no sense`);
  return { limit, used, free: Math.max(0, usable(limit, ratio) - used) };
}
