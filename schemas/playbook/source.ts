/** The text of a playbook as plain values, with the line and column of each of them. */
import { Composer, isMap, isScalar, isSeq, Lexer, LineCounter, Parser } from "yaml";
import type { CST, Document, Node, Pair, ParsedNode, Scalar } from "yaml";
import { rejectIssues } from "../errors.ts";
import type { Issue } from "../errors.ts";
import { isMergeKey, MAX_DEPTH, offsetOf, yamlValues } from "./yaml-values.ts";
import type { YamlProblem } from "./yaml-values.ts";

/** The largest playbook, in bytes of UTF-8. */
export const MAX_PLAYBOOK_BYTES = 1024 * 1024;
/** Words, marks and blanks of YAML in one playbook: what reading it costs, in time and memory. */
export const MAX_YAML_TOKENS = 400_000;
/** Syntax errors after which the rest of the text is not read: it is refused anyway. */
const MAX_SYNTAX_ERRORS = 20;

/** Keys and list positions from the root of the file. */
export type Path = readonly (string | number)[];

/** Lines and columns count from 1. */
export interface Place {
  line: number;
  column: number;
}

export interface Source {
  file?: string;
  /** The whole file as JSON. */
  value: unknown;
  /** Duplicate keys, bad aliases and the like: reported beside what the grammar finds. */
  issues: Issue[];
  warnings: Issue[];
  /**
   * Where the value (or the key) at `path` is written; for what is missing, where its nearest
   * existing ancestor is.
   */
  place(path: Path, at?: "key" | "value"): Place;
  /** Where a line and column inside of the text at `path` are, as near as its quoting allows. */
  placeInText(path: Path, line: number, column: number): Place;
}

/**
 * Reads YAML text. Throws Rejected (422) when it is not one YAML document, or exceeds a limit;
 * 413 when it is too long.
 */
export function readSource(text: string, file?: string): Source {
  const bytes = Buffer.byteLength(text);
  if (bytes > MAX_PLAYBOOK_BYTES) {
    const message = `the playbook has ${bytes} bytes`;
    throw refusal([{ message, file, expected: `at most ${MAX_PLAYBOOK_BYTES}` }]);
  }
  const lines = new LineCounter();
  const toIssue = ({ message, offset, hint }: YamlProblem): Issue => ({
    message,
    file,
    ...placeAt(lines, offset),
    ...(hint && { hint }),
  });
  const document = composeDocument(text, lines, toIssue);
  const values = yamlValues(document.contents);
  if (values.problems.some(problem => problem.fatal)) throw refusal(values.problems.map(toIssue));
  const find = (path: Path) => findNode(document.contents, values.targets, path);
  return {
    file,
    value: values.value,
    issues: values.problems.map(toIssue),
    warnings: [...document.warnings.map(yamlProblem), ...values.warnings].map(toIssue),
    place(path, at = "value") {
      const { key, value } = find(path);
      const node = at === "key" || isEmpty(value) ? (key ?? value) : value;
      return placeAt(lines, node ? offsetOf(node) : 0);
    },
    placeInText(path, line, column) {
      const { value } = find(path);
      return isScalar(value) ? placeInScalar(text, lines, value, line, column) : this.place(path);
    },
  };
}

function refusal(issues: Issue[]) {
  return rejectIssues(issues, "the playbook cannot be read");
}

type ToIssue = (problem: YamlProblem) => Issue;

function composeDocument(text: string, lines: LineCounter, toIssue: ToIssue): Document.Parsed {
  const composer = new Composer({
    schema: "core",
    resolveKnownTags: false,
    uniqueKeys: false,
    prettyErrors: false,
    logLevel: "silent",
  });
  const tokens = boundedTokens(text, lines, (message, offset) =>
    refusal([toIssue({ message, offset })]),
  );
  const documents = [...composer.compose(tokens, true, text.length)];
  const document = documents[0] as Document.Parsed<ParsedNode>;
  const problems = document.errors.map(yamlProblem);
  const second = documents[1];
  if (second) {
    const message = "a second YAML document begins here";
    problems.push({ offset: second.range[0], message, hint: "one playbook is one document" });
  }
  if (problems.length > 0) throw refusal(problems.map(toIssue));
  return document;
}

