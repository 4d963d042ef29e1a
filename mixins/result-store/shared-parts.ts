/**
 * JSON for values whose parts occur more than once: a pipeline's result has each task's result by
 * its label, in `results`, as `_prev` and field by field. Each part is written once.
 *
 *     {"noetl:shared": [part, …], "value": …}     with {"noetl:at": n} where part n belongs
 *
 * A value without such parts is its own JSON, so what was stored before can still be read.
 */
import { isObject, type Json } from "../../schemas/json.ts";

const SHARED = "noetl:shared";
const AT = "noetl:at";
/** Characters of a text that is worth a part. */
const LONG = 256;

/**
 * The value as text. Parts are the same when they are one object in memory, or the same long text.
 */
export function stringify(value: Json): string {
  const found = findShared(value);
  if (found.hasMark) return JSON.stringify({ [SHARED]: [], value });
  if (found.shared.size === 0) return JSON.stringify(value);
  const places = new Map([...found.shared].map((part, index) => [part, index]));

  function write(root: Json): string {
    return JSON.stringify(root, (_key, member: Json) => {
      const at = mayRepeat(member) && member !== root ? places.get(member) : undefined;
      return at === undefined ? member : { [AT]: at };
    });
  }

  const parts = [...places.keys()].map(write).join(",");
  return `{"${SHARED}":[${parts}],"value":${write(value)}}`;
}

/** The value behind a text of `stringify`; its parts are one object again. */
export function parse(text: string): Json {
  const read = JSON.parse(text) as Json;
  if (!isObject(read) || !Array.isArray(read[SHARED])) return read;
  const parts = read[SHARED];
  const value = read["value"] ?? null;
  if (parts.length === 0) return value;
  const placed = new Set<number>();

  function part(at: number): Json {
    if (!placed.has(at)) {
      placed.add(at);
      parts[at] = restored(parts[at] as Json);
    }
    return parts[at] as Json;
  }

  function restored(from: Json): Json {
    if (typeof from !== "object" || from === null) return from;
    if (Array.isArray(from)) {
      from.forEach((member, index) => (from[index] = restored(member)));
      return from;
    }
    if (typeof from[AT] === "number") return part(from[AT]);
    for (const [key, member] of Object.entries(from)) from[key] = restored(member);
    return from;
  }

  return restored(value);
}

function mayRepeat(value: Json): boolean {
  return typeof value === "string" ? value.length >= LONG : typeof value === "object";
}

/** Objects and long texts met more than once, and whether the value itself uses our words. */
function findShared(value: Json): { shared: Set<Json>; hasMark: boolean } {
  const seen = new Set<Json>();
  const shared = new Set<Json>();
  let hasMark = isObject(value) && Object.hasOwn(value, SHARED);
  const left: Json[] = [value];
  for (let one = left.pop(); one !== undefined; one = left.pop()) {
    if (one === null || !mayRepeat(one)) continue;
    if (seen.has(one)) {
      shared.add(one);
      continue;
    }
    seen.add(one);
    if (typeof one !== "object") continue;
    if (!Array.isArray(one) && Object.hasOwn(one, AT)) hasMark = true;
    for (const member of Object.values(one)) {
      if (mayRepeat(member)) left.push(member);
    }
  }
  return { shared, hasMark };
}
