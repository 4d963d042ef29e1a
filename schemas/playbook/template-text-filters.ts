/** Filters on single values and texts: Jinja's, with the differences of the playbook language. */
import { createHash } from "node:crypto";
import { Problem } from "./template-error.ts";
import { fits, itemsOf, kindOf, mapOf, member, toJson, toText, truthy } from "./template-values.ts";
import type { Run } from "./template-values.ts";
import { View, unwrap } from "./view.ts";

/** A filter: parameters by position or name. `raw` filters see Views, the others plain values. */
export interface FilterSpec {
  params: string[];
  required?: number;
  raw?: boolean;
  call(value: unknown, args: unknown[], run: Run): unknown;
}

/** A parameter as an integer. */
export function integerArg(value: unknown, fallback: number, name: string): number {
  if (value === undefined || value === null) return fallback;
  if (typeof value !== "number" || !Number.isInteger(value)) {
    throw new Problem(`${name} wants an integer, not ${kindOf(value)}`);
  }
  return value;
}

/** Integer of anything: garbage is the fallback, digits beyond 2^53 stay exact. */
export function toInteger(value: unknown, fallback: unknown, base = 10): unknown {
  if (typeof value === "boolean") return Number(value);
  if (typeof value === "bigint") return value;
  if (typeof value === "number") return Number.isFinite(value) ? Math.trunc(value) : fallback;
  if (typeof value !== "string") return fallback;
  const text = value.trim().replace(/(?<=\d)_(?=\d)/g, "");
  if (base !== 10) return otherBase(text, base, fallback);
  if (/^[+-]?\d+$/.test(text)) {
    const parsed = Number(text);
    return Number.isSafeInteger(parsed) ? parsed + 0 : BigInt(text.replace("+", ""));
  }
  const parsed = toFloat(text, undefined);
  return typeof parsed === "number" ? Math.trunc(parsed) : fallback;
}

function otherBase(text: string, base: number, fallback: unknown): unknown {
  if (base < 2 || base > 36) throw new Problem("int wants a base from 2 to 36");
  const digits = text.toLowerCase().replace(/^([+-]?)0[xbo]/, "$1");
  const allowed = "0123456789abcdefghijklmnopqrstuvwxyz".slice(0, base);
  const bare = digits.replace(/^[+-]/, "");
  if (bare === "" || [...bare].some(digit => !allowed.includes(digit))) return fallback;
  return Number.parseInt(digits, base);
}

function toFloat(value: unknown, fallback: unknown): unknown {
  if (typeof value === "number") return value;
  if (typeof value === "boolean" || typeof value === "bigint") return Number(value);
  if (typeof value !== "string") return fallback;
  const text = value.trim();
  if (!/^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text)) return fallback;
  const parsed = Number(text);
  return Number.isFinite(parsed) ? parsed : fallback;
}

/** Replaces every occurrence, or the first `count`; the size is checked before the text is made. */
export function replaceText(value: unknown, args: unknown[]): string {
  const [text, from, to] = [toText(value), toText(args[0]), toText(args[1])];
  if (from !== "" && !text.includes(from)) return text;
  const found = from === "" ? text.length + 1 : text.split(from).length - 1;
  const wanted =
    args[2] === undefined || args[2] === null ? -1 : integerArg(args[2], -1, "replace");
  const count = wanted < 0 ? found : Math.min(found, wanted);
  fits(text.length + count * (to.length - from.length));
  if (count === found) return text.replaceAll(from, () => to);
  let left = count;
  return text.replaceAll(from, match => (left-- > 0 ? to : match));
}

/** Splits at a separator, or at blanks without one; at most `limit` cuts. */
export function splitText(value: unknown, args: unknown[]): string[] {
  const text = toText(value);
  const limit = integerArg(args[1], -1, "split");
  if (args[0] === undefined || args[0] === null) {
    const words = text.split(/\s+/).filter(word => word !== "");
    return limit < 0 || words.length <= limit ? words : splitBlanks(text, limit);
  }
  const separator = toText(args[0]);
  if (separator === "") throw new Problem("split wants a separator that is not empty");
  const parts = text.split(separator);
  if (limit < 0 || parts.length <= limit) return parts;
  return [...parts.slice(0, limit), parts.slice(limit).join(separator)];
}

