/** Values of a playbook with their templates rendered: typed for data, text for URLs and SQL. */
import { isObject } from "../json.ts";
import type { Json } from "../json.ts";
import type { Task } from "./model.ts";
import { asksForContext, fieldMode, isProgram, runsProgram } from "./render-fields.ts";
import type { RenderMode } from "./render-fields.ts";
import { contextMap, iterationNames, withInput } from "./scope.ts";
import { compileTemplate, guardSource, hasTemplate } from "./template.ts";
import { TemplateError } from "./template-error.ts";
import { isForbidden } from "./template-values.ts";
import type { Scope } from "./template-values.ts";
import { unwrap } from "./view.ts";

type Fields = Record<string, unknown>;

/**
 * Renders every string of a value; keys stay as they are. In "typed" mode a lone `{{ expr }}` keeps
 * its type (undefined is null) and other text that is a canonical scalar or JSON becomes one; in
 * "text" mode every template gives text. Throws TemplateError.
 */
export function renderValue(value: unknown, scope: Scope, mode: RenderMode): unknown {
  if (typeof value === "string") return renderString(value, scope, mode);
  if (Array.isArray(value)) return value.map(item => renderValue(item, scope, mode));
  if (!isObject(value)) return unwrap(value) ?? null;
  return mapFields(value, item => renderValue(item, scope, mode));
}

function renderString(text: string, scope: Scope, mode: RenderMode): unknown {
  if (!hasTemplate(text)) return text;
  const template = compileTemplate(text);
  if (mode === "text") return template.render(scope);
  return template.pure ? (template.evaluate(scope) ?? null) : coerceText(template.render(scope));
}

function mapFields(fields: Fields, change: (value: unknown, key: string) => unknown): Fields {
  return Object.fromEntries(Object.entries(fields).map(([key, item]) => [key, change(item, key)]));
}

const WORDS = new Map<string, Json>([
  ["true", true],
  ["True", true],
  ["false", false],
  ["False", false],
  ["null", null],
  ["None", null],
  ["none", null],
]);
const NUMBER = /^(0|-?[1-9]\d*|-?(0|[1-9]\d*)\.\d{1,17})$/;

/** Rendered text as the value it spells: a canonical scalar, or JSON in brackets; else the text. */
export function coerceText(text: string): unknown {
  const trimmed = text.trim();
  if (WORDS.has(trimmed)) return WORDS.get(trimmed);
  if (NUMBER.test(trimmed)) {
    const number = Number(trimmed);
    const exact = trimmed.includes(".") || String(number) === trimmed;
    return exact && Math.abs(number) <= 2 ** 53 ? number : text;
  }
  if (!/^(\[.*\]|\{.*\})$/s.test(trimmed)) return text;
  try {
    return JSON.parse(trimmed) as unknown;
  } catch {
    return text;
  }
}

/** A task with everything rendered, as `tool.<kind>.run` takes it. */
export interface RenderedTask {
  config: Fields;
  input: Fields;
  auth?: string | Fields;
  /** For programs: what they see beside their input. */
  iteration?: Fields;
  context?: Fields;
}

/**
 * Renders a task: its input first (the step's input under it), then the other fields, which see the
 * rendered input by bare name and as `input.<name>`; iteration variables win over both. Program
 * text (`code`) is never rendered. Throws TemplateError.
 */
export function renderTask(task: Task, stepInput: Fields, scope: Scope): RenderedTask {
  const merged = { ...stepInput, ...task.input };
  const input = renderValue(merged, scope, "typed") as Fields;
  const inner = withInput(scope, input);
  const config = mapFields(task.config, (value, key) => renderField(task, key, value, inner));
  const auth = renderAuth(task.auth, inner);
  const seen = runsProgram(task.kind) ? programNames(task, scope) : {};
  return auth === undefined ? { config, input, ...seen } : { config, input, auth, ...seen };
}

function programNames(task: Task, scope: Scope): Pick<RenderedTask, "iteration" | "context"> {
  const iteration = iterationNames(scope);
  return {
    ...(iteration && { iteration }),
    ...(asksForContext(task) && { context: contextMap(scope) }),
  };
}

function renderField(task: Task, key: string, value: unknown, scope: Scope): unknown {
  if (isProgram(key)) return value;
  if (key === "script" && isObject(value)) {
    const { source, ...rest } = value;
    const rendered = renderValue(rest, scope, "text") as Fields;
    return source === undefined ? rendered : { ...rendered, source: renderSource(source, scope) };
  }
  return renderValue(value, scope, fieldMode(task.kind, key));
}

/** `script.source` may carry the program itself. */
function renderSource(source: unknown, scope: Scope): unknown {
  if (!isObject(source)) return renderValue(source, scope, "text");
  return mapFields(source, (value, key) =>
    isProgram(key) ? value : renderValue(value, scope, "text"),
  );
}

