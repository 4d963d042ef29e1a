/** Every template of a playbook compiles when it is registered, not when a run first meets it. */
import { errorType } from "../errors.ts";
import { isObject } from "../json.ts";
import { refuse } from "./findings.ts";
import type { Findings } from "./findings.ts";
import type { Path } from "./source.ts";
import { compileTemplate, guardSource, hasTemplate } from "./template.ts";
import type { TemplateError } from "./template-error.ts";

/** Letters that `guardSource` puts before a bare expression. */
const ADDED_BEFORE_GUARD = 3;

/**
 * Compiles each text in a value and records what does not. `isCode` names the paths inside of the
 * value that hold program text, which is never a template.
 */
export function checkTemplates(
  findings: Findings,
  path: Path,
  value: unknown,
  isCode: (path: Path) => boolean = () => false,
): void {
  if (isCode(path)) return;
  if (typeof value === "string") {
    if (hasTemplate(value)) checkTemplate(findings, path, value);
  } else if (Array.isArray(value)) {
    value.forEach((item, index) => checkTemplates(findings, [...path, index], item, isCode));
  } else if (isObject(value)) {
    for (const key of Object.keys(value)) {
      checkTemplates(findings, [...path, key], value[key], isCode);
    }
  }
}

/** A guard is an expression: without braces it is wrapped in them first. */
export function checkGuard(
  findings: Findings,
  path: Path,
  guard: string | boolean | undefined,
): void {
  if (typeof guard !== "string") return;
  const added = hasTemplate(guard) ? 0 : ADDED_BEFORE_GUARD;
  checkTemplate(findings, path, guardSource(guard), added);
}

function checkTemplate(findings: Findings, path: Path, source: string, added = 0): void {
  try {
    compileTemplate(source);
  } catch (error) {
    if (errorType(error) !== "TEMPLATE") throw error;
    const problem = error as TemplateError;
    const { line, expression, hint } = problem;
    const column = Math.max(problem.column - (line === 1 ? added : 0), 1);
    const message = `bad template: ${problem.message} in ${expression}`;
    refuse(findings, path, { message, hint }, { line, column });
  }
}
