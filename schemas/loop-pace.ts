/**
 * How fast a loop goes and when it will be done, from a few marks that its row keeps: over the last
 * seconds while items are quick, over the last few items while they are slow. It costs the same at
 * any n.
 */

/** When, in milliseconds since 1970, and how many items had ended by then. */
export type PaceMark = [at: number, ended: number];

/** Marks are this far apart at least, and the oldest of these is where the rate is counted from. */
const MARK_MS = 2_000;
const MARKS_MAX = 6;
/** Over less than this a rate would be chance. */
const SPAN_MS_MIN = 1_000;

export interface Pace {
  /** Items that end in a second; null until it can be said. */
  rate_per_second: number | null;
  /** null until it can be said, and where nothing is left to do. */
  eta_seconds: number | null;
}

/** The marks of a loop that begins. */
export function firstMarks(at: number): PaceMark[] {
  return [[at, 0]];
}

/** The marks after items have ended. */
export function marked(marks: PaceMark[] | undefined, at: number, ended: number): PaceMark[] {
  // A row of an older build has none.
  if (!marks || marks.length === 0) return [[at, ended]];
  const [last] = marks.at(-1) as PaceMark;
  return at - last < MARK_MS ? marks : [...marks, [at, ended] as PaceMark].slice(-MARKS_MAX);
}

/** A loop that has ended has the rate of its whole life. */
export function paceOf(
  loop: {
    total: number;
    done: number;
    failed: number;
    started_at: number;
    ended_at?: number;
    marks?: PaceMark[];
  },
  now: number,
): Pace {
  const { total, done, failed, started_at, ended_at, marks } = loop;
  const ended = done + failed;
  if (ended_at !== undefined) {
    const span = Math.max(1, ended_at - started_at);
    return { rate_per_second: rounded((ended * 1_000) / span), eta_seconds: null };
  }
  const [since, before] = marks?.[0] ?? [now, ended];
  if (now - since < SPAN_MS_MIN || ended === before) {
    return { rate_per_second: null, eta_seconds: null };
  }
  const rate = ((ended - before) * 1_000) / (now - since);
  const left = total - ended;
  return { rate_per_second: rounded(rate), eta_seconds: left > 0 ? Math.ceil(left / rate) : null };
}

/** Three digits say all there is to say. */
function rounded(rate: number): number {
  return Number(rate.toPrecision(3));
}
