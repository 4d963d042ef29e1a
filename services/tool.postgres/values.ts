/** Values both ways: Postgres text to JSON by type, JSON to parameters. Pure. */
import { isObject, parseJson } from "../../schemas/json.ts";
import type { Json } from "../../schemas/json.ts";

type Parser = (text: string) => Json;

const TEXT: Parser = text => text;
const JSON_PARSER: Parser = text => parseJson(text);

/** By type oid (src/include/catalog/pg_type.dat); every other type stays text. */
const SCALARS: Record<number, Parser> = {
  16: text => text === "t", // bool
  20: integer, // int8
  21: integer, // int2
  23: integer, // int4
  26: integer, // oid
  700: float, // float4
  701: float, // float8
  1700: numeric, // numeric
  114: JSON_PARSER, // json
  3802: JSON_PARSER, // jsonb
  1114: isoTime, // timestamp
  1184: isoTime, // timestamptz
  1266: isoZone, // timetz
};

/** Array type oid to the oid of its elements. */
const ARRAYS: Record<number, number> = {
  1000: 16,
  1016: 20,
  1005: 21,
  1007: 23,
  1028: 26,
  1021: 700,
  1022: 701,
  1231: 1700,
  199: 114,
  3807: 3802,
  1115: 1114,
  1185: 1184,
  1270: 1266,
  // Arrays whose elements stay text: bytea, char, name, text, bpchar, varchar, date, time,
  // interval, uuid, inet, cidr, macaddr.
  1001: 17,
  1002: 18,
  1003: 19,
  1009: 25,
  1014: 1042,
  1015: 1043,
  1182: 1082,
  1183: 1083,
  1187: 1186,
  2951: 2950,
  1041: 869,
  651: 650,
  1040: 829,
};

/**
 * The parser of a type. Integers and numerics are numbers when exact, else text; NaN and the
 * infinities are text, for JSON has none; timestamps are ISO 8601; bytea is `\x…` hex; arrays are
 * lists.
 */
export function parserOf(oid: number): Parser {
  const element = ARRAYS[oid];
  if (element === undefined) return SCALARS[oid] ?? TEXT;
  const parse = SCALARS[element] ?? TEXT;
  return text => parseArray(text, parse);
}

function integer(text: string): Json {
  const value = Number(text);
  return Number.isSafeInteger(value) ? value : text;
}

function float(text: string): Json {
  const value = Number(text);
  return Number.isFinite(value) ? value : text;
}

/** 15 significant digits survive a double both ways (IEEE 754 DBL_DIG). */
const EXACT_DIGITS = 15;

function numeric(text: string): Json {
  const trimmed = text.includes(".") ? text.replace(/\.?0+$/, "") : text;
  const digits = trimmed.replace(/^-?[0.]*/, "").replace(".", "");
  const value = Number(trimmed);
  if (!Number.isFinite(value)) return text;
  return digits.length <= EXACT_DIGITS || Number.isSafeInteger(value) ? value : text;
}

/** `2024-01-02 03:04:05+00` → `2024-01-02T03:04:05+00:00`; other date styles and infinity stay. */
function isoTime(text: string): Json {
  if (!/^\d{4,}-\d\d-\d\d \d\d:/.test(text)) return text;
  return isoZone(text.replace(" ", "T"));
}

function isoZone(text: string): string {
  return text.replace(/([+-]\d\d)$/, "$1:00");
}

/** Array output syntax: https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO. */
export function parseArray(text: string, parse: Parser): Json {
  // Arrays that do not start at 1 carry their bounds: [0:2]={…}.
  const open = text.startsWith("[") ? text.indexOf("=") + 1 : 0;
  const cursor = { text, at: open };
  return text[open] === "{" ? readList(cursor, parse) : text;
}

function readList(cursor: { text: string; at: number }, parse: Parser): Json[] {
  const { text } = cursor;
  const items: Json[] = [];
  cursor.at += 1;
  while (cursor.at < text.length) {
    const char = text[cursor.at];
    if (char === "}") {
      cursor.at += 1;
      return items;
    }
    if (char === ",") cursor.at += 1;
    else if (char === "{") items.push(readList(cursor, parse));
    else if (char === '"') items.push(parse(readQuoted(cursor)));
    else {
      const bare = readBare(cursor);
      items.push(bare === "NULL" ? null : parse(bare));
    }
  }
  return items;
}

function readQuoted(cursor: { text: string; at: number }): string {
  let value = "";
  for (cursor.at += 1; cursor.at < cursor.text.length; cursor.at++) {
    const char = cursor.text[cursor.at] as string;
    if (char === '"') break;
    if (char === "\\") cursor.at += 1;
    value += cursor.text[cursor.at] ?? "";
  }
  cursor.at += 1;
  return value;
}

function readBare(cursor: { text: string; at: number }): string {
  const start = cursor.at;
  while (cursor.at < cursor.text.length && !",}".includes(cursor.text[cursor.at] as string)) {
    cursor.at += 1;
  }
  return cursor.text.slice(start, cursor.at);
}

/**
 * A parameter as the driver takes it: maps, and lists with a map anywhere in them, become JSON;
 * lists of scalars become Postgres arrays. An empty list is an empty array.
 */
export function toParameter(value: unknown): unknown {
  if (value === undefined || value === null) return null;
  if (Array.isArray(value)) return hasMap(value) ? JSON.stringify(value) : value;
  return isObject(value) ? JSON.stringify(value) : value;
}

function hasMap(list: unknown[]): boolean {
  return list.some(item => (Array.isArray(item) ? hasMap(item) : isObject(item)));
}