/** YAML tokens; refuses deep nesting before anything recursive sees it, and endless detail. */
function* boundedTokens(
  text: string,
  lines: LineCounter,
  refused: (message: string, offset: number) => Error,
): Generator<CST.Token> {
  const parser = new Parser(lines.addNewLine);
  lines.addNewLine(0);
  let errors = 0;
  let count = 0;
  for (const lexeme of new Lexer().lex(text)) {
    for (const token of parser.next(lexeme)) {
      if (token.type === "error" && ++errors > MAX_SYNTAX_ERRORS) return;
      yield token;
    }
    if (++count > MAX_YAML_TOKENS) {
      throw refused(`more than ${MAX_YAML_TOKENS} words and marks of YAML`, parser.offset);
    }
    if (parser.stack.length > MAX_DEPTH) {
      throw refused(`maps and lists nest deeper than ${MAX_DEPTH} levels`, parser.offset);
    }
  }
  yield* parser.end();
}

function yamlProblem(error: { message: string; pos: [number, number] }): YamlProblem {
  return { message: error.message, offset: error.pos[0] };
}

function placeAt(lines: LineCounter, offset: number): Place {
  const { line, col } = lines.linePos(offset);
  return { line: Math.max(line, 1), column: Math.max(col, 1) };
}

interface Found {
  key?: Node;
  value?: Node;
}

function findNode(root: Node | null, targets: Map<Node, Node>, path: Path): Found {
  let found: Found = { value: root ?? undefined };
  for (const part of path) {
    const child = childOf(found.value, targets, part);
    if (!child) return found;
    found = child;
  }
  return found;
}

function childOf(
  alias: Node | undefined,
  targets: Map<Node, Node>,
  part: string | number,
): Found | undefined {
  const node = alias && (targets.get(alias) ?? alias);
  if (isSeq(node)) {
    const value = node.items[Number(part)] as Node | undefined;
    return value && { value };
  }
  if (!isMap(node)) return undefined;
  const pairs = node.items as Pair<Node, Node | null>[];
  const own = pairs.find(pair => isScalar(pair.key) && keyText(pair.key) === String(part));
  if (own) return { key: own.key, value: own.value ?? undefined };
  for (const { key, value } of pairs) {
    if (!isMergeKey(key) || !value) continue;
    for (const source of isSeq(value) ? (value.items as Node[]) : [value]) {
      const merged = childOf(source, targets, part);
      if (merged) return merged;
    }
  }
  return undefined;
}

function keyText(key: Scalar): string {
  return typeof key.value === "string" ? key.value : (key.source ?? String(key.value));
}

function isEmpty(node: Node | undefined): boolean {
  return !node || (isScalar(node) && node.value === null);
}

/** Block text keeps its lines, one-line text its columns; of folded text only the start is sure. */
function placeInScalar(
  text: string,
  lines: LineCounter,
  node: Scalar,
  line: number,
  column: number,
): Place {
  const start = placeAt(lines, offsetOf(node));
  if (node.type === "BLOCK_LITERAL") {
    const body = text.slice(offsetOf(node)).slice(0, (node.range?.[1] ?? 0) - offsetOf(node));
    const indent = /\n([ ]*)[^ \n\r]/.exec(body)?.[1]?.length ?? 0;
    return { line: start.line + line, column: indent + column };
  }
  const written = text.slice(offsetOf(node), node.range?.[1]);
  if (line > 1 || written.includes("\n")) return start;
  const quote = node.type === "PLAIN" ? 0 : 1;
  return { line: start.line, column: start.column + quote + column - 1 };
}
