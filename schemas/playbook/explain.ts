/** Zod's issues in the words of a playbook author. */
import type { z } from "zod";
import type { Complaint } from "./findings.ts";

/** Letters of a value shown in a message. */
const MAX_SHOWN_LETTERS = 40;

const TYPE_NAMES: Record<string, string> = {
  string: "text",
  number: "a number",
  int: "a whole number",
  boolean: "true or false",
  array: "a list",
  object: "a map",
  record: "a map",
};

/** What a zod issue says about `value`: what was expected, and the nearest valid word. */
export function explain(issue: z.core.$ZodIssue, value: unknown): Complaint {
  const is = `is ${describeValue(value)}`;
  switch (issue.code) {
    case "invalid_type": {
      const expected = TYPE_NAMES[issue.expected] ?? issue.expected;
      return { message: `must be ${expected}, ${is}`, expected };
    }
    case "invalid_value": {
      const words = issue.values.map(String);
      const near: Complaint["near"] = typeof value === "string" ? [value, words] : undefined;
      return {
        message: `unknown value ${describeValue(value)}`,
        expected: words.join(" | "),
        near,
      };
    }
    case "invalid_union": {
      const expected = unionText(issue.errors);
      return { message: `must be ${expected}, ${is}`, expected };
    }
    case "too_small": {
      const expected =
        issue.origin === "number" ? `at least ${issue.minimum}` : "something in it, is empty";
      if (issue.origin === "number") return { message: `must be ${expected}, ${is}`, expected };
      return { message: "must not be empty", expected: "at least one element" };
    }
    case "too_big":
      return { message: `must be at most ${issue.maximum}, ${is}` };
    case "custom":
      return { message: `must be ${issue.message}, ${is}`, expected: issue.message };
    default:
      return { message: issue.message };
  }
}

function unionText(errors: readonly (readonly z.core.$ZodIssue[])[]): string {
  const words = errors.map(([first]) => {
    if (first?.code === "invalid_type") return TYPE_NAMES[first.expected] ?? first.expected;
    return first?.message ?? "another value";
  });
  return [...new Set(words)].join(" or ");
}

/** What a value is, short enough for a message: `a list`, `text 'abc'`, `3`, `empty`. */
export function describeValue(value: unknown): string {
  if (value === undefined) return "missing";
  if (value === null) return "empty";
  if (Array.isArray(value)) return "a list";
  if (typeof value === "object") return "a map";
  const text = String(value);
  const shown = text.length > MAX_SHOWN_LETTERS ? `${text.slice(0, MAX_SHOWN_LETTERS)}…` : text;
  return typeof value === "string" ? `'${shown}'` : shown;
}
