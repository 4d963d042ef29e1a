/** Filters, calls and tests of an expression: looked up in the tables when compiled. */
import { guarded, problemAt, unknownName } from "./template-compilation.ts";
import type { Compilation, Evaluator } from "./template-compilation.ts";
import { FILTERS } from "./template-filters.ts";
import { FUNCTIONS, METHOD_NAMES, callMethod } from "./template-methods.ts";
import type { Node } from "./template-syntax.ts";
import { TESTS } from "./template-tests.ts";
import { charge, fits } from "./template-values.ts";
import type { Run } from "./template-values.ts";
import { unwrap } from "./view.ts";

interface Arguments {
  positional: Evaluator[];
  named: Map<string, Evaluator>;
}

function compileArguments(nodes: Node[], c: Compilation): Arguments {
  const result: Arguments = { positional: [], named: new Map() };
  for (const node of nodes) {
    if (node.typename !== "KeywordArgs") result.positional.push(c.compile(node));
    else {
      for (const pair of node.children) {
        result.named.set(String(pair.key.value), c.compile(pair.value as Node));
      }
    }
  }
  return result;
}

export function compileFilter(node: Node, c: Compilation): Evaluator {
  const name = String(node.name.value);
  const filter = FILTERS.get(name);
  if (!filter) throw unknownName(c, node, "filter", name, [...FILTERS.keys()]);
  const [subject, ...rest] = node.args.children as [Node, ...Node[]];
  const input = c.compile(subject);
  const given = compileArguments(rest, c);
  const slots: (Evaluator | undefined)[] = [...given.positional];
  for (const [key, value] of given.named) {
    const at = filter.params.indexOf(key);
    if (at < 0) throw unknownName(c, node, `parameter of ${name}`, key, filter.params);
    slots[at] = value;
  }
  if (slots.length > filter.params.length)
    throw problemAt(c, node, `too many arguments for ${name}`);
  for (let at = 0; at < (filter.required ?? 0); at++) {
    if (!slots[at]) throw problemAt(c, node, `${name} wants '${filter.params[at]}'`);
  }
  return guarded(c, node, run => {
    const value = filter.raw ? input(run) : unwrap(input(run));
    charge(run, value);
    const args = Array.from(slots, slot => (filter.raw ? slot?.(run) : unwrap(slot?.(run))));
    const result = filter.call(value, args, run);
    if (typeof result === "string") fits(result.length);
    return result;
  });
}

export function compileCall(node: Node, c: Compilation): Evaluator {
  const given = compileArguments(node.args.children, c);
  if (given.named.size > 0) throw problemAt(c, node, "calls take no named arguments");
  const args = (run: Run) => given.positional.map(arg => unwrap(arg(run)));
  if (node.name.typename === "Symbol") {
    const name = String(node.name.value);
    const called = FUNCTIONS.get(name);
    if (!called) throw unknownName(c, node.name, "function", name, [...FUNCTIONS.keys()]);
    const count = given.positional.length;
    if (count < called.min || count > called.max) {
      throw problemAt(c, node, `${name} does not take ${count} arguments`);
    }
    return guarded(c, node, run => called.call(args(run), run));
  }
  const lookup = node.name;
  if (lookup.typename !== "LookupVal" || typeof lookup.val.value !== "string") {
    throw problemAt(c, node, "only functions and methods can be called");
  }
  const method = lookup.val.value;
  if (!METHOD_NAMES.has(method))
    throw unknownName(c, lookup.val, "method", method, [...METHOD_NAMES]);
  const target = c.compile(lookup.target);
  return guarded(c, node, run => callMethod(target(run), method, args(run), run));
}

export function compileTest(node: Node, c: Compilation): Evaluator {
  const name = String(node.right.name.value);
  const test = TESTS.get(name);
  if (!test) throw unknownName(c, node.right, "test", name, [...TESTS.keys()]);
  const args = node.right.args.children.map(arg => c.compile(arg));
  if (args.length !== test.args) {
    throw problemAt(c, node, `test '${name}' takes ${test.args} arguments, not ${args.length}`);
  }
  const value = c.compile(node.left);
  return guarded(c, node, run => test.call(value(run), args[0]?.(run), run));
}
