/** Syntax tree → closures that evaluate it. No code is generated; unknown names are refused. */
import { compileCall, compileFilter, compileTest } from "./template-calls.ts";
import { guarded, problemAt } from "./template-compilation.ts";
import type { Compilation, Evaluator } from "./template-compilation.ts";
import { MAX_DEPTH, Problem } from "./template-error.ts";
import { ARITHMETIC, COMPARISONS, signed } from "./template-operators.ts";
import type { Node } from "./template-syntax.ts";
import { charge, harmless, isForbidden, kindOf, measureRepeated } from "./template-values.ts";
import { member, spend, toNative, toText, truthy } from "./template-values.ts";
import type { Run } from "./template-values.ts";
import { View, unwrap } from "./view.ts";

const CONSTANTS: ReadonlyMap<string, unknown> = new Map<string, unknown>([
  ["True", true],
  ["False", false],
  ["None", null],
]);

/** Names that are values and not variables. */
export function isConstant(name: string): boolean {
  return CONSTANTS.has(name);
}

/** The start of compiling one source. */
export function newCompilation(source: string): Compilation {
  const c: Compilation = { source, depth: 0, compile: node => compileExpression(node, c) };
  return c;
}

/** One expression. Throws TemplateError for what is unknown or not allowed. */
export function compileExpression(node: Node, c: Compilation): Evaluator {
  if (++c.depth > MAX_DEPTH) {
    throw problemAt(c, node, `the expression is nested deeper than ${MAX_DEPTH} levels`);
  }
  const compiled = byType(node, c);
  c.depth--;
  return compiled;
}

function byType(node: Node, c: Compilation): Evaluator {
  switch (node.typename) {
    case "Literal":
      return constant(node.value);
    case "Symbol":
      return compileName(node);
    case "LookupVal":
      return compileLookup(node, c);
    case "Group":
      return compileExpression(node.children[0] as Node, c);
    case "Array":
      return compileList(node, c);
    case "Dict":
      return compileMap(node, c);
    case "Filter":
      return compileFilter(node, c);
    case "FunCall":
      return compileCall(node, c);
    case "Is":
      return compileTest(node, c);
    case "Compare":
      return compileCompare(node, c);
    case "InlineIf":
      return compileInlineIf(node, c);
    default:
      return compileOperator(node, c);
  }
}

function constant(value: unknown): Evaluator {
  return () => value;
}

function compileName(node: Node): Evaluator {
  const name = node.value as string;
  if (CONSTANTS.has(name)) return constant(CONSTANTS.get(name));
  return run => {
    for (let frame = run.frame; frame; frame = frame.parent) {
      if (frame.vars.has(name)) return frame.vars.get(name);
    }
    return harmless(run.scope.get(name));
  };
}

/** A chain of literal members is one loop over its keys, as most templates are nothing else. */
function compileLookup(node: Node, c: Compilation): Evaluator {
  const keys: unknown[] = [];
  let base = node;
  while (base.typename === "LookupVal" && base.val.typename === "Literal") {
    keys.unshift(base.val.value);
    base = base.target;
  }
  if (keys.length === 0) return compileDynamicLookup(node, c);
  const target = compileExpression(base, c);
  return run => {
    let value = target(run);
    for (const key of keys) {
      if (value === undefined || value === null) return undefined;
      value = member(value, key);
    }
    return value;
  };
}

function compileDynamicLookup(node: Node, c: Compilation): Evaluator {
  const target = compileExpression(node.target, c);
  if (node.val.typename === "Slice") return compileSlice(node, target, c);
  const key = compileExpression(node.val, c);
  return run => member(target(run), unwrap(key(run)));
}

function compileSlice(node: Node, target: Evaluator, c: Compilation): Evaluator {
  const { start, stop, step } = node.val;
  const parts = [start, stop, step].map(part => (part ? compileExpression(part, c) : undefined));
  return guarded(c, node, run => {
    const list = unwrap(target(run));
    if (list === undefined || list === null) return undefined;
    if (typeof list !== "string" && !Array.isArray(list)) {
      throw new Problem(`${kindOf(list)} cannot be sliced`);
    }
    charge(run, list);
    const [from, to, by] = parts.map(part => sliceIndex(part?.(run)));
    return sliceOf(list, from, to, by ?? 1);
  });
}