/** An alias is text; a template may also give a whole map. Nothing at all is no auth. */
function renderAuth(auth: Task["auth"], scope: Scope): string | Fields | undefined {
  if (auth === undefined) return undefined;
  if (typeof auth !== "string") return renderValue(auth, scope, "typed") as Fields;
  if (!hasTemplate(auth)) return auth;
  const template = compileTemplate(auth);
  const value = template.evaluate(scope);
  if (isObject(value)) return value;
  const alias = template.render(scope).trim();
  return alias === "" ? undefined : alias;
}

/** Every path the templates in a value read, each once. Throws TemplateError for a bad template. */
export function readPaths(value: unknown): string[][] {
  const found = new Map<string, string[]>();
  collect(value, found);
  return [...found.values()];
}

function collect(value: unknown, found: Map<string, string[]>): void {
  if (typeof value === "string") {
    if (!hasTemplate(value)) return;
    for (const path of compileTemplate(value).paths) found.set(JSON.stringify(path), path);
  } else if (Array.isArray(value)) {
    for (const item of value) collect(item, found);
  } else if (isObject(value)) {
    for (const item of Object.values(value)) collect(item, found);
  }
}

/** Every path a task may read: input, fields, auth, rules and `set`; program text is not read. */
export function readTaskPaths(task: Task, stepInput: Fields = {}): string[][] {
  const { source, ...script } = isObject(task.config["script"]) ? task.config["script"] : {};
  const shown = isObject(source) ? withoutPrograms(source) : source;
  const config = {
    ...withoutPrograms(task.config),
    script: [task.config["script"] && script, shown],
  };
  const guards = task.rules.map(rule =>
    typeof rule.when === "string" ? guardSource(rule.when) : undefined,
  );
  const rules = task.rules.map(rule => [rule.set, rule.delay]);
  const paths = readPaths([stepInput, task.input, config, task.auth, guards, rules, task.set]);
  return asksForContext(task) ? [...paths, ...CONTEXT.map(root => [root])] : paths;
}

/** What `context` is made of. */
const CONTEXT = ["workload", "ctx", "steps"];

function withoutPrograms(fields: Fields): Fields {
  return Object.fromEntries(Object.entries(fields).filter(([key]) => !isProgram(key)));
}

/** What a `set` writes, by scope; each value whole, ready for a shallow merge. */
export interface Writes {
  ctx: Record<string, Json>;
  iter: Record<string, Json>;
  /** Bare names and `step.x`. */
  local: Record<string, Json>;
}

/**
 * Renders a `set` map: all values against the scope as it was before. Prefixes are stripped; a
 * deeper key (`ctx.a.b`) gives the whole of `ctx.a` with `b` changed. Throws TemplateError.
 */
export function renderSet(set: Fields, scope: Scope): Writes {
  const writes: Writes = { ctx: {}, iter: {}, local: {} };
  const rendered = Object.entries(set).map(
    ([key, value]) => [key, renderValue(value, scope, "typed") as Json] as const,
  );
  for (const [key, value] of rendered) {
    const [prefix = "", ...rest] = key.split(".");
    const target = prefix === "ctx" || prefix === "iter" ? prefix : "local";
    const scoped = rest.length > 0 && (target !== "local" || prefix === "step");
    const path = scoped ? rest : [prefix, ...rest];
    const root = path[0] ?? "";
    if (path.length > 1 && !isForbidden(root) && !Object.hasOwn(writes[target], root)) {
      const current = currentValue(target, root, scope);
      if (isObject(current)) writes[target][root] = current as Json;
    }
    writes[target] = mergeDotted(writes[target], { [path.join(".")]: value });
  }
  return writes;
}

function currentValue(target: keyof Writes, root: string, scope: Scope): unknown {
  if (target === "local") return unwrap(scope.get(root));
  const whole = unwrap(scope.get(target));
  return isObject(whole) && Object.hasOwn(whole, root) ? whole[root] : undefined;
}

/** A copy of `base` with each write made; dots in a key lead into nested maps, which are copied. */
export function mergeDotted(
  base: Record<string, Json>,
  writes: Record<string, Json>,
): Record<string, Json> {
  const result = { ...base };
  for (const [key, value] of Object.entries(writes)) assign(result, key, value);
  return result;
}

/** Writes one value at a dotted key, copying the maps on its way. Changes `target` itself. */
export function assign(target: Record<string, Json>, key: string, value: Json): void {
  const [root = "", ...rest] = key.split(".");
  if (isForbidden(root)) {
    throw new TemplateError(`'${root}' cannot be set`, key, { line: 1, column: 1 });
  }
  if (rest.length === 0) {
    target[root] = value;
    return;
  }
  const below = Object.hasOwn(target, root) ? target[root] : undefined;
  const copy = isObject(below) ? { ...(below as Record<string, Json>) } : {};
  assign(copy, rest.join("."), value);
  target[root] = copy;
}