function splitBlanks(text: string, limit: number): string[] {
  const words: string[] = [];
  let rest = text.trimStart();
  while (words.length < limit) {
    const at = rest.search(/\s/);
    if (at < 0) break;
    words.push(rest.slice(0, at));
    rest = rest.slice(at).trimStart();
  }
  return rest === "" ? words : [...words, rest];
}

/** Strips blanks, or any of the given characters, from the chosen sides. */
export function strip(value: unknown, chars: unknown, sides: "both" | "left" | "right"): string {
  const text = toText(value);
  const set = chars === undefined || chars === null ? undefined : new Set(toText(chars));
  const drop = (char: string | undefined) =>
    char !== undefined && (set ? set.has(char) : char.trim() === "");
  let [start, end] = [0, text.length];
  if (sides !== "right") while (start < end && drop(text[start])) start++;
  if (sides !== "left") while (end > start && drop(text[end - 1])) end--;
  return text.slice(start, end);
}

export function capitalize(value: unknown): string {
  const text = toText(value);
  return text.slice(0, 1).toUpperCase() + text.slice(1).toLowerCase();
}

export function titleCase(value: unknown): string {
  return toText(value).replace(/[^\s\-([{<]+/g, word => capitalize(word));
}

function round(value: unknown, args: unknown[]): number {
  if (typeof value !== "number") throw new Problem(`round wants a number, not ${kindOf(value)}`);
  const precision = integerArg(args[0], 0, "round");
  const method = args[1] ?? "common";
  const factor = 10 ** Math.max(-15, Math.min(15, precision));
  const scaled = Number((value * factor).toPrecision(15));
  if (method === "ceil") return Math.ceil(scaled) / factor;
  if (method === "floor") return Math.floor(scaled) / factor;
  if (method !== "common") throw new Problem("round knows common, ceil and floor");
  const half = Math.abs(scaled % 1) === 0.5;
  return (half ? 2 * Math.round(scaled / 2) : Math.round(scaled)) / factor;
}

const ESCAPES: Record<string, string> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&#34;",
  "'": "&#39;",
};

function escape(value: unknown): string {
  return toText(value).replace(/[&<>"']/g, char => ESCAPES[char] ?? char);
}

function percent(value: unknown): string {
  const quote = (char: string) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`;
  const wellFormed = toText(value).toWellFormed();
  return encodeURIComponent(wellFormed).replace(/[!'()*]/g, quote);
}

function urlencode(value: unknown): string {
  if (typeof value !== "object" || value === null) return percent(value).replaceAll("%2F", "/");
  const pairs = Array.isArray(value)
    ? value.map(pair => [member(pair, 0), member(pair, 1)])
    : Object.entries(value);
  return pairs.map(([key, item]) => `${percent(key)}=${percent(item)}`).join("&");
}

function truncate(value: unknown, args: unknown[]): string {
  const text = toText(value);
  const [length, end] = [integerArg(args[0], 255, "truncate"), toText(args[2] ?? "...")];
  const leeway = integerArg(args[3], 5, "truncate");
  if (text.length <= length + leeway) return text;
  const kept = text.slice(0, Math.max(0, length - end.length));
  if (truthy(args[1])) return kept + end;
  const blank = kept.lastIndexOf(" ");
  return (blank < 0 ? kept : kept.slice(0, blank)) + end;
}

function indent(value: unknown, args: unknown[]): string {
  const width = args[0] ?? 4;
  const margin = typeof width === "string" ? width : " ".repeat(widthOf(width));
  const lines = toText(value).split("\n");
  fits(lines.length * margin.length);
  const text = lines.map((line, at) => {
    const wanted = at === 0 ? truthy(args[1]) : line !== "" || truthy(args[2]);
    return wanted ? margin + line : line;
  });
  return text.join("\n");
}

function widthOf(value: unknown): number {
  const width = integerArg(value, 4, "indent");
  fits(width);
  return Math.max(0, width);
}

function fromJson(value: unknown): unknown {
  if (typeof value !== "string") return value ?? null;
  try {
    return JSON.parse(value) as unknown;
  } catch {
    throw new Problem("fromjson: the text is not JSON");
  }
}

function lengthOf(value: unknown): number {
  if (value instanceof View) return value.length ?? lengthOf(value.plain());
  if (typeof value !== "string") return itemsOf(value).length;
  let pairs = 0;
  for (const _ of value.matchAll(/[\ud800-\udbff][\udc00-\udfff]/g)) pairs++;
  return value.length - pairs;
}

function fallbackTo(value: unknown, args: unknown[]): unknown {
  const missing = value === undefined || value === null || (truthy(args[1]) && !truthy(value));
  return missing ? (args[0] ?? "") : value;
}

function absolute(value: unknown): unknown {
  if (typeof value === "bigint") return value < 0n ? -value : value;
  if (typeof value === "number") return Math.abs(value);
  throw new Problem(`abs wants a number, not ${kindOf(value)}`);
}

function digest(algorithm: string, value: unknown): string {
  return createHash(algorithm).update(toText(value)).digest("hex");
}

function base64(value: unknown, args: unknown[]): string {
  return Buffer.from(toText(value), "utf8").toString(truthy(args[0]) ? "base64url" : "base64");
}

function text(
  name: string,
  call: (value: unknown, args: unknown[]) => unknown,
  params: string[] = [],
) {
  return [name, { params, call }] as [string, FilterSpec];
}

const DEFAULT: FilterSpec = {
  params: ["default_value", "boolean"],
  raw: true,
  call: fallbackTo,
};

/** By name. */
export const TEXT_FILTERS: [string, FilterSpec][] = [
  ["default", DEFAULT],
  ["d", DEFAULT],
  text("int", (value, args) => toInteger(value, args[0] ?? 0, integerArg(args[1], 10, "int")), [
    "default",
    "base",
  ]),
  text("float", (value, args) => toFloat(value, args[0] ?? 0), ["default"]),
  text(
    "bool",
    value => truthy(value) && !["false", "0", "no"].includes(toText(value).toLowerCase()),
  ),
  text("string", value => toText(value)),
  text("tojson", (value, args) => toJson(value, integerArg(args[0], 0, "tojson")), ["indent"]),
  text("fromjson", fromJson),
  ["length", { params: [], raw: true, call: lengthOf }],
  ["len", { params: [], raw: true, call: lengthOf }],
  ["count", { params: [], raw: true, call: lengthOf }],
  text("lower", value => toText(value).toLowerCase()),
  text("upper", value => toText(value).toUpperCase()),
  text("title", titleCase),
  text("capitalize", capitalize),
  text("trim", (value, args) => strip(value, args[0], "both"), ["chars"]),
  ["replace", { params: ["old", "new", "count"], required: 2, call: replaceText }],
  text("split", splitText, ["sep", "maxsplit"]),
  text("abs", absolute),
  text("round", round, ["precision", "method"]),
  text("b64encode", base64, ["urlsafe"]),
  text("b64decode", value => Buffer.from(toText(value), "base64").toString("utf8")),
  text("urlencode", urlencode),
  text("truncate", truncate, ["length", "killwords", "end", "leeway"]),
  text("indent", indent, ["width", "first", "blank"]),
  text("wordcount", value => toText(value).match(/\w+/g)?.length ?? 0),
  text("escape", escape),
  text("e", escape),
  ["safe", { params: [], raw: true, call: value => value }],
  text("md5", value => digest("md5", value)),
  text("sha256", value => digest("sha256", value)),
  [
    "get",
    {
      params: ["key", "default"],
      required: 1,
      raw: true,
      call: (value, args) => member(value, unwrap(args[0])) ?? args[1],
    },
  ],
  text("items", value => Object.entries(mapOf(value, "items"))),
  text("keys", value => Object.keys(mapOf(value, "keys"))),
  text("values", value => Object.values(mapOf(value, "values"))),
];