function sliceIndex(value: unknown): number | undefined {
  if (value === undefined || value === null) return undefined;
  if (typeof value === "number" && Number.isInteger(value)) return value;
  throw new Problem(`a slice wants integers, not ${kindOf(value)}`);
}

/** Python's slice: bounds are clipped, negative ones count from the end, steps may go back. */
function sliceOf(list: string | unknown[], from?: number, to?: number, step = 1): unknown {
  if (step === 0) throw new Problem("a slice step of 0");
  const size = list.length;
  const clip = (at: number) => {
    const index = at < 0 ? at + size : at;
    return step > 0 ? Math.max(0, Math.min(size, index)) : Math.max(-1, Math.min(size - 1, index));
  };
  const first = from === undefined ? (step > 0 ? 0 : size - 1) : clip(from);
  const last = to === undefined ? (step > 0 ? size : -1) : clip(to);
  if (step === 1) return list.slice(first, Math.max(first, last));
  const picked: unknown[] = [];
  for (let at = first; step > 0 ? at < last : at > last; at += step) picked.push(list[at]);
  return typeof list === "string" ? picked.join("") : picked;
}

function compileList(node: Node, c: Compilation): Evaluator {
  const items = node.children.map(item => compileExpression(item, c));
  return guarded(c, node, run => items.map(item => contained(item(run))));
}

/** Containers made by a template hold plain values only. */
function contained(value: unknown): unknown {
  return toNative(value) ?? null;
}

function compileMap(node: Node, c: Compilation): Evaluator {
  const pairs = node.children.map(pair => ({
    key: compileExpression(pair.key, c),
    value: compileExpression(pair.value as Node, c),
  }));
  return guarded(c, node, run => {
    const map: Record<string, unknown> = {};
    for (const pair of pairs) map[mapKey(pair.key(run))] = contained(pair.value(run));
    return map;
  });
}

function mapKey(raw: unknown): string {
  const key = unwrap(raw);
  if (key === undefined || key === null)
    throw new Problem("a map key is undefined", "quote the key");
  if (typeof key === "object") throw new Problem(`${kindOf(key)} cannot be a map key`);
  if (isForbidden(toText(key))) throw new Problem(`'${toText(key)}' cannot be a map key`);
  return toText(key);
}

function compileCompare(node: Node, c: Compilation): Evaluator {
  const first = compileExpression(node.expr, c);
  const steps = node.ops.map(op => ({
    compare: COMPARISONS.get(op.type) as (l: unknown, r: unknown, run: Run) => unknown,
    operand: compileExpression(op.expr, c),
  }));
  return guarded(c, node, run => {
    let left = first(run);
    for (const step of steps) {
      const right = step.operand(run);
      if (!step.compare(left, right, run)) return false;
      left = right;
    }
    return true;
  });
}

function compileInlineIf(node: Node, c: Compilation): Evaluator {
  const cond = compileExpression(node.cond as Node, c);
  const body = compileExpression(node.body as Node, c);
  const otherwise = node.else_ ? compileExpression(node.else_, c) : constant(undefined);
  return run => (truthy(cond(run)) ? body(run) : otherwise(run));
}

function compileOperator(node: Node, c: Compilation): Evaluator {
  const { typename } = node;
  if (typename === "Not" || typename === "Neg" || typename === "Pos") {
    const target = compileExpression(node.target, c);
    if (typename === "Not") return run => !truthy(target(run));
    return guarded(c, node, run => signed(target(run), typename === "Neg" ? -1 : 1));
  }
  const operate = ARITHMETIC.get(typename);
  const isLogic = typename === "And" || typename === "Or";
  if (!operate && !isLogic) throw problemAt(c, node, `${typename} is not allowed in an expression`);
  const left = compileExpression(node.left, c);
  const right = compileExpression(node.right, c);
  if (operate) return guarded(c, node, run => operate(left(run), right(run), run));
  return run => {
    const value = left(run);
    return truthy(value) === (typename === "And") ? right(run) : value;
  };
}

/** Checks a value a template made before it leaves, as parts shared inside it print many times. */
export function bounded(c: Compilation, node: Node, evaluator: Evaluator): Evaluator {
  return guarded(c, node, run => {
    const value = evaluator(run);
    if (typeof value === "object" && value !== null && !(value instanceof View))
      measureRepeated(value);
    spend(run, 1);
    return value;
  });
}
