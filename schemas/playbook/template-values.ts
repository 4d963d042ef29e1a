/** What templates may see of a value: members, text, truth, plain JSON. Own properties only. */
import {
  MAX_DEPTH,
  MAX_ITERATIONS,
  MAX_OUTPUT_CHARS,
  MAX_REPEATED_CHARS,
  MAX_WORK,
  Problem,
} from "./template-error.ts";
import { View, unwrap } from "./view.ts";

/** Names a template evaluates against; `get` answers undefined for an absent name. */
export interface Scope {
  get(name: string): unknown;
}

/** Variables of `{% for %}` and `{% set %}`, innermost first. */
export interface Frame {
  vars: Map<string, unknown>;
  parent: Frame | undefined;
}

/** One evaluation of one template, with what it has used up so far. */
export interface Run {
  readonly scope: Scope;
  frame: Frame | undefined;
  iterations: number;
  work: number;
}

export function newRun(scope: Scope): Run {
  return { scope, frame: undefined, iterations: 0, work: 0 };
}

/** Members no template may read or write, even where data carries them. */
const FORBIDDEN = new Set([
  "__proto__",
  "constructor",
  "prototype",
  "__defineGetter__",
  "__defineSetter__",
  "__lookupGetter__",
  "__lookupSetter__",
]);

export function isForbidden(key: string): boolean {
  return FORBIDDEN.has(key);
}

/** `target.key` as templates see it: undefined for whatever is not the target's own data. */
export function member(target: unknown, key: unknown): unknown {
  if (target === undefined || target === null) return undefined;
  if (typeof key !== "string" && typeof key !== "number") return undefined;
  if (typeof target === "string") return element(target, key);
  if (typeof target !== "object" || FORBIDDEN.has(key as string)) return undefined;
  if (target instanceof View) return harmless(target.member(key));
  if (Array.isArray(target)) return key === "length" ? target.length : element(target, key);
  return Object.hasOwn(target, key)
    ? harmless((target as Record<string | number, unknown>)[key])
    : undefined;
}

function element(list: string | unknown[], key: string | number): unknown {
  const index = typeof key === "string" && /^\d+$/.test(key) ? Number(key) : key;
  if (typeof index !== "number" || !Number.isInteger(index)) return undefined;
  return harmless(list[index < 0 ? list.length + index : index]);
}

/** A function is never a value. */
export function harmless(value: unknown): unknown {
  return typeof value === "function" || typeof value === "symbol" ? undefined : value;
}

/** Jinja's truth: empty text, lists and maps, zero, none and undefined are false. */
export function truthy(raw: unknown): boolean {
  const value = unwrap(raw);
  if (typeof value !== "object" || value === null) return Boolean(value);
  if (Array.isArray(value)) return value.length > 0;
  for (const key in value) if (Object.hasOwn(value, key)) return true;
  return false;
}

/** How a value prints: JSON for lists and maps, `true`/`false`, nothing for none and undefined. */
export function toText(raw: unknown): string {
  const value = unwrap(raw);
  if (typeof value === "string") return value;
  if (value === undefined || value === null) return "";
  if (typeof value === "object") return toJson(value);
  return typeof value === "function" || typeof value === "symbol" ? "" : String(value);
}

/** Compact JSON, no HTML escaping, undefined as null. Bounded: shared parts print many times. */
export function toJson(raw: unknown, indent?: number): string {
  const value = unwrap(raw);
  measure(value);
  return JSON.stringify(jsonReady(value), replaceBigInt, indent);
}

function jsonReady(value: unknown): unknown {
  return value === undefined || typeof value === "function" ? null : value;
}

function replaceBigInt(_key: string, value: unknown): unknown {
  return typeof value === "bigint" ? String(value) : value;
}

/** Throws when a value, written as JSON, would pass the output limit. */
function measure(value: unknown): void {
  walk(value, MAX_OUTPUT_CHARS, false);
}

/**
 * Throws when a value a template made repeats its parts too often: data of a scope is counted once,
 * however large, and only what appears again counts.
 */
export function measureRepeated(value: unknown): void {
  walk(value, MAX_REPEATED_CHARS, true);
}

function walk(value: unknown, limit: number, onlyRepeated: boolean): void {
  const seen = new Set<unknown>();
  let left = limit;
  const visit = (part: unknown, depth: number, counted: boolean): void => {
    if (counted) left -= typeof part === "string" ? part.length + 2 : 2;
    if (left < 0) throw new Problem(`a value is larger than ${limit} characters`);
    if (typeof part !== "object" || part === null) return;
    if (depth > MAX_DEPTH) throw new Problem(`a value is nested deeper than ${MAX_DEPTH} levels`);
    const inner = counted || seen.has(part);
    if (onlyRepeated) seen.add(part);
    if (Array.isArray(part)) {
      for (const item of part) visit(item, depth + 1, inner);
      return;
    }
    for (const key in part) {
      if (inner) left -= key.length + 2;
      visit((part as Record<string, unknown>)[key], depth + 1, inner);
    }
  };
  visit(value, 0, !onlyRepeated);
}

/** A result leaving the evaluator: no View, no function, no bigint at its top. */
export function toNative(raw: unknown): unknown {
  const value = harmless(unwrap(raw));
  return typeof value === "bigint" ? String(value) : value;
}

/** Counts elements touched: nested filters over long lists end in an error, not in hours. */
export function spend(run: Run, amount: number): void {
  run.work += amount;
  if (run.work > MAX_WORK) throw new Problem("the expression does too much work");
}

/** Charges for reading a whole value once: elements of a list or map, 16 characters of a text. */
export function charge(run: Run, value: unknown): void {
  if (typeof value === "string") spend(run, 1 + (value.length >> 4));
  else if (Array.isArray(value)) spend(run, 1 + value.length);
  else spend(run, 1);
}

/** What a value is, in the words of an error message. */
export function kindOf(raw: unknown): string {
  const value = unwrap(raw);
  if (value === undefined) return "an undefined value";
  if (value === null) return "none";
  if (Array.isArray(value)) return "a list";
  if (typeof value === "object") return "a map";
  if (typeof value === "bigint") return "a number";
  return `a ${typeof value}`;
}

/** Own keys of a map that templates may see. */
export function keysOf(map: object): string[] {
  return Object.keys(map).filter(key => !FORBIDDEN.has(key));
}

/** Items of anything iterable: list elements, map keys, characters; none for undefined. */
export function itemsOf(raw: unknown): unknown[] {
  const value = unwrap(raw);
  if (value === undefined || value === null) return [];
  if (Array.isArray(value)) return value;
  if (typeof value === "object") return keysOf(value);
  if (typeof value === "string" && value.length > MAX_ITERATIONS) {
    throw new Problem(`a text longer than ${MAX_ITERATIONS} characters is not taken apart`);
  }
  if (typeof value === "string") return Array.from(value);
  throw new Problem(`${kindOf(value)} is not iterable`);
}

/** The value as a map, or a Problem naming who wanted one. */
export function mapOf(raw: unknown, who: string): Record<string, unknown> {
  const value = unwrap(raw);
  if (value === undefined || value === null) return {};
  if (typeof value === "object" && !Array.isArray(value)) return value as Record<string, unknown>;
  throw new Problem(`${who} wants a map, not ${kindOf(value)}`);
}

/** Throws when a text a template is about to make would pass the output limit. */
export function fits(chars: number): void {
  if (chars > MAX_OUTPUT_CHARS) {
    throw new Problem(`the text would be longer than ${MAX_OUTPUT_CHARS} characters`);
  }
}
