/**
 * Tokens → syntax tree. nunjucks lexes and reads tags; the expression grammar is Jinja's, which
 * nunjucks changes in places: `7 * 3 // 2`, `~` against `+`, `is`, chained `if`, slices.
 */
import { MAX_DEPTH } from "./template-error.ts";
import { Loop, Parser, Slice, make } from "./template-syntax.ts";
import type { Node, Token } from "./template-syntax.ts";

const TAGS = new Set(["if", "for", "set", "raw", "verbatim"]);
const COMPARISONS = new Set(["==", "!=", "<", ">", "<=", ">="]);
const AFTER_TEST = new Set(["else", "or", "and", "if", "is", "not", "in"]);
const TEST_ARGUMENTS = new Set(
  "symbol string int float boolean none left-bracket left-curly".split(" "),
);
const CLOSER: Record<string, string> = {
  "left-paren": "right-paren",
  "left-bracket": "right-bracket",
  "left-curly": "right-curly",
};
const NAME = /^[\p{L}_][\p{L}\p{N}_]*$/u;

/** Reads a token stream by Jinja's grammar; throws nunjucks' errors, which carry a place. */
export class JinjaParser extends Parser {
  depth = 0;

  /** Recursive rules go through here: a deep source is an error and not a stack overflow. */
  deeper<T>(rule: () => T): T {
    if (++this.depth > MAX_DEPTH) this.fail(`nested deeper than ${MAX_DEPTH} levels`);
    const result = rule();
    this.depth--;
    return result;
  }

  here(): Token {
    return this.peekToken() ?? this.fail("unexpected end of the template");
  }

  isSymbol(...values: string[]): boolean {
    const token = this.peekToken();
    return token?.type === "symbol" && values.includes(token.value);
  }

  override parseStatement(): Node | null {
    const token = this.here();
    const closing = this.breakOnBlocks?.includes(token.value) ?? false;
    if (!closing && !TAGS.has(token.value)) {
      const allowed = "tags are if, for, set and raw";
      this.fail(`tag '${token.value}' is not allowed; ${allowed}`, token.lineno, token.colno);
    }
    return this.deeper(() => super.parseStatement());
  }

  override parseIf(): Node {
    return this.deeper(() => super.parseIf());
  }

  override parseFor(): Node {
    const token = this.here();
    this.skipSymbol("for");
    const targets = [this.parseName()];
    while (this.skip("comma")) targets.push(this.parseName());
    if (!this.skipSymbol("in")) this.fail("expected 'in' after the loop variable");
    const list = this.parseOr();
    const cond = this.skipSymbol("if") ? this.parseExpression() : null;
    if (this.isSymbol("recursive")) this.fail("recursive loops are not allowed");
    this.advanceAfterBlockEnd("for");
    const body = this.parseUntilBlocks("endfor", "else");
    let otherwise: Node | null = null;
    if (this.skipSymbol("else")) {
      this.advanceAfterBlockEnd("else");
      otherwise = this.parseUntilBlocks("endfor");
    }
    this.advanceAfterBlockEnd();
    return new Loop(token.lineno, token.colno, targets, list, cond, body, otherwise);
  }

  parseName(): Node {
    const token = this.here();
    if (token.type !== "symbol" || !NAME.test(token.value)) this.fail("expected a variable name");
    this.nextToken();
    return make("Symbol", token, token.value);
  }

  override parseExpression(): Node {
    return this.deeper(() => this.parseInlineIf());
  }

  override parseInlineIf(): Node {
    const body = this.parseOr();
    if (!this.skipSymbol("if")) return body;
    const cond = this.parseOr();
    const otherwise = this.skipSymbol("else") ? this.deeper(() => this.parseInlineIf()) : null;
    return make("InlineIf", body, cond, body, otherwise);
  }

  override parseNot(): Node {
    const token = this.here();
    if (!this.skipSymbol("not")) return this.parseCompare();
    return this.deeper(() => make("Not", token, this.parseNot()));
  }

  parseCompare(): Node {
    const first = this.parseSum();
    const ops: Node[] = [];
    for (let op = this.comparison(); op !== undefined; op = this.comparison()) {
      ops.push(make("CompareOperand", op.token, this.parseSum(), op.type));
    }
    return ops.length > 0 ? make("Compare", first, first, ops) : first;
  }

  comparison(): { token: Token; type: string } | undefined {
    const token = this.peekToken();
    if (token === null) return undefined;
    if (token.type === "operator" && COMPARISONS.has(token.value)) {
      this.nextToken();
      return { token, type: token.value };
    }
    if (this.skipSymbol("in")) return { token, type: "in" };
    if (this.skipSymbol("not")) {
      if (!this.skipSymbol("in")) this.fail("expected 'in' after 'not'");
      return { token, type: "not in" };
    }
    return undefined;
  }

  parseSum(): Node {
    return this.leftToRight(() => this.parseConcatenation(), { "+": "Add", "-": "Sub" });
  }

  parseConcatenation(): Node {
    return this.leftToRight(() => this.parseProduct(), { "~": "Concat" });
  }

  parseProduct(): Node {
    const ops = { "*": "Mul", "/": "Div", "//": "FloorDiv", "%": "Mod" };
    return this.leftToRight(() => this.parsePower(), ops);
  }

  parsePower(): Node {
    return this.leftToRight(() => this.parseUnary(), { "**": "Pow" });
  }

