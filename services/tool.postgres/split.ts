/** Splits SQL text into statements the way psql does, without parsing SQL. Pure. */

export interface Statement {
  /** Without the closing semicolon; comments before and inside it are kept. */
  text: string;
  /** Where `text` begins in the source, in UTF-16 units from 0. */
  start: number;
  /** First word outside comments, upper-case: SELECT, INSERT, … */
  operation: string;
}

interface Scan {
  sql: string;
  at: number;
}

const SPACE = /\s/;
const WORD_START = /[A-Za-z_\u0080-\uffff]/;
const WORD = /[A-Za-z0-9_$\u0080-\uffff]*/y;
const NUMBER = /\d[\dA-Za-z_.]*/y;
const DOLLAR_TAG = /\$(?:[A-Za-z_\u0080-\uffff][A-Za-z0-9_\u0080-\uffff]*)?\$/y;

/**
 * Cuts at every `;` outside quotes ('…', E'…', "…", $tag$…$tag$), comments (`--`, nested block
 * comments), parentheses and `begin atomic … end` bodies. Pieces of only blanks and comments
 * vanish. What is left open runs to the end of the text, where the server will say so.
 */
export function splitStatements(sql: string): Statement[] {
  const scan: Scan = { sql, at: 0 };
  const statements: Statement[] = [];
  let start = 0;
  let piece = newPiece();
  while (scan.at < sql.length) {
    const char = sql[scan.at] as string;
    if (char === ";" && piece.parentheses <= 0 && piece.bodies === 0) {
      keep(statements, sql, start, scan.at, piece);
      scan.at += 1;
      start = scan.at;
      piece = newPiece();
    } else if (SPACE.test(char)) {
      scan.at += 1;
    } else if (!skipComment(scan)) {
      readToken(scan, char, piece);
    }
  }
  keep(statements, sql, start, sql.length, piece);
  return statements;
}

/** What one piece of the text has shown so far. */
interface Piece {
  operation: string;
  empty: boolean;
  parentheses: number;
  /** Open `begin atomic` and the `case`s inside it. */
  bodies: number;
  words: string[];
}

function newPiece(): Piece {
  return { operation: "", empty: true, parentheses: 0, bodies: 0, words: [] };
}

function keep(into: Statement[], sql: string, start: number, end: number, piece: Piece): void {
  if (piece.empty) return;
  const raw = sql.slice(start, end);
  const text = raw.trim();
  const lead = raw.length - raw.trimStart().length;
  into.push({ text, start: start + lead, operation: piece.operation || "UNKNOWN" });
}

/** A comment at the cursor is passed over; false when there is none. */
function skipComment(scan: Scan): boolean {
  const { sql } = scan;
  if (sql.startsWith("--", scan.at)) {
    const end = sql.indexOf("\n", scan.at);
    scan.at = end < 0 ? sql.length : end + 1;
    return true;
  }
  if (!sql.startsWith("/*", scan.at)) return false;
  let depth = 0;
  while (scan.at < sql.length) {
    if (sql.startsWith("/*", scan.at)) depth += 1;
    else if (sql.startsWith("*/", scan.at)) depth -= 1;
    else {
      scan.at += 1;
      continue;
    }
    scan.at += 2;
    if (depth === 0) return true;
  }
  return true;
}

function readToken(scan: Scan, char: string, piece: Piece): void {
  piece.empty = false;
  const { sql } = scan;
  if (char === "'") skipQuoted(scan, "'", false);
  else if (char === '"') skipQuoted(scan, '"', false);
  else if (char === "$") skipDollar(scan);
  else if (WORD_START.test(char)) readWord(scan, piece);
  else {
    if (char === "(") piece.parentheses += 1;
    if (char === ")") piece.parentheses -= 1;
    // A number is passed over whole, so that the e of 1e'…' is not taken for the mark of an escape
    // string.
    NUMBER.lastIndex = scan.at;
    scan.at += NUMBER.exec(sql)?.[0].length ?? 1;
  }
}

function readWord(scan: Scan, piece: Piece): void {
  WORD.lastIndex = scan.at;
  const word = WORD.exec(scan.sql)?.[0] ?? "";
  scan.at += word.length;
  if (/^e$/i.test(word) && scan.sql[scan.at] === "'") return skipQuoted(scan, "'", true);
  const upper = word.toUpperCase();
  if (piece.operation === "") piece.operation = upper;
  // As psql does: only a function or procedure has a body that semicolons may be in.
  if (piece.words.length < 4) piece.words.push(upper);
  if (piece.operation !== "CREATE" || !/^(FUNCTION|PROCEDURE)$/.test(routine(piece.words))) return;
  if (upper === "BEGIN") piece.bodies += 1;
  else if (upper === "CASE" && piece.bodies > 0) piece.bodies += 1;
  else if (upper === "END" && piece.bodies > 0) piece.bodies -= 1;
}

/** The object of `create [or replace] …`. */
function routine(words: string[]): string {
  return (words[1] === "OR" ? words[3] : words[1]) ?? "";
}

function skipQuoted(scan: Scan, quote: string, backslashes: boolean): void {
  const { sql } = scan;
  scan.at += 1;
  while (scan.at < sql.length) {
    const char = sql[scan.at];
    scan.at += 1;
    if (backslashes && char === "\\") scan.at += 1;
    else if (char === quote) {
      if (sql[scan.at] !== quote) return;
      scan.at += 1;
    }
  }
  scan.at = sql.length;
}

function skipDollar(scan: Scan): void {
  DOLLAR_TAG.lastIndex = scan.at;
  const tag = DOLLAR_TAG.exec(scan.sql)?.[0];
  if (tag === undefined) {
    scan.at += 1;
    return;
  }
  const end = scan.sql.indexOf(tag, scan.at + tag.length);
  scan.at = end < 0 ? scan.sql.length : end + tag.length;
}

/** Line and column, from 1, of a place in the source. */
export function placeOf(sql: string, at: number): { line: number; column: number } {
  const before = sql.slice(0, at);
  const lines = before.split("\n");
  return { line: lines.length, column: (lines.at(-1) ?? "").length + 1 };
}

/** The UTF-16 index of the n-th character, from 1, as Postgres counts positions. */
export function indexOfCharacter(text: string, position: number): number {
  let index = 0;
  for (let count = 1; count < position && index < text.length; count++) {
    const code = text.codePointAt(index) ?? 0;
    index += code > 0xffff ? 2 : 1;
  }
  return index;
}
