/** What compiling needs everywhere: the source, the way down, and places for errors. */
import { Interrupt, Problem, TemplateError } from "./template-error.ts";
import type { Node } from "./template-syntax.ts";
import { nearest } from "./nearest.ts";
import type { Run } from "./template-values.ts";

export type Evaluator = (run: Run) => unknown;

/** What is being compiled: the source, for error places, and how deep we are. */
export interface Compilation {
  source: string;
  depth: number;
  /** Compiles a part of the expression at hand. */
  compile(node: Node): Evaluator;
}

export function problemAt(
  c: Compilation,
  node: Node,
  message: string,
  hint?: string,
): TemplateError {
  return new TemplateError(message, c.source, placeOf(node), hint);
}

function placeOf(node: Node): { line: number; column: number } {
  return { line: node.lineno + 1, column: node.colno + 1 };
}

/** Runs a fallible operation and gives what it throws the place of its node. */
export function guarded(c: Compilation, node: Node, call: Evaluator): Evaluator {
  return run => {
    try {
      return call(run);
    } catch (error) {
      if (error instanceof TemplateError || error instanceof Interrupt) throw error;
      const hint = error instanceof Problem ? error.hint : undefined;
      throw problemAt(c, node, error instanceof Error ? error.message : String(error), hint);
    }
  };
}

/** A name that is not in a table, with the nearest one that is. */
export function unknownName(c: Compilation, node: Node, what: string, name: string, all: string[]) {
  const near = nearest(name, all);
  const hint = near === undefined ? `${what}s: ${all.join(", ")}` : `did you mean '${near}'?`;
  return problemAt(c, node, `unknown ${what} '${name}'`, hint);
}
