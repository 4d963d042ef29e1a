/** The part of nunjucks that is used, typed: nodes, parser class, lexer with two repairs. */
import nunjucks from "nunjucks";

/** A node of nunjucks' tree. Which fields are there depends on `typename`. */
export interface Node {
  typename: string;
  lineno: number;
  colno: number;
  children: Node[];
  value: unknown;
  target: Node;
  val: Node;
  left: Node;
  right: Node;
  cond: Node | null;
  body: Node | null;
  else_: Node | null;
  name: Node;
  args: Node;
  key: Node;
  expr: Node;
  ops: Node[];
  type: string;
  arr: Node;
  targets: Node[];
  start: Node | null;
  stop: Node | null;
  step: Node | null;
}

export interface Token {
  type: string;
  value: string;
  lineno: number;
  colno: number;
}

export interface Tokenizer {
  in_code: boolean;
  nextToken(): Token | null;
  _matches(text: string): boolean | null;
  _extractString(text: string): string | null;
}

export interface BaseParser {
  tokens: Tokenizer;
  breakOnBlocks: string[] | null;
  nextToken(): Token | null;
  peekToken(): Token | null;
  pushToken(token: Token | null): void;
  skip(type: string): boolean;
  skipSymbol(value: string): boolean;
  skipValue(type: string, value: string): boolean;
  fail(message: string, lineno?: number, colno?: number): never;
  advanceAfterBlockEnd(name?: string): Token;
  parseUntilBlocks(...names: string[]): Node;
  parseAsRoot(): Node;
  parseStatement(): Node | null;
  parseIf(): Node;
  parseFor(): Node;
  parseExpression(): Node;
  parseInlineIf(): Node;
  parseOr(): Node;
  parseNot(): Node;
  parseUnary(noFilters?: boolean): Node;
  parsePrimary(noPostfix?: boolean): Node;
  parsePostfix(node: Node): Node;
  parseSignature(): Node;
  parseAggregate(): Node | null;
}

type NodeClass = (new (lineno: number, colno: number, ...fields: unknown[]) => Node) & {
  extend(name: string, props: { fields: string[] }): NodeClass;
};

interface Internals {
  lexer: { lex(source: string): Tokenizer };
  parser: { Parser: new (tokens: Tokenizer) => BaseParser };
  nodes: Record<string, NodeClass>;
}

const { lexer, parser, nodes } = nunjucks as unknown as Internals;

/** nunjucks' parser, to be extended. */
export const { Parser } = parser;

export const Slice = nodeClass("Node").extend("Slice", { fields: ["start", "stop", "step"] });
export const Loop = nodeClass("Node").extend("Loop", {
  fields: ["targets", "arr", "cond", "body", "else_"],
});

function nodeClass(name: string): NodeClass {
  const found = nodes[name];
  if (found === undefined) throw new Error(`nunjucks has no node ${name}`);
  return found;
}

export function make(
  name: string,
  at: { lineno: number; colno: number },
  ...fields: unknown[]
): Node {
  return new (nodeClass(name))(at.lineno, at.colno, ...fields);
}

/**
 * nunjucks ends an expression at the first `}}` and refuses a bare `#}` in text. Here `}}` closes
 * the tag only when no map is open, as in Jinja, and `#}` outside a comment is text.
 */
export function tokenize(source: string): Tokenizer {
  const tokens = lexer.lex(source);
  const { nextToken, _matches: matches, _extractString: extract } = tokens;
  let open = 0;
  let inComment = false;
  tokens.nextToken = () => {
    const token = nextToken.call(tokens);
    if (token?.type === "variable-start" || token?.type === "block-start") open = 0;
    if (token?.type === "left-curly") open++;
    if (token?.type === "right-curly") open--;
    return token;
  };
  tokens._matches = text => {
    if (text === "#}" && !inComment) return false;
    return matches.call(tokens, text);
  };
  tokens._extractString = text => {
    if (tokens.in_code && open > 0 && text.endsWith("}}")) return null;
    const found = extract.call(tokens, text);
    if (found === "{#") inComment = true;
    if (found === "#}") inComment = false;
    return found;
  };
  return tokens;
}
