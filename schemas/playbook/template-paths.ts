/** Which names and members a template reads, as far as that is known without running it. */
import { isConstant } from "./template-expressions.ts";
import type { Node } from "./template-syntax.ts";

/** Each path is a root name and the literal members after it, cut at a computed member. */
export function pathsOf(root: Node): string[][] {
  const found = new Map<string, string[]>();
  walk(root, new Set(), path => found.set(path.join("\u0000"), path));
  return [...found.values()];
}

type Found = (path: string[]) => void;

function walk(node: Node | null | undefined, bound: Set<string>, found: Found): void {
  if (!node || typeof node !== "object" || typeof node.typename !== "string") return;
  switch (node.typename) {
    case "Symbol":
    case "LookupVal":
      return walkPath(node, bound, found);
    case "FunCall":
      if (node.name.typename === "LookupVal") walk(node.name.target, bound, found);
      return walk(node.args, bound, found);
    case "Filter":
      return walk(node.args, bound, found);
    case "Is":
      walk(node.left, bound, found);
      return walk(node.right.args, bound, found);
    case "KeywordArgs":
      for (const pair of node.children) walk(pair.value as Node, bound, found);
      return;
    case "Loop":
      return walkLoop(node, bound, found);
    case "Set":
      walk(node.value as Node | null, bound, found);
      walk(node.body, bound, found);
      for (const target of node.targets) bound.add(String(target.value));
      return;
    default:
      walkFields(node, bound, found);
  }
}

function walkFields(node: Node, bound: Set<string>, found: Found): void {
  for (const child of node.children ?? []) walk(child, bound, found);
  for (const op of node.ops ?? []) walk(op, bound, found);
  const { target, left, right, cond, body, else_, key, expr, start, stop, step } = node;
  for (const child of [target, left, right, cond, body, else_, key, expr, start, stop, step]) {
    walk(child, bound, found);
  }
  walk(node.value as Node, bound, found);
}

/** A name bound by a loop is a local inside it and unknown after it. */
function walkLoop(node: Node, bound: Set<string>, found: Found): void {
  walk(node.arr, bound, found);
  const inner = new Set([...bound, "loop", ...node.targets.map(name => String(name.value))]);
  walk(node.cond, inner, found);
  walk(node.body, inner, found);
  walk(node.else_, new Set(bound), found);
}

function walkPath(node: Node, bound: Set<string>, found: Found): void {
  const members: string[] = [];
  let base = node;
  while (base.typename === "LookupVal") {
    const { typename, value } = base.val;
    if (typename === "Literal" && (typeof value === "string" || typeof value === "number")) {
      members.unshift(String(value));
    } else {
      members.length = 0;
      walk(base.val, bound, found);
    }
    base = base.target;
  }
  if (base.typename !== "Symbol") return walk(base, bound, found);
  const root = String(base.value);
  if (!isConstant(root) && !bound.has(root)) found([root, ...members]);
}
