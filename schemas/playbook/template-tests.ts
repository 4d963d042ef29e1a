/** `x is <test>`: Jinja's tests. */
import { Problem } from "./template-error.ts";
import { COMPARISONS } from "./template-operators.ts";
import { kindOf, toText } from "./template-values.ts";
import type { Run } from "./template-values.ts";
import { unwrap } from "./view.ts";

export interface TestSpec {
  /** How many arguments it takes. */
  args: 0 | 1;
  call(value: unknown, arg: unknown, run: Run): boolean;
}

function is(call: (value: unknown) => boolean): TestSpec {
  return { args: 0, call: value => call(unwrap(value)) };
}

function compared(sign: string): TestSpec {
  return { args: 1, call: (value, arg, run) => COMPARISONS.get(sign)?.(value, arg, run) === true };
}

function integer(value: unknown, test: string): bigint {
  if (typeof value === "bigint") return value;
  if (typeof value === "number" && Number.isInteger(value)) return BigInt(value);
  throw new Problem(`'${test}' wants an integer, not ${kindOf(value)}`, "convert it, | int");
}

function divisible(value: unknown, by: unknown): boolean {
  const divisor = integer(unwrap(by), "divisibleby");
  if (divisor === 0n) throw new Problem("division by zero");
  return integer(unwrap(value), "divisibleby") % divisor === 0n;
}

const isNone = is(value => value === null || value === undefined);
const isSequence = is(value => Array.isArray(value) || typeof value === "string");
const isNumber = (value: unknown) => typeof value === "number" || typeof value === "bigint";

const NAMED: [string, TestSpec][] = [
  ["defined", is(value => value !== undefined)],
  ["undefined", is(value => value === undefined)],
  ["none", isNone],
  ["null", isNone],
  ["boolean", is(value => typeof value === "boolean")],
  ["true", is(value => value === true)],
  ["false", is(value => value === false)],
  ["number", is(isNumber)],
  ["integer", is(value => typeof value === "bigint" || Number.isInteger(value))],
  ["float", is(value => typeof value === "number" && !Number.isInteger(value))],
  ["string", is(value => typeof value === "string")],
  ["mapping", is(value => typeof value === "object" && value !== null && !Array.isArray(value))],
  ["sequence", isSequence],
  ["iterable", is(value => typeof value === "string" || (typeof value === "object" && !!value))],
  ["callable", is(() => false)],
  ["lower", is(value => toText(value) === toText(value).toLowerCase())],
  ["upper", is(value => toText(value) === toText(value).toUpperCase())],
  ["odd", is(value => integer(value, "odd") % 2n !== 0n)],
  ["even", is(value => integer(value, "even") % 2n === 0n)],
  ["divisibleby", { args: 1, call: divisible }],
  ["sameas", { args: 1, call: (value, arg) => unwrap(value) === unwrap(arg) }],
];

const COMPARED: Record<string, string[]> = {
  "==": ["eq", "equalto", "=="],
  "!=": ["ne", "!="],
  "<": ["lt", "lessthan", "<"],
  "<=": ["le", "<="],
  ">": ["gt", "greaterthan", ">"],
  ">=": ["ge", ">="],
  in: ["in"],
};

/** Every test there is, by name. */
export const TESTS: ReadonlyMap<string, TestSpec> = new Map<string, TestSpec>([
  ...NAMED,
  ...Object.entries(COMPARED).flatMap(([sign, names]) =>
    names.map(name => [name, compared(sign)] as [string, TestSpec]),
  ),
]);
