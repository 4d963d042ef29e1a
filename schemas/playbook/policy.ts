/** Policy rules of a task: which one matches, and how long a retry waits. */
import type { Rule } from "./model.ts";
import { renderValue } from "./render.ts";
import { isTrue } from "./template.ts";
import { TemplateError } from "./template-error.ts";
import type { Scope } from "./template-values.ts";

/** The longest a policy may wait between two tries, however large its exponent. */
export const MAX_BACKOFF_MS = 3_600_000;

/**
 * The first rule that holds; a rule without `when` always does. A guard that cannot be evaluated
 * throws TemplateError: the task fails with kind `logic`.
 */
export function firstRule(rules: readonly Rule[], scope: Scope): Rule | undefined {
  return rules.find(rule => rule.when === undefined || isTrue(rule.when, scope));
}

/**
 * Milliseconds to wait before the `retryNumber`-th retry (counts from 1): none 0, fixed d,
 * linear d·n, exponential d·2^(n-1), with d = `delay` in seconds.
 * Throws TemplateError when a templated delay gives no number of at least 0.
 */
export function backoffDelayMs(rule: Rule, retryNumber: number, scope: Scope): number {
  if (rule.backoff === "none") return 0;
  const baseMs = delaySeconds(rule, scope) * 1000;
  return Math.min(Math.round(baseMs * factor(rule.backoff, retryNumber)), MAX_BACKOFF_MS);
}

function factor(backoff: Rule["backoff"], retryNumber: number): number {
  if (backoff === "linear") return retryNumber;
  return backoff === "exponential" ? 2 ** (retryNumber - 1) : 1;
}

function delaySeconds(rule: Rule, scope: Scope): number {
  const value = renderValue(rule.delay, scope, "typed");
  const seconds = typeof value === "string" && value.trim() !== "" ? Number(value) : value;
  if (typeof seconds === "number" && seconds >= 0) return seconds;
  const place = { line: 1, column: 1 };
  throw new TemplateError("delay is not a number of seconds", String(rule.delay), place);
}
