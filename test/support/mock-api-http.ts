// The small web framework under the mock API: parameters with FastAPI's refusals, replies, limits.

/** What a handler sees. */
export interface MockRequest {
  method: string;
  url: URL;
  headers: Record<string, string | string[] | undefined>;
  /** The `{name}` parts of the route. */
  path: Record<string, string>;
  text: string;
}

export interface Reply {
  status?: number;
  headers?: Record<string, string>;
  body: unknown;
}

/** Thrown by a handler to answer with an error. FastAPI puts its message under `detail`. */
export class Refusal extends Error {
  readonly reply: Reply;

  constructor(status: number, body: unknown, headers?: Record<string, string>) {
    super(`refused with ${status}`);
    this.reply = { status, body, headers };
  }
}

interface Bounds {
  min?: number;
  max?: number;
}

/** An integer of the query. Without a default it is required. Throws 422 as FastAPI does. */
export function integer(
  request: MockRequest,
  name: string,
  absent?: number,
  bounds: Bounds = {},
): number {
  const value = decimal(request, name, absent, bounds);
  if (!Number.isInteger(value)) throw invalid(name, "int_parsing", "should be a valid integer");
  return value;
}

export function decimal(
  request: MockRequest,
  name: string,
  absent?: number,
  { min = -Infinity, max = Infinity }: Bounds = {},
): number {
  const text = request.url.searchParams.get(name);
  if (text === null && absent === undefined) throw missing(name);
  const value = text === null ? absent! : Number(text.trim() || NaN);
  if (Number.isNaN(value)) throw invalid(name, "float_parsing", "should be a valid number");
  if (value < min) throw invalid(name, "greater_than_equal", `should be at least ${min}`);
  if (value > max) throw invalid(name, "less_than_equal", `should be at most ${max}`);
  return value;
}

export function text(request: MockRequest, name: string, absent?: string): string {
  const value = request.url.searchParams.get(name) ?? absent;
  if (value === undefined) throw missing(name);
  return value;
}

export function choice(request: MockRequest, name: string, choices: string[]): string {
  const value = text(request, name, choices[0]);
  if (!choices.includes(value)) throw invalid(name, "enum", `should be ${choices.join(" or ")}`);
  return value;
}

function missing(name: string): Refusal {
  return invalid(name, "missing", "Field required");
}

function invalid(name: string, type: string, message: string): Refusal {
  const msg = type === "missing" ? message : `Input ${message}`;
  return new Refusal(422, { detail: [{ type, loc: ["query", name], msg }] });
}

/** A sliding window of one second. */
export class RateWindow {
  #accepted: number[] = [];

  /** Counts a request in when there is room. Says how many the window holds. */
  admit(perSecond: number): { ok: boolean; count: number } {
    const now = performance.now();
    this.#accepted = this.#accepted.filter(at => at > now - 1000);
    const ok = this.#accepted.length < perSecond;
    if (ok) this.#accepted.push(now);
    return { ok, count: this.#accepted.length };
  }
}
