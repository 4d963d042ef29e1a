/** What a template may call: tables of Python-like methods and functions, nothing of JavaScript. */
import { MAX_ITERATIONS, Problem } from "./template-error.ts";
import { contains, equal } from "./template-operators.ts";
import { capitalize, integerArg, replaceText, splitText } from "./template-text-filters.ts";
import { strip, titleCase } from "./template-text-filters.ts";
import { fits, itemsOf, kindOf, mapOf, member, spend, toText } from "./template-values.ts";
import type { Run } from "./template-values.ts";
import { unwrap } from "./view.ts";

type Method = (target: unknown, args: unknown[], run: Run) => unknown;
type Kind = "text" | "list" | "map";

function affix(call: (text: string, part: string) => boolean): Method {
  return (target, args) => {
    const parts = Array.isArray(args[0]) ? args[0] : [args[0]];
    return parts.some(part => call(toText(target), toText(part)));
  };
}

function joinWith(target: unknown, args: unknown[]): string {
  const texts = itemsOf(args[0]).map(toText);
  const separator = toText(target);
  fits(texts.reduce((chars, part) => chars + part.length + separator.length, 0));
  return texts.join(separator);
}

function occurrences(target: unknown, args: unknown[]): number {
  const part = toText(args[0]);
  return part === "" ? toText(target).length + 1 : toText(target).split(part).length - 1;
}

function padZeros(target: unknown, args: unknown[]): string {
  const width = integerArg(args[0], 0, "zfill");
  fits(width);
  const [, sign = "", digits = ""] = /^([+-]?)(.*)$/s.exec(toText(target)) ?? [];
  return sign + digits.padStart(width - sign.length, "0");
}

const TEXT: ReadonlyMap<string, Method> = new Map<string, Method>([
  ["lower", target => toText(target).toLowerCase()],
  ["upper", target => toText(target).toUpperCase()],
  ["title", titleCase],
  ["capitalize", capitalize],
  ["strip", (target, args) => strip(target, args[0], "both")],
  ["lstrip", (target, args) => strip(target, args[0], "left")],
  ["rstrip", (target, args) => strip(target, args[0], "right")],
  ["split", splitText],
  [
    "splitlines",
    target =>
      toText(target)
        .replace(/\r?\n$/, "")
        .split(/\r?\n/),
  ],
  ["replace", replaceText],
  ["join", joinWith],
  ["startswith", affix((text, part) => text.startsWith(part))],
  ["endswith", affix((text, part) => text.endsWith(part))],
  ["find", (target, args) => toText(target).indexOf(toText(args[0]))],
  ["count", occurrences],
  ["zfill", padZeros],
  ["isdigit", target => /^\d+$/.test(toText(target))],
]);

const LIST: ReadonlyMap<string, Method> = new Map<string, Method>([
  ["index", (target, args, run) => itemsOf(target).findIndex(item => equal(item, args[0], run))],
  [
    "count",
    (target, args, run) => itemsOf(target).filter(item => equal(item, args[0], run)).length,
  ],
]);

const MAP: ReadonlyMap<string, Method> = new Map<string, Method>([
  ["get", (target, args) => member(target, unwrap(args[0])) ?? args[1] ?? null],
  ["items", target => Object.entries(mapOf(target, "items"))],
  ["keys", target => Object.keys(mapOf(target, "keys"))],
  ["values", target => Object.values(mapOf(target, "values"))],
  ["has_key", (target, args, run) => contains(target, args[0], run)],
]);

const METHODS: Record<Kind, ReadonlyMap<string, Method>> = { text: TEXT, list: LIST, map: MAP };

/** Every method name there is, for the check at compile time and for hints. */
export const METHOD_NAMES: ReadonlySet<string> = new Set(
  Object.values(METHODS).flatMap(table => [...table.keys()]),
);

/** `target.name(...)`. Calling a method of an undefined value is undefined, as reading one is. */
export function callMethod(target: unknown, name: string, args: unknown[], run: Run): unknown {
  const plain = unwrap(target);
  if (plain === undefined || plain === null) return undefined;
  const kind = kindFor(plain);
  const method = kind && METHODS[kind].get(name);
  if (!method) throw new Problem(`${kindOf(plain)} has no method '${name}'`);
  spend(run, typeof plain === "string" ? 1 + (plain.length >> 4) : 1);
  return method(name === "get" ? target : plain, args, run);
}

function kindFor(value: unknown): Kind | undefined {
  if (typeof value === "string") return "text";
  if (Array.isArray(value)) return "list";
  return typeof value === "object" ? "map" : undefined;
}

function range(args: unknown[], run: Run): number[] {
  const [first, second, third] = args.map(arg => integerArg(unwrap(arg), 0, "range"));
  const [start, stop] = second === undefined ? [0, first ?? 0] : [first ?? 0, second];
  const step = third ?? 1;
  if (step === 0) throw new Problem("range wants a step that is not 0");
  const length = Math.max(0, Math.ceil((stop - start) / step));
  run.iterations += length;
  if (run.iterations > MAX_ITERATIONS) {
    throw new Problem(`more than ${MAX_ITERATIONS} iterations in one template`);
  }
  return Array.from({ length }, (_, index) => start + index * step);
}

/** The time a scope was made with, else the time now; ISO 8601, UTC. */
function now(_args: unknown[], run: Run): string {
  const fixed = run.scope.get("now");
  return typeof fixed === "string" ? fixed : new Date().toISOString();
}

interface FunctionSpec {
  min: number;
  max: number;
  call(args: unknown[], run: Run): unknown;
}

/** Every function there is, by name. */
export const FUNCTIONS: ReadonlyMap<string, FunctionSpec> = new Map<string, FunctionSpec>([
  ["now", { min: 0, max: 0, call: now }],
  ["range", { min: 1, max: 3, call: range }],
]);
