/** How long a command waits for its next attempt. */
import { hash } from "node:crypto";
import type { OutcomeResult } from "./events.ts";

/** After the first failed attempt; doubled after each. */
const BACKOFF_MS = 1_000;
const BACKOFF_MS_MAX = 60_000;
const SHARES = 0x1_0000_0000;

/**
 * Between a half and one and a half of 1, 2, 4 … 60 seconds, in milliseconds, and not before the
 * upstream asked for. The jitter is of the command's id: what fails together does not come back
 * together, and who decides twice decides the same.
 */
export function backoffMs(
  { command_id, attempt }: { command_id: string; attempt: number },
  error: OutcomeResult["error"],
): number {
  const base = Math.min(BACKOFF_MS_MAX, BACKOFF_MS * 2 ** (attempt - 1));
  const share = Number.parseInt(hash("sha256", command_id).slice(0, 8), 16) / SHARES;
  return Math.max(Math.round(base * (0.5 + share)), error?.retry_after_ms ?? 0);
}
