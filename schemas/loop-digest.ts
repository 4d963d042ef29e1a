/**
 * The digest of a loop: a sum that the order of acceptance does not change, and that SQL recomputes
 * from the log alone (`noetl.verify_execution`). Of an accepted item it is the first 16 bytes of
 *
 *     sha256("{index}:{attempt}:{ok|failed}:{sha256 of the stored result, as hex}")
 *
 * as one number of 128 bits; of a loop the sum of its items' mod 2^128, as 32 hex digits. The
 * stored result is the `result` of the fact that accepted the item, as Postgres prints it
 * (`schemas/jsonb-text.ts`): with the status, the value or the reference to it with its sha256, and
 * the error. The items of one report of a frame share one stored result.
 */
import { hash } from "node:crypto";
import type { OutcomeResult } from "./events.ts";
import { jsonbText } from "./jsonb-text.ts";

const DIGITS = 32;
const MODULUS = 1n << 128n;

/** What a report accepts: indexes that succeeded and that failed, under one stored result. */
export interface Accepted {
  attempt: number;
  result: OutcomeResult;
  ok: readonly number[];
  failed: readonly number[];
}

/** The digest of the items that one fact accepts. */
export function digestOf({ attempt, result, ok, failed }: Accepted): bigint {
  const stored = hash("sha256", jsonbText(result));
  let sum = 0n;
  for (const index of ok) sum += itemDigest(`${index}:${attempt}:ok:${stored}`);
  for (const index of failed) sum += itemDigest(`${index}:${attempt}:failed:${stored}`);
  return sum % MODULUS;
}

function itemDigest(text: string): bigint {
  return BigInt(`0x${hash("sha256", text).slice(0, DIGITS)}`);
}

/** Undefined as soon as one part is: an item that an older build accepted has none. */
export function plus(one: bigint | undefined, other: bigint | undefined): bigint | undefined {
  return one === undefined || other === undefined ? undefined : (one + other) % MODULUS;
}

/** As it stands in events and snapshots. */
export function digestText(digest: bigint): string {
  return digest.toString(16).padStart(DIGITS, "0");
}

/** Undefined for anything that is not such a text. */
export function parseDigest(text: string | undefined): bigint | undefined {
  return text !== undefined && /^[0-9a-f]{32}$/.test(text) ? BigInt(`0x${text}`) : undefined;
}
