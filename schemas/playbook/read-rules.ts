/** Policy rules of tools and admission rules of steps, in all their spellings. */
import { isObject } from "../json.ts";
import { checkGuard, checkTemplates } from "./check-templates.ts";
import { describeValue } from "./explain.ts";
import { readMap, refuse, warn } from "./findings.ts";
import type { Findings } from "./findings.ts";
import {
  actionGrammar,
  admitGrammar,
  allowGrammar,
  policyGrammar,
  ruleGrammar,
} from "./grammar.ts";
import type { AdmitRule, Rule } from "./model.ts";
import type { Pipeline } from "./reading.ts";
import { readSet } from "./read-set.ts";
import type { Path } from "./source.ts";

/** All tries of a retry, the first included. */
const DEFAULT_ATTEMPTS = 3;
const DEFAULT_DELAY_SECONDS = 1;
const PREVIOUS = ["previous", "prev", "_previous", "@previous"];

/** Rules of a tool's `spec.policy`. Without `pipeline` (a workbook task) jumps are not checked. */
export function readRules(
  findings: Findings,
  path: Path,
  raw: Record<string, unknown> | undefined,
  pipeline?: Pipeline,
): Rule[] {
  if (!raw) return [];
  const { rules = [] } = readMap(findings, path, policyGrammar, raw);
  return readRuleList(findings, [...path, "rules"], rules).map(({ when, action, at }) => ({
    ...(when !== undefined && { when }),
    ...readAction(findings, at, action, pipeline),
  }));
}

/** `spec.policy.admit` of a step: the first match decides. */
export function readAdmit(
  findings: Findings,
  path: Path,
  raw: Record<string, unknown> | undefined,
): AdmitRule[] {
  if (!raw) return [];
  const { rules } = readMap(findings, path, admitGrammar, raw);
  return readRuleList(findings, [...path, "rules"], rules ?? []).map(({ when, action, at }) => {
    const { allow = true } = readMap(findings, at, allowGrammar, action);
    return { ...(when !== undefined && { when }), allow };
  });
}

interface RawRule {
  when?: string | boolean;
  action: Record<string, unknown>;
  /** Where the action is written. */
  at: Path;
}

function readRuleList(findings: Findings, path: Path, rules: unknown[]): RawRule[] {
  const result = rules.map((rule, index) => readRule(findings, [...path, index], rule));
  const last = result.findIndex(rule => rule && rule.when === undefined);
  if (last >= 0 && last < rules.length - 1) {
    const message = "rules after an else rule are never reached";
    warn(findings, [...path, last + 1], { message, hint: "move the else rule to the end" });
  }
  return result.filter(rule => rule !== undefined);
}

/** `{when, then}`, `{else: {then}}`, `{else: {do, …}}`, or `{else: null, then}`. */
function readRule(findings: Findings, path: Path, raw: unknown): RawRule | undefined {
  if (!isObject(raw)) {
    const message = `a rule must be a map, is ${describeValue(raw)}`;
    refuse(findings, path, { message, expected: "{when, then} or {else: {then}}" });
    return undefined;
  }
  const rule = readMap(findings, path, ruleGrammar, raw, { words: "rule" });
  const isElse = Object.hasOwn(raw, "else");
  if (isElse && Object.hasOwn(raw, "when")) {
    const message = "a rule has 'when' or 'else', not both";
    refuse(findings, [...path, "else"], { message, hint: "make two rules of it" }, "key");
    return undefined;
  }
  if (!isElse) {
    if (rule.when === undefined && !hasIssueKey(raw, "when")) {
      const message = "a rule needs 'when' or 'else'";
      refuse(findings, path, { message, hint: "else: {then: {…}} matches always" });
    }
    checkGuard(findings, [...path, "when"], rule.when);
  }
  const inside = rule.else;
  if (inside && !isObject(inside["then"])) {
    return { action: inside, at: [...path, "else"] };
  }
  if (inside) return { action: inside["then"] as RawRule["action"], at: [...path, "else", "then"] };
  if (!rule.then && (!isElse || raw["else"] === null)) {
    const message = "the rule says nothing to do";
    refuse(findings, path, { message, expected: "then: {…}" });
    return undefined;
  }
  return { when: rule.when, action: rule.then ?? {}, at: [...path, "then"] };
}

/** true when the key is there with something that was refused already. */
function hasIssueKey(raw: Record<string, unknown>, key: string): boolean {
  return raw[key] !== undefined && raw[key] !== null;
}

function readAction(
  findings: Findings,
  path: Path,
  raw: Record<string, unknown>,
  pipeline?: Pipeline,
): Omit<Rule, "when"> {
  const action = readMap(findings, path, actionGrammar, raw, { words: "then" });
  checkTemplates(findings, [...path, "delay"], action.delay);
  if (action.do === "jump" && action.to === undefined) {
    const expected = "a label of this pipeline, or previous";
    refuse(findings, path, { message: "'to' is required with do: jump", expected });
  } else if (action.do !== "jump" && action.to !== undefined) {
    warn(findings, [...path, "to"], { message: "'to' has no effect without do: jump" }, "key");
  }
  const isPrevious = PREVIOUS.includes(action.to ?? "") && !pipeline?.labels.includes(action.to!);
  const to = isPrevious ? "previous" : action.to;
  if (to !== undefined && pipeline) checkJump(findings, [...path, "to"], to, pipeline);
  return {
    do: action.do ?? "continue",
    attempts: action.attempts ?? DEFAULT_ATTEMPTS,
    backoff: action.backoff ?? "none",
    delay: action.delay ?? DEFAULT_DELAY_SECONDS,
    ...(to !== undefined && { to }),
    set: readSet(findings, [...path, "set"], action.set),
  };
}

/** A jump goes to a label of its own pipeline. */
export function checkJump(findings: Findings, path: Path, to: string, pipeline: Pipeline): void {
  const { labels, position } = pipeline;
  if (labels.includes(to)) return;
  if (to !== "previous") {
    const message = `unknown task label '${to}'`;
    refuse(findings, path, { message, expected: labels.join(" | "), near: [to, labels] });
  } else if (position === 0) {
    refuse(findings, path, { message: "the first task has no previous task" });
  }
}
