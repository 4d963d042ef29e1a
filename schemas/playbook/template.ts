/**
 * Templates of playbooks: Jinja's language over JSON, evaluated here. nunjucks only parses; no code
 * is generated, members are own properties, calls come from tables, and everything has a limit.
 */
import { compileStatements, Output } from "./template-statements.ts";
import { bounded, compileExpression, newCompilation } from "./template-expressions.ts";
import type { Compilation, Evaluator } from "./template-compilation.ts";
import { JinjaParser } from "./template-parser.ts";
import { tokenize } from "./template-syntax.ts";
import type { Node } from "./template-syntax.ts";
import { pathsOf } from "./template-paths.ts";
import { newRun, toNative, truthy } from "./template-values.ts";
import type { Scope } from "./template-values.ts";
import { Interrupt, MAX_SOURCE_CHARS, TemplateError } from "./template-error.ts";

export { TemplateError } from "./template-error.ts";
export type { Scope } from "./template-values.ts";

/** Compiled templates kept, and characters of their sources; the least recently used go first. */
export const MAX_CACHED_TEMPLATES = 5_000;
export const MAX_CACHED_CHARS = 16 * 1024 * 1024;

/** A compiled template. */
export interface Template {
  readonly source: string;
  /** Exactly one `{{ expression }}` with only blanks around: it evaluates to a native value. */
  readonly pure: boolean;
  /** Every path it reads, root name first; what follows a computed member is cut. */
  readonly paths: string[][];
  /** The native value of a pure template (undefined when the name is), else the text. */
  evaluate(scope: Scope): unknown;
  /** The text, with `""` for undefined and none. */
  render(scope: Scope): string;
}

const cache = new Map<string, Template>();
let cachedChars = 0;

/**
 * Compiles a template, or takes it from the cache.
 * Throws TemplateError (message, line, column, expression, hint) for a bad one.
 */
export function compileTemplate(source: string): Template {
  const known = cache.get(source);
  if (known) {
    cache.delete(source);
    cache.set(source, known);
    return known;
  }
  const template = compile(source);
  cache.set(source, template);
  cachedChars += source.length;
  for (const oldest of cache.keys()) {
    if (cache.size <= MAX_CACHED_TEMPLATES && cachedChars <= MAX_CACHED_CHARS) break;
    cache.delete(oldest);
    cachedChars -= oldest.length;
  }
  return template;
}

function compile(source: string): Template {
  const root = parseTemplate(source);
  const c = newCompilation(source);
  const write = compileStatements(root.children, c);
  const render = (scope: Scope) => {
    const out = new Output();
    placed(source, () => write(newRun(scope), out));
    return out.toString();
  };
  const only = soleExpression(root);
  const evaluator = only && nativeEvaluator(only, c);
  const evaluate = evaluator ? (scope: Scope) => toNative(evaluator(newRun(scope))) : render;
  return { source, pure: only !== undefined, paths: pathsOf(root), evaluate, render };
}

/** The tree of a template. Throws TemplateError for anything that is not one. */
function parseTemplate(source: string): Node {
  if (source.length > MAX_SOURCE_CHARS) {
    throw new TemplateError("the template is too long", "", { line: 1, column: 1 });
  }
  try {
    return new JinjaParser(tokenize(source)).parseAsRoot();
  } catch (error) {
    throw asTemplateError(error, source);
  }
}

function asTemplateError(error: unknown, source: string): TemplateError {
  const { message, lineno, colno } = error as { message: string; lineno?: number; colno?: number };
  const lines = source.split("\n");
  const end = { line: lines.length, column: (lines.at(-1)?.length ?? 0) + 1 };
  const place = lineno !== undefined && colno !== undefined ? { line: lineno, column: colno } : end;
  const ours = error instanceof Error && error.constructor === TypeError;
  const text = ours || error instanceof RangeError ? "the template ends too early" : message;
  const words = text.replace(/^parse\w+: /, "").replace("variable end", "'}}'");
  return new TemplateError(words.replace("got end of file", "got the end"), source, place);
}

/** What the evaluator meets outside any expression (the output limit) gets the first line. */
function placed(source: string, call: () => void): void {
  try {
    call();
  } catch (error) {
    if (error instanceof TemplateError || error instanceof Interrupt) throw error;
    const message = error instanceof Error ? error.message : String(error);
    throw new TemplateError(message, source, { line: 1, column: 1 });
  }
}

/** Data read by a bare path needs no measuring; a value the template made does. */
function nativeEvaluator(node: Node, c: Compilation): Evaluator {
  const evaluator = compileExpression(node, c);
  const isPath = node.typename === "LookupVal" || node.typename === "Symbol";
  return isPath ? evaluator : bounded(c, node, evaluator);
}

function soleExpression(root: Node): Node | undefined {
  const parts = root.children.flatMap(child =>
    child.typename === "Output" ? child.children : [child],
  );
  const isBlank = (node: Node) =>
    node.typename === "TemplateData" && String(node.value).trim() === "";
  const rest = parts.filter(node => !isBlank(node));
  const [only] = rest;
  const isTag = only && ["If", "Loop", "Set", "TemplateData"].includes(only.typename);
  return rest.length === 1 && !isTag ? only : undefined;
}

/** Whether a text holds anything to render. */
export function hasTemplate(text: string): boolean {
  return text.includes("{{") || text.includes("{%");
}

/** A pure template's native value, else the rendered text. Text without templates is itself. */
export function evaluate(source: string, scope: Scope): unknown {
  return hasTemplate(source) ? compileTemplate(source).evaluate(scope) : source;
}

/** The rendered text: undefined and none print nothing, lists and maps print as JSON. */
export function renderText(source: string, scope: Scope): string {
  return hasTemplate(source) ? compileTemplate(source).render(scope) : source;
}

const FALSE_WORDS = new Set(["", "false", "0", "no", "none", "null", "off", "{}", "[]"]);

/** A guard as it is compiled: without braces it is one expression. */
export function guardSource(when: string): string {
  return hasTemplate(when) ? when : `{{ ${when} }}`;
}

/**
 * Whether a guard (`when`) holds: native truth, and for text the words of §2.5 that mean no.
 * Throws TemplateError when it cannot be evaluated; an undefined name is only false.
 */
export function isTrue(when: string | boolean, scope: Scope): boolean {
  if (typeof when === "boolean") return when;
  if (when.trim() === "") return false;
  const value = compileTemplate(guardSource(when)).evaluate(scope);
  if (typeof value === "string") return !FALSE_WORDS.has(value.trim().toLowerCase());
  return truthy(value);
}
