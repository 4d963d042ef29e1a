/** The one error templates raise, when compiled and when evaluated, and the limits they live in. */

/** Items one render may visit in `{% for %}` loops and `range()`, nested loops counted together. */
export const MAX_ITERATIONS = 100_000;
/** Nesting of expressions and blocks; each level costs a few stack frames. */
export const MAX_DEPTH = 200;
/** Characters of one rendered text, one intermediate string, or one value written as JSON. */
export const MAX_OUTPUT_CHARS = 16 * 1024 * 1024;
/** Characters by which a native value may grow by naming the same data several times. */
export const MAX_REPEATED_CHARS = 64 * 1024 * 1024;
/** Characters of a template's source. */
export const MAX_SOURCE_CHARS = 4 * 1024 * 1024;
/** Elements (or 16-character blocks) the filters and comparisons of one render may touch. */
export const MAX_WORK = 10_000_000;

/** Where something is in a template; both count from 1. */
export interface Place {
  line: number;
  column: number;
}

/** A template that cannot be compiled, or an expression that cannot be evaluated. */
export class TemplateError extends Error {
  /** Crosses the wire, where the class does not. */
  readonly type = "TEMPLATE";
  readonly line: number;
  readonly column: number;
  /** The tag in which it happened, as written, at most 200 characters. */
  readonly expression: string;
  /** The nearest thing that exists, or what to write instead. */
  readonly hint: string | undefined;

  constructor(message: string, source: string, place: Place, hint?: string) {
    super(message);
    this.name = "TemplateError";
    this.line = place.line;
    this.column = place.column;
    this.expression = tagAt(source, place);
    this.hint = hint;
  }

  /** One sentence for an envelope or a log: message, expression, place and hint. */
  describe(): string {
    const where = `line ${this.line}, column ${this.column}`;
    const hint = this.hint === undefined ? "" : ` (${this.hint})`;
    return `${this.message} in ${this.expression} (${where})${hint}`;
  }
}

/** Thrown by a value a template reads, not by the template: passes an evaluation as it is. */
export class Interrupt extends Error {}

/** What operators, filters and tests throw: the evaluator adds a place and rethrows. */
export class Problem extends Error {
  readonly hint: string | undefined;

  constructor(message: string, hint?: string) {
    super(message);
    this.hint = hint;
  }
}

const MAX_SHOWN = 200;

/** The `{{ … }}` or `{% … %}` around a place, or the line when there is none. */
function tagAt(source: string, place: Place): string {
  const offset = offsetOf(source, place);
  const before = source.slice(0, offset + 2);
  const start = Math.max(before.lastIndexOf("{{"), before.lastIndexOf("{%"));
  if (start < 0) return cut(source.split("\n")[place.line - 1] ?? source);
  const ends = ["}}", "%}"].map(end => source.indexOf(end, Math.max(start + 2, offset)));
  const end = Math.min(...ends.filter(at => at >= 0), source.length);
  return cut(source.slice(start, end + 2));
}

function offsetOf(source: string, place: Place): number {
  let offset = 0;
  for (let line = 1; line < place.line; line++) {
    const next = source.indexOf("\n", offset);
    if (next < 0) return source.length;
    offset = next + 1;
  }
  return Math.min(offset + place.column - 1, source.length);
}

function cut(text: string): string {
  const shown = text.trim();
  return shown.length > MAX_SHOWN ? `${shown.slice(0, MAX_SHOWN - 1)}…` : shown;
}
