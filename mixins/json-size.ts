// How large JSON is: for messages that have a limit, and for queues that are bounded in bytes.
import { Rejected } from "../schemas/errors.ts";

/**
 * Levels of nesting. Twice of this overflows the stack of a serializer, and a little more that of
 * Postgres.
 */
export const JSON_DEPTH_MAX = 2_000;
/**
 * One message between nodes. NATS takes 1 MB by default, and the envelope and what is beside these
 * items needs room too.
 */
export const MESSAGE_BYTES_MAX = 524_288;

/** Bytes of a value as JSON. Throws Rejected 422 for what is no JSON or is nested too deeply. */
export function jsonBytes(value: unknown): number {
  const text = stringify(value);
  // So many levels need so many brackets: short texts need no second look.
  const isDeep = text.length > 2 * JSON_DEPTH_MAX && isDeeper(value, JSON_DEPTH_MAX);
  if (isDeep) throw tooDeep();
  return Buffer.byteLength(text);
}

function stringify(value: unknown): string {
  try {
    return JSON.stringify(value) ?? "";
  } catch (error) {
    if (error instanceof RangeError) throw tooDeep();
    throw new Rejected(`this is not JSON: ${(error as Error).message}`, 422, {
      reason: "malformed",
    });
  }
}

function tooDeep(): Rejected {
  return new Rejected(`JSON that is nested more than ${JSON_DEPTH_MAX} levels is refused`, 422, {
    reason: "malformed",
  });
}

function isDeeper(value: unknown, levels: number): boolean {
  if (typeof value !== "object" || value === null) return false;
  if (levels === 0) return true;
  for (const inner of Object.values(value)) if (isDeeper(inner, levels - 1)) return true;
  return false;
}

/**
 * Items in groups whose JSON has at most `bytesMax` bytes and `countMax` items, in order. An item
 * that is larger by itself is alone in its group: it is its reader who has to refuse it.
 */
export function splitBySize<Item>(
  items: readonly Item[],
  bytesMax = MESSAGE_BYTES_MAX,
  countMax = Infinity,
  sizeOf: (item: Item) => number = jsonSize,
): Item[][] {
  const groups: Item[][] = [];
  let group: Item[] = [];
  let bytes = 0;
  for (const item of items) {
    // With its comma.
    const size = sizeOf(item) + 1;
    if (group.length > 0 && (bytes + size > bytesMax || group.length >= countMax)) {
      groups.push(group);
      group = [];
      bytes = 0;
    }
    group.push(item);
    bytes += size;
  }
  if (group.length > 0) groups.push(group);
  return groups;
}

/** As `jsonBytes`; infinite for what cannot be measured, which cannot be sent either. */
export function jsonSize(value: unknown): number {
  try {
    return jsonBytes(value);
  } catch {
    return Infinity;
  }
}
