/** YAML nodes to plain JSON values, with the checks that YAML itself does not make. */
import { isAlias, isMap, isScalar, isSeq } from "yaml";
import type { Alias, Node, Pair, Scalar, YAMLMap, YAMLSeq } from "yaml";
import { isObject } from "../json.ts";

/** Bytes of text a playbook may have once its aliases are written out. */
export const MAX_EXPANDED_BYTES = 4 * 1024 * 1024;
/** How many `*alias` a playbook may use. */
export const MAX_ALIASES = 1000;
/** How deep maps and lists may nest. */
export const MAX_DEPTH = 100;

export interface YamlProblem {
  /** Character position in the text. */
  offset: number;
  message: string;
  hint?: string;
  /** true when reading cannot go on. */
  fatal?: boolean;
}

export interface YamlValues {
  value: unknown;
  /** What each alias stands for, so that places inside of it can be found. */
  targets: Map<Node, Node>;
  problems: YamlProblem[];
  warnings: YamlProblem[];
}

interface Measured {
  value: unknown;
  bytes: number;
  depth: number;
}

interface Reading extends YamlValues {
  /** The last node of each anchor name; without `measured` while it is still being read. */
  anchors: Map<string, { node: Node; measured?: Measured }>;
  aliases: number;
}

/** Thrown inside this file only, to leave the recursion at a limit. */
class Limit extends Error {
  readonly problem: YamlProblem;

  constructor(problem: YamlProblem) {
    super(problem.message);
    this.problem = problem;
  }
}

/** Plain values of a document's content. Never throws: what is wrong is in `problems`. */
export function yamlValues(root: Node | null): YamlValues {
  const reading: Reading = {
    value: null,
    targets: new Map(),
    problems: [],
    warnings: [],
    anchors: new Map(),
    aliases: 0,
  };
  try {
    reading.value = readNode(reading, root).value;
  } catch (error) {
    if (!(error instanceof Limit)) throw error;
    reading.problems.push({ ...error.problem, fatal: true });
  }
  return reading;
}

function readNode(reading: Reading, node: Node | null | undefined): Measured {
  if (!node) return { value: null, bytes: 1, depth: 0 };
  if (isAlias(node)) return readAlias(reading, node);
  const anchor = node.anchor;
  if (anchor) reading.anchors.set(anchor, { node });
  const measured = readContent(reading, node);
  if (measured.bytes > MAX_EXPANDED_BYTES) {
    throw new Limit({
      offset: offsetOf(node),
      message: `aliases expand to more than ${MAX_EXPANDED_BYTES} bytes`,
      hint: "use fewer or smaller anchors",
    });
  }
  if (measured.depth > MAX_DEPTH) {
    throw new Limit({
      offset: offsetOf(node),
      message: `maps and lists nest deeper than ${MAX_DEPTH} levels`,
    });
  }
  if (anchor) reading.anchors.set(anchor, { node, measured });
  return measured;
}

function readContent(reading: Reading, node: Node): Measured {
  if (isMap(node)) return readYamlMap(reading, node);
  if (isSeq(node)) return readYamlSeq(reading, node);
  return readScalar(reading, node as Scalar);
}

function readAlias(reading: Reading, alias: Alias): Measured {
  const offset = offsetOf(alias);
  if (++reading.aliases > MAX_ALIASES) {
    throw new Limit({ offset, message: `more than ${MAX_ALIASES} aliases` });
  }
  const anchor = reading.anchors.get(alias.source);
  if (!anchor?.measured) {
    const message = anchor
      ? `alias '*${alias.source}' is inside of what it stands for`
      : `alias '*${alias.source}' has no anchor before it`;
    const hint = "quote the value if it is not meant as an alias";
    reading.problems.push({ offset, message, hint });
    return { value: null, bytes: 1, depth: 0 };
  }
  reading.targets.set(alias, anchor.node);
  return anchor.measured;
}

function readYamlSeq(reading: Reading, seq: YAMLSeq): Measured {
  const result: unknown[] = [];
  let bytes = 2;
  let depth = 0;
  for (const item of seq.items) {
    const measured = readNode(reading, item as Node);
    result.push(measured.value);
    bytes += measured.bytes + 1;
    depth = Math.max(depth, measured.depth);
  }
  return { value: result, bytes, depth: depth + 1 };
}

function readYamlMap(reading: Reading, map: YAMLMap): Measured {
  const own: Record<string, unknown> = {};
  const merged: Record<string, unknown>[] = [];
  let bytes = 2;
  let depth = 0;
  for (const pair of map.items as Pair<Node, Node | null>[]) {
    const key = readKey(reading, pair.key);
    const measured = readNode(reading, pair.value);
    bytes += measured.bytes + (key?.length ?? 0) + 2;
    depth = Math.max(depth, measured.depth);
    if (key === undefined) continue;
    if (isMergeKey(pair.key)) {
      for (const source of [measured.value].flat()) if (isObject(source)) merged.push(source);
    } else if (Object.hasOwn(own, key)) {
      reading.problems.push({
        offset: offsetOf(pair.key),
        message: `key '${key}' is written twice in one map`,
        hint: "keep one of the two",
      });
    } else {
      own[key] = measured.value;
    }
  }
  const value: Record<string, unknown> = {};
  for (const source of merged.reverse()) Object.assign(value, source);
  return { value: Object.assign(value, own), bytes, depth: depth + 1 };
}

function readKey(reading: Reading, node: Node): string | undefined {
  if (!isScalar(node)) {
    reading.problems.push({
      offset: offsetOf(node),
      message: "a map or list cannot be a key",
      hint: 'quote a value that begins with a template: "{{ … }}"',
    });
    return undefined;
  }
  const key = typeof node.value === "string" ? node.value : (node.source ?? String(node.value));
  if (key !== "__proto__") return key;
  reading.problems.push({ offset: offsetOf(node), message: "key '__proto__' is not allowed" });
  return undefined;
}

/** true for a bare `<<`, which merges the maps it stands before (YAML 1.1, widely written). */
export function isMergeKey(key: Node): boolean {
  return isScalar(key) && key.value === "<<" && key.type === "PLAIN";
}

function readScalar(reading: Reading, node: Scalar): Measured {
  const { value } = node;
  const source = node.source ?? "";
  if (typeof value === "string") return { value, bytes: value.length + 2, depth: 0 };
  if (value === null || typeof value === "boolean") return { value, bytes: 5, depth: 0 };
  const offset = offsetOf(node);
  if (typeof value !== "number" || !Number.isFinite(value)) {
    const message = `${source || String(value)} is not a JSON value`;
    reading.problems.push({ offset, message, hint: "quote it to make it text" });
    return { value: null, bytes: 5, depth: 0 };
  }
  if (Number.isInteger(value) && !Number.isSafeInteger(value) && /^[-+]?\d+$/.test(source)) {
    const message = `${source} has more digits than a number can hold and is kept as text`;
    reading.warnings.push({ offset, message, hint: "quote it" });
    return { value: source, bytes: source.length + 2, depth: 0 };
  }
  return { value, bytes: source.length + 1, depth: 0 };
}

/** Where a node begins, in characters from the start of the text. */
export function offsetOf(node: Node): number {
  return node.range?.[0] ?? 0;
}
