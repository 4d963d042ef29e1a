/**
 * A JSON value as Postgres prints the jsonb it becomes (`value::text`), so that what was hashed
 * here can be hashed again by SQL from the table alone. Rules of jsonb: of equal keys the last,
 * keys by their length in UTF-8 bytes and then byte by byte, ": " and ", " between, numbers without
 * an exponent. Rules of `mixins/postgres/encode.ts`: NUL and lone surrogates are U+FFFD.
 */
export function jsonbText(value: unknown): string {
  switch (typeof value) {
    case "string":
      return quoted(value);
    case "number":
      return numberText(value);
    case "boolean":
      return value ? "true" : "false";
    case "object":
      return value === null ? "null" : Array.isArray(value) ? listText(value) : mapText(value);
    default:
      // What JSON does not have: in a list it is null, in a map it is left out.
      return "null";
  }
}

function listText(list: unknown[]): string {
  let text = "[";
  for (let at = 0; at < list.length; at += 1) text += (at > 0 ? ", " : "") + jsonbText(list[at]);
  return `${text}]`;
}

function mapText(map: object): string {
  const own = (map as { toJSON?: unknown }).toJSON;
  if (typeof own === "function") return jsonbText(own.call(map));
  const members = membersOf(map as Record<string, unknown>);
  let text = "{";
  for (const { key, value } of members.length > 1 ? members.sort(byKey) : members) {
    text += (text.length > 1 ? ", " : "") + key.text + jsonbText(value);
  }
  return `${text}}`;
}

interface Member {
  key: Key;
  value: unknown;
}

function membersOf(map: Record<string, unknown>): Member[] {
  const members: Member[] = [];
  let isClean = true;
  for (const name of Object.keys(map)) {
    const value = map[name];
    if (value === undefined || typeof value === "function" || typeof value === "symbol") continue;
    const key = keyOf(name);
    isClean &&= key.name === name;
    members.push({ key, value });
  }
  // The last of those that are stored under one name stays.
  return isClean ? members : [...new Map(members.map(one => [one.key.name, one])).values()];
}

/** A key of a map as it is stored and printed. */
interface Key {
  name: string;
  bytes: number;
  text: string;
}

/** The same few keys come again and again. */
const KEYS_MAX = 10_000;
const keys = new Map<string, Key>();

function keyOf(given: string): Key {
  const known = keys.get(given);
  if (known) return known;
  const name = storable(given);
  const key = { name, bytes: Buffer.byteLength(name), text: `${JSON.stringify(name)}: ` };
  if (keys.size >= KEYS_MAX) keys.clear();
  keys.set(given, key);
  return key;
}

function byKey({ key: one }: Member, { key: other }: Member): number {
  if (one.bytes !== other.bytes) return one.bytes - other.bytes;
  // Without characters of several bytes, code units are bytes.
  const isPlain = one.bytes === one.name.length && other.bytes === other.name.length;
  if (isPlain) return one.name < other.name ? -1 : 1;
  return Buffer.compare(Buffer.from(one.name), Buffer.from(other.name));
}

/** Only what cannot be stored as it is, and control characters, are escaped with a u. */
function quoted(text: string): string {
  const json = JSON.stringify(text);
  return json.includes("\\u") ? JSON.stringify(storable(text)) : json;
}

function storable(text: string): string {
  return text.toWellFormed().replaceAll("\0", "\ufffd");
}

/** Numbers are stored as decimals, however JavaScript writes them. */
function numberText(value: number): string {
  if (!Number.isFinite(value)) return "null";
  const text = String(value);
  const match = /^(-?)(\d)(?:\.(\d+))?e([+-]\d+)$/.exec(text);
  if (!match) return text;
  const [, sign = "", first = "", rest = "", power = "0"] = match;
  const places = Number(power);
  const digits = first + rest;
  if (places < 0) return `${sign}0.${"0".repeat(-places - 1)}${digits}`;
  return sign + digits.padEnd(places + 1, "0");
}
