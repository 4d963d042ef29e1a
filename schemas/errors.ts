/**
 * The errors of the house. A caller matches `error.type`: classes do not cross the wire, but
 * Moleculer and moleculer-web carry `name`, `message`, `code`, `type`, `retryable` and `data` of
 * any Error.
 */

/** Where an issue is, in words a playbook author can act on. Lines and columns count from 1. */
export interface Issue {
  message: string;
  file?: string;
  line?: number;
  column?: number;
  step?: string;
  field?: string;
  expected?: string;
  /** The nearest thing that exists, or what to write instead. */
  hint?: string;
}

export type RejectedCode = 400 | 401 | 403 | 404 | 409 | 413 | 422;

abstract class NoetlError extends Error {
  readonly code: number;
  readonly type: string;
  readonly retryable: boolean;
  readonly data: Record<string, unknown>;

  constructor(
    message: string,
    code: number,
    type: string,
    retryable: boolean,
    data: Record<string, unknown>,
  ) {
    super(message);
    this.name = new.target.name;
    this.code = code;
    this.type = type;
    this.retryable = retryable;
    this.data = data;
  }
}

/**
 * The caller's fault: malformed (422), unknown (404), impossible now or fenced out (409). Never
 * retried.
 */
export class Rejected extends NoetlError {
  constructor(message: string, code: RejectedCode = 422, data: Record<string, unknown> = {}) {
    super(message, code, "REJECTED", false, data);
  }
}

/**
 * A rival appended first. The actor reloads and decides again; callers see it only when that
 * failed.
 */
export class Conflict extends NoetlError {
  constructor(message: string, data: Record<string, unknown> = {}) {
    super(message, 409, "CONFLICT", true, data);
  }
}

/** Postgres, NATS or a peer cannot be reached. Retried with backoff and jitter. */
export class Unavailable extends NoetlError {
  constructor(message: string, data: Record<string, unknown> = {}) {
    super(message, 503, "UNAVAILABLE", true, data);
  }
}

/** A named limit is reached. `data.retry_after_ms` says when to come back; no attempt is burnt. */
export class Busy extends NoetlError {
  constructor(message: string, data: { retry_after_ms: number } & Record<string, unknown>) {
    super(message, 429, "BUSY", true, data);
  }
}

/** When who was Busy may be asked again, in milliseconds; 0 for any other error. */
export function busyWaitMs(error: unknown): number {
  if (errorType(error) !== "BUSY") return 0;
  const wait = (error as { data?: { retry_after_ms?: unknown } }).data?.retry_after_ms;
  return typeof wait === "number" && Number.isFinite(wait) ? wait : 0;
}

/** One refused playbook, template or payload, with every issue that was found in it. */
export function rejectIssues(issues: Issue[], what: string): Rejected {
  const first = issues[0];
  const more = issues.length > 1 ? ` (and ${issues.length - 1} more)` : "";
  return new Rejected(`${what}: ${first ? formatIssue(first) : "invalid"}${more}`, 422, { issues });
}

/** `file:line:column: step 'x', field: message; expected …; hint`. */
export function formatIssue(issue: Issue): string {
  const place = [issue.file, issue.line, issue.column].filter(part => part !== undefined).join(":");
  const where = [issue.step && `step '${issue.step}'`, issue.field].filter(Boolean).join(", ");
  const text = [
    issue.message,
    issue.expected && `expected ${issue.expected}`,
    issue.hint && `(${issue.hint})`,
  ];
  return [place, where, text.filter(Boolean).join("; ")].filter(Boolean).join(": ");
}

/** The `type` of an error that may have crossed the wire, "" when it has none. */
export function errorType(error: unknown): string {
  const type = (error as { type?: unknown } | null)?.type;
  return typeof type === "string" ? type : "";
}