  leftToRight(operand: () => Node, ops: Record<string, string>): Node {
    let node = operand();
    for (;;) {
      const token = this.peekToken();
      const isOperator = token?.type === "operator" || token?.type === "tilde";
      if (!isOperator || !Object.hasOwn(ops, token.value)) return node;
      this.nextToken();
      node = make(ops[token.value] ?? "", token, node, operand());
    }
  }

  override parseUnary(noFilters?: boolean): Node {
    const token = this.here();
    const sign = token.type === "operator" && { "-": "Neg", "+": "Pos" }[token.value];
    let node: Node;
    if (sign) {
      this.nextToken();
      node = make(
        sign,
        token,
        this.deeper(() => this.parseUnary(true)),
      );
    } else {
      node = this.parsePrimary();
    }
    return noFilters ? node : this.parseFiltersAndTests(node);
  }

  parseFiltersAndTests(start: Node): Node {
    let node = start;
    for (;;) {
      const token = this.peekToken();
      if (this.skip("pipe")) {
        const name = this.parseDottedName("a filter name");
        const args = this.peekToken()?.type === "left-paren" ? this.parseSignature().children : [];
        node = make("Filter", name, name, make("NodeList", name, [node, ...args]));
      } else if (token?.type === "symbol" && token.value === "is") {
        this.nextToken();
        node = this.parseTest(node);
      } else {
        return node;
      }
    }
  }

  parseTest(subject: Node): Node {
    const negated = this.skipSymbol("not");
    const name = this.parseDottedName("a test name");
    const next = this.peekToken();
    let args: Node[] = [];
    if (next?.type === "left-paren") args = this.parseSignature().children;
    else if (next && TEST_ARGUMENTS.has(next.type) && !AFTER_TEST.has(next.value)) {
      args = [this.parsePrimary()];
    }
    const test = make(
      "Is",
      name,
      subject,
      make("FunCall", name, name, make("NodeList", name, args)),
    );
    return negated ? make("Not", name, test) : test;
  }

  parseDottedName(what: string): Node {
    const token = this.here();
    if (!["symbol", "none", "boolean"].includes(token.type)) this.fail(`expected ${what}`);
    this.nextToken();
    let name = token.value;
    while (this.skipValue("operator", ".")) {
      name += `.${this.here().value}`;
      this.nextToken();
    }
    return make("Symbol", token, name);
  }

  override parsePrimary(noPostfix?: boolean): Node {
    const token = this.here();
    if (token.type === "regex") {
      this.fail("regular expressions are not supported; put spaces around '/' to divide");
    }
    if (token.type === "symbol" && !NAME.test(token.value)) {
      this.fail(`'${token.value}' is not a name`, token.lineno, token.colno);
    }
    if (token.type !== "int") return super.parsePrimary(noPostfix);
    this.nextToken();
    const value = Number(token.value);
    const literal = Number.isSafeInteger(value) ? value : BigInt(token.value);
    return this.parsePostfix(make("Literal", token, literal));
  }

  override parsePostfix(start: Node): Node {
    let node = start;
    for (;;) {
      const token = this.peekToken();
      if (token?.type === "left-paren") {
        node = make("FunCall", token, node, this.parseSignature());
      } else if (token?.type === "left-bracket") {
        node = this.parseSubscript(node);
      } else if (token?.type === "operator" && token.value === ".") {
        this.nextToken();
        const name = this.here();
        const key = name.type === "int" ? Number(name.value) : name.value;
        if (!["symbol", "int", "none", "boolean"].includes(name.type)) {
          this.fail("expected a name after '.'", name.lineno, name.colno);
        }
        this.nextToken();
        node = make("LookupVal", token, node, make("Literal", name, key));
      } else {
        return node;
      }
    }
  }

  parseSubscript(target: Node): Node {
    const open = this.here();
    this.nextToken();
    const parts: (Node | null)[] = [null];
    while (this.here().type !== "right-bracket") {
      if (this.skip("colon")) parts.push(null);
      else if (parts.at(-1) === null) parts[parts.length - 1] = this.parseExpression();
      else this.fail("expected ']'");
    }
    this.nextToken();
    if (parts.length > 3) this.fail("a slice has at most three parts", open.lineno, open.colno);
    if (parts.length > 1)
      return make("LookupVal", open, target, new Slice(open.lineno, open.colno, ...parts));
    if (!parts[0]) this.fail("an index is missing between '[' and ']'", open.lineno, open.colno);
    return make("LookupVal", open, target, parts[0]);
  }

  override parseAggregate(): Node | null {
    const open = this.here();
    const closer = CLOSER[open.type];
    if (closer === undefined) return null;
    this.nextToken();
    const items: Node[] = [];
    let tuple = false;
    while (this.here().type !== closer) {
      items.push(open.type === "left-curly" ? this.parsePair() : this.parseExpression());
      if (this.here().type === closer) break;
      if (!this.skip("comma")) this.fail("expected a comma or a closing bracket");
      tuple = true;
    }
    this.nextToken();
    if (open.type === "left-curly") return make("Dict", open, items);
    const group = open.type === "left-paren" && items.length === 1 && !tuple;
    return make(group ? "Group" : "Array", open, items);
  }

  parsePair(): Node {
    const key = this.parseExpression();
    if (!this.skip("colon")) this.fail("expected ':' after a map key");
    return make("Pair", key, key, this.parseExpression());
  }
}
