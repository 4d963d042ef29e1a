/** Text, `{{ … }}`, `{% if %}`, `{% for %}` and `{% set %}` → closures that write text. */
import { MAX_ITERATIONS, Problem } from "./template-error.ts";
import { guarded, problemAt } from "./template-compilation.ts";
import type { Compilation, Evaluator } from "./template-compilation.ts";
import { compileExpression } from "./template-expressions.ts";
import type { Node } from "./template-syntax.ts";
import { fits, itemsOf, kindOf, spend, toText, truthy } from "./template-values.ts";
import type { Run } from "./template-values.ts";
import { unwrap } from "./view.ts";

/** The text of one render, bounded. */
export class Output {
  readonly parts: string[] = [];
  chars = 0;

  write(text: string): void {
    this.chars += text.length;
    fits(this.chars);
    this.parts.push(text);
  }

  toString(): string {
    return this.parts.join("");
  }
}

export type Writer = (run: Run, out: Output) => void;

/** A list of nodes. Throws TemplateError for nodes that are not allowed. */
export function compileStatements(nodes: Node[], c: Compilation): Writer {
  const writers = nodes.map(node => compileStatement(node, c));
  return (run, out) => {
    for (const write of writers) write(run, out);
  };
}

function compileStatement(node: Node, c: Compilation): Writer {
  switch (node.typename) {
    case "NodeList":
      return compileStatements(node.children, c);
    case "Output":
      return compileOutput(node, c);
    case "If":
      return compileIf(node, c);
    case "Loop":
      return compileLoop(node, c);
    case "Set":
      return compileSet(node, c);
    default:
      throw problemAt(c, node, `${node.typename} is not allowed`);
  }
}

function compileOutput(node: Node, c: Compilation): Writer {
  const writers = node.children.map((child): Writer => {
    if (child.typename === "TemplateData") {
      const text = String(child.value);
      return (_run, out) => out.write(text);
    }
    const evaluator = guarded(c, child, textOf(compileExpression(child, c)));
    return (run, out) => out.write(evaluator(run) as string);
  });
  const [only] = writers;
  if (writers.length === 1 && only) return only;
  return (run, out) => {
    for (const write of writers) write(run, out);
  };
}

function textOf(evaluator: Evaluator): Evaluator {
  return run => toText(evaluator(run));
}

function compileIf(node: Node, c: Compilation): Writer {
  const cond = compileExpression(node.cond as Node, c);
  const body = compileStatement(node.body as Node, c);
  const otherwise = node.else_ ? compileStatement(node.else_, c) : undefined;
  return (run, out) => {
    if (truthy(cond(run))) body(run, out);
    else otherwise?.(run, out);
  };
}

function compileLoop(node: Node, c: Compilation): Writer {
  const names = node.targets.map(target => String(target.value));
  const list = guarded(c, node, itemsFor(compileExpression(node.arr, c), names.length > 1));
  const cond = node.cond && compileExpression(node.cond, c);
  const body = compileStatement(node.body as Node, c);
  const otherwise = node.else_ && compileStatement(node.else_, c);
  const count = guarded(c, node, run => {
    if (++run.iterations > MAX_ITERATIONS) {
      throw new Problem(`more than ${MAX_ITERATIONS} iterations in one template`);
    }
    spend(run, 1);
    return undefined;
  });
  return (run, out) => {
    const outer = run.frame;
    const chosen: Map<string, unknown>[] = [];
    for (const item of list(run) as unknown[]) {
      count(run);
      const vars = bind(names, item);
      run.frame = { vars, parent: outer };
      if (!cond || truthy(cond(run))) chosen.push(vars);
    }
    for (const [index, vars] of chosen.entries()) {
      vars.set("loop", loopView(index, chosen.length));
      run.frame = { vars, parent: outer };
      body(run, out);
    }
    run.frame = outer;
    if (chosen.length === 0) otherwise?.(run, out);
  };
}

/** With two names a map gives its entries, and `groupby` its groups. */
function itemsFor(evaluator: Evaluator, several: boolean): Evaluator {
  return run => {
    const value = unwrap(evaluator(run));
    const isMap = typeof value === "object" && value !== null && !Array.isArray(value);
    if (several && isMap) return Object.entries(value);
    return itemsOf(value);
  };
}

function bind(names: string[], item: unknown): Map<string, unknown> {
  const [first] = names;
  if (names.length === 1 && first !== undefined) return new Map([[first, item]]);
  const isMap = typeof item === "object" && item !== null && !Array.isArray(item);
  const values: unknown[] = isMap ? Object.values(item) : itemsOf(item);
  return new Map(names.map((name, at) => [name, values[at]]));
}

function loopView(index: number, length: number): Record<string, unknown> {
  return {
    index: index + 1,
    index0: index,
    revindex: length - index,
    revindex0: length - index - 1,
    first: index === 0,
    last: index === length - 1,
    length,
  };
}

function compileSet(node: Node, c: Compilation): Writer {
  const names = node.targets.map(target => {
    if (target.typename === "Symbol") return String(target.value);
    throw problemAt(c, node, "set writes plain names only");
  });
  const value = node.value ? compileExpression(node.value as Node, c) : compileCapture(node, c);
  const unpack = guarded(c, node, run => {
    const list = unwrap(value(run));
    if (!Array.isArray(list)) throw new Problem(`cannot unpack ${kindOf(list)}`);
    return list;
  });
  return run => {
    const frame = (run.frame ??= { vars: new Map(), parent: undefined });
    if (names.length === 1) frame.vars.set(names[0] ?? "", value(run));
    else {
      const list = unpack(run) as unknown[];
      for (const [at, name] of names.entries()) frame.vars.set(name, list[at]);
    }
  };
}

/** `{% set x %}text{% endset %}`. */
function compileCapture(node: Node, c: Compilation): Evaluator {
  const body = compileStatement((node.body as Node).body as Node, c);
  return guarded(c, node, run => {
    const out = new Output();
    body(run, out);
    spend(run, out.chars >> 4);
    return out.toString();
  });
}
