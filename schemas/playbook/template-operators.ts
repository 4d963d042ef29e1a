/** Operators with Jinja's meaning: strict equality, exact integers, no silent conversions. */
import { MAX_ITERATIONS, Problem } from "./template-error.ts";
import { fits, isForbidden, kindOf, spend, toText } from "./template-values.ts";
import type { Run } from "./template-values.ts";
import { unwrap } from "./view.ts";

type Binary = (left: unknown, right: unknown, run: Run) => unknown;

/** Deep equality: none equals undefined, `1.0 == 1` and `true == 1` hold, `'1' == 1` does not. */
export function equal(rawLeft: unknown, rawRight: unknown, run: Run): boolean {
  const left = unwrap(rawLeft) ?? null;
  const right = unwrap(rawRight) ?? null;
  if (left === right) return true;
  spend(run, 1);
  if (typeof left !== "object" || typeof right !== "object") {
    return isNumeric(left) && isNumeric(right) && compareNumbers(left, right) === 0;
  }
  if (left === null || right === null || Array.isArray(left) !== Array.isArray(right)) return false;
  if (Array.isArray(left)) return equalLists(left, right as unknown[], run);
  return equalMaps(left as Record<string, unknown>, right as Record<string, unknown>, run);
}

function equalLists(left: unknown[], right: unknown[], run: Run): boolean {
  return left.length === right.length && left.every((item, at) => equal(item, right[at], run));
}

function equalMaps(
  left: Record<string, unknown>,
  right: Record<string, unknown>,
  run: Run,
): boolean {
  const keys = Object.keys(left);
  if (keys.length !== Object.keys(right).length) return false;
  return keys.every(key => Object.hasOwn(right, key) && equal(left[key], right[key], run));
}

type Numeric = number | bigint | boolean;

function isNumeric(value: unknown): value is Numeric {
  return typeof value === "number" || typeof value === "bigint" || typeof value === "boolean";
}

function plainNumber(value: Numeric): number | bigint {
  return typeof value === "boolean" ? Number(value) : value;
}

function compareNumbers(left: Numeric, right: Numeric): number {
  const [a, b] = [plainNumber(left), plainNumber(right)];
  return a < b ? -1 : a > b ? 1 : a >= b ? 0 : NaN;
}

/** Order of two values: negative, 0, positive. Numbers, texts and lists; a Problem for mixtures. */
export function compare(rawLeft: unknown, rawRight: unknown, run: Run): number {
  const [left, right] = [unwrap(rawLeft), unwrap(rawRight)];
  spend(run, 1);
  if (isNumeric(left) && isNumeric(right)) return compareNumbers(left, right);
  if (typeof left === "string" && typeof right === "string") {
    return left < right ? -1 : left > right ? 1 : 0;
  }
  if (Array.isArray(left) && Array.isArray(right)) {
    for (let at = 0; at < Math.min(left.length, right.length); at++) {
      if (!equal(left[at], right[at], run)) return compare(left[at], right[at], run);
    }
    return left.length - right.length;
  }
  throw new Problem(`${kindOf(left)} and ${kindOf(right)} have no order`, "convert one, | int");
}

/** `<` and its kin. Nothing is less or greater than none or undefined: the comparison is false. */
function ordered(test: (order: number) => boolean): Binary {
  return (left, right, run) => {
    if ((unwrap(left) ?? null) === null || (unwrap(right) ?? null) === null) return false;
    return test(compare(left, right, run));
  };
}

/** `needle in haystack`: element of a list, part of a text, key of a map; false in none. */
export function contains(haystack: unknown, needle: unknown, run: Run): boolean {
  const [where, what] = [unwrap(haystack), unwrap(needle)];
  if (where === undefined || where === null) return false;
  if (Array.isArray(where)) return where.some(item => equal(item, what, run));
  if (typeof where === "object") {
    const key = toText(what);
    return Object.hasOwn(where, key) && !isForbidden(key);
  }
  if (typeof where !== "string") throw new Problem(`'in' cannot look into ${kindOf(where)}`);
  spend(run, where.length >> 4);
  if (what === undefined || what === null) return false;
  if (typeof what !== "string") throw new Problem(`'in' cannot look for ${kindOf(what)} in a text`);
  return where.includes(what);
}

/** Comparison operators by their sign. */
export const COMPARISONS: ReadonlyMap<string, (l: unknown, r: unknown, run: Run) => unknown> =
  new Map<string, Binary>([
    ["==", equal],
    ["!=", (left, right, run) => !equal(left, right, run)],
    ["<", ordered(order => order < 0)],
    [">", ordered(order => order > 0)],
    ["<=", ordered(order => order <= 0)],
    [">=", ordered(order => order >= 0)],
    ["in", (left, right, run) => contains(right, left, run)],
    ["not in", (left, right, run) => !contains(right, left, run)],
  ]);

