/** Durations as playbooks write them. */

const UNIT_MS: Record<string, number> = {
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
};

/** The longest duration that is accepted: a year. */
export const MAX_DURATION_MS = 365 * 86_400_000;

/**
 * Milliseconds of "500ms", "30s", "5m", "1h", "1d", or of a number of seconds (also as text).
 * undefined when it is none of these, not above zero, or above MAX_DURATION_MS.
 */
export function durationMs(value: unknown): number | undefined {
  if (typeof value !== "number" && typeof value !== "string") return undefined;
  const parts = /^(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?$/.exec(String(value).trim().toLowerCase());
  if (!parts) return undefined;
  const ms = Math.round(Number(parts[1]) * UNIT_MS[parts[2] ?? "s"]!);
  return ms > 0 && ms <= MAX_DURATION_MS ? ms : undefined;
}