/** Arithmetic by node name. Operands are plain values. */
export const ARITHMETIC: ReadonlyMap<string, Binary> = new Map<string, Binary>([
  ["Add", (left, right, run) => add(unwrap(left), unwrap(right), run)],
  ["Sub", (left, right) => numeric("-", left, right)],
  ["Mul", (left, right, run) => multiply(unwrap(left), unwrap(right), run)],
  ["Div", (left, right) => numeric("/", left, right)],
  ["FloorDiv", (left, right) => numeric("//", left, right)],
  ["Mod", (left, right) => remainder(unwrap(left), right)],
  ["Pow", (left, right) => numeric("**", left, right)],
  ["Concat", (left, right) => concat(left, right)],
]);

function concat(left: unknown, right: unknown): string {
  const [a, b] = [toText(left), toText(right)];
  fits(a.length + b.length);
  return a + b;
}

function add(left: unknown, right: unknown, run: Run): unknown {
  if (typeof left === "string" && typeof right === "string") return concat(left, right);
  if (Array.isArray(left) && Array.isArray(right)) {
    spend(run, left.length + right.length);
    return [...(left as unknown[]), ...(right as unknown[])];
  }
  if (typeof left === "string" || typeof right === "string") {
    throw new Problem(`cannot add ${kindOf(left)} and ${kindOf(right)}`, "join text with ~");
  }
  return numeric("+", left, right);
}

function multiply(left: unknown, right: unknown, run: Run): unknown {
  const [list, times] = typeof left === "number" ? [right, left] : [left, right];
  if (typeof list !== "string" && !Array.isArray(list)) return numeric("*", left, right);
  if (typeof times !== "number" || !Number.isInteger(times)) {
    throw new Problem(`cannot multiply ${kindOf(left)} by ${kindOf(right)}`);
  }
  const count = Math.max(0, times);
  if (typeof list === "string") {
    fits(list.length * count);
    return list.repeat(count);
  }
  if (list.length * count > MAX_ITERATIONS) throw new Problem("the list would be too long");
  spend(run, list.length * count);
  return Array.from({ length: count }, () => list as unknown[]).flat(1);
}

function remainder(left: unknown, right: unknown): unknown {
  if (typeof left === "string") throw new Problem("'%' does not format text", "join text with ~");
  return numeric("%", left, right);
}

const OPERATION: Record<string, (a: number, b: number) => number> = {
  "+": (a, b) => a + b,
  "-": (a, b) => a - b,
  "*": (a, b) => a * b,
  "/": (a, b) => a / b,
  "//": (a, b) => Math.floor(a / b),
  "%": (a, b) => a - Math.floor(a / b) * b,
  "**": (a, b) => a ** b,
};

const EXACT: Record<string, (a: bigint, b: bigint) => bigint> = {
  "+": (a, b) => a + b,
  "-": (a, b) => a - b,
  "*": (a, b) => a * b,
  "//": (a, b) => a / b - (a % b !== 0n && a < 0n !== b < 0n ? 1n : 0n),
  "%": (a, b) => ((a % b) + b) % b,
  "**": (a, b) => a ** b,
};

/** Numbers only. Integers stay exact beyond 2^53; no infinity, no division by zero. */
function numeric(sign: string, rawLeft: unknown, rawRight: unknown): number | bigint {
  const [left, right] = [unwrap(rawLeft), unwrap(rawRight)];
  if (!isNumeric(left) || !isNumeric(right)) {
    throw new Problem(`cannot compute ${kindOf(left)} ${sign} ${kindOf(right)}`, "convert, | int");
  }
  const [a, b] = [plainNumber(left), plainNumber(right)];
  if (["/", "//", "%"].includes(sign) && Number(b) === 0) throw new Problem("division by zero");
  const result = OPERATION[sign]?.(Number(a), Number(b)) ?? NaN;
  if (!Number.isFinite(result)) throw new Problem("the number is too large");
  const whole = isWhole(a) && isWhole(b) && !(sign === "**" && Number(b) < 0);
  const small = Number.isSafeInteger(result) && typeof a === "number" && typeof b === "number";
  if (!whole || small || sign === "/") return result;
  const exact = EXACT[sign]?.(BigInt(a), BigInt(b)) ?? 0n;
  return Number.isSafeInteger(Number(exact)) ? Number(exact) : exact;
}

function isWhole(value: number | bigint): boolean {
  return typeof value === "bigint" || Number.isInteger(value);
}

/** Unary minus and plus. */
export function signed(value: unknown, sign: -1 | 1): number | bigint {
  return numeric("*", value, sign);
}
