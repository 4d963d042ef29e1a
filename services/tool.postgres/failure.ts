/** From what a database or its driver throws to a tool failure: kind, retryable, place. Pure. */
import type { ToolError, ToolErrorKind } from "../../schemas/tool.ts";
import { indexOfCharacter, placeOf } from "./split.ts";
import type { Statement } from "./split.ts";

/** The statement that failed, and where it stands in the task's SQL. */
export interface FailedStatement {
  sql: string;
  statement: Statement;
  /** From 0. */
  index: number;
  count: number;
}

export interface DatabaseFailure {
  error: ToolError;
  pg: { code: string; sqlstate: string };
}

type Verdict = [kind: ToolErrorKind, retryable: boolean];

/**
 * By SQLSTATE first, then by its class
 * (https://www.postgresql.org/docs/current/errcodes-appendix.html).
 */
const STATES: Record<string, Verdict> = {
  "40001": ["server_error", true], // serialization_failure
  "40P01": ["server_error", true], // deadlock_detected
  "55P03": ["db_timeout", true], // lock_not_available
  "57014": ["db_timeout", true], // query_canceled: the server's own statement_timeout
  "57P01": ["db_connection", true], // admin_shutdown
  "57P02": ["db_connection", true], // crash_shutdown
  "57P03": ["db_connection", true], // cannot_connect_now
  "57P05": ["db_connection", true], // idle_session_timeout
  "25P03": ["db_timeout", true], // idle_in_transaction_session_timeout
  "53300": ["db_connection", true], // too_many_connections
  "42501": ["auth", false], // insufficient_privilege
  "3D000": ["config", false], // invalid_catalog_name: no such database
};
const CLASSES: Record<string, Verdict> = {
  "08": ["db_connection", true],
  "53": ["server_error", true],
  "23": ["db_constraint", false],
  "28": ["auth", false],
  "42": ["schema", false],
  "3F": ["schema", false],
  "22": ["client_error", false],
  P0: ["logic", false],
  XX: ["server_error", false],
  "58": ["server_error", false],
};
const SOCKET_LOST = new Set([
  "ECONNREFUSED",
  "ECONNRESET",
  "EPIPE",
  "ETIMEDOUT",
  "ENOTFOUND",
  "EAI_AGAIN",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "ECONNABORTED",
]);
const LOST_MESSAGE =
  /Connection terminated|timeout exceeded|timeout expired|not queryable|Client was closed/i;

/** undefined when the error is not the database's: it is ours and must be loud. */
export function databaseFailure(error: unknown, at?: FailedStatement): DatabaseFailure | undefined {
  if (!(error instanceof Error)) return undefined;
  const code = codeOf(error);
  const verdict = classify(error, code);
  if (!verdict) return undefined;
  const [kind, retryable] = verdict;
  const sqlstate = isSqlstate(code) ? code : "";
  const shown =
    code || (kind === "auth" ? "AUTH" : kind === "config" ? "CONFIG" : "CONNECTION_LOST");
  const message = at ? `${placeText(error, at)}: ${error.message}` : error.message;
  return { error: { kind, retryable, code: shown, message }, pg: { code: shown, sqlstate } };
}

function classify(error: Error, code: string): Verdict | undefined {
  // The parameters do not fit the statement. It shares its SQLSTATE with broken connections.
  if (code === "08P01" && error.message.startsWith("bind message")) return ["client_error", false];
  if (isSqlstate(code)) {
    return STATES[code] ?? CLASSES[code.slice(0, 2)] ?? ["client_error", false];
  }
  if (SOCKET_LOST.has(code) || LOST_MESSAGE.test(error.message)) return ["db_connection", true];
  if (/CERT|SELF_SIGNED|UNABLE_TO_(VERIFY|GET)|^ERR_TLS/.test(code))
    return ["db_connection", false];
  if (/^SASL|password/i.test(error.message)) return ["auth", false];
  if (error.message.includes("does not support SSL")) return ["config", false];
  // COPY … FROM STDIN: the driver has nothing to send.
  return error.message.includes("No source stream") ? ["config", false] : undefined;
}

function codeOf(error: Error): string {
  const { code, errors } = error as { code?: unknown; errors?: unknown };
  if (typeof code === "string") return code;
  const inner: unknown = Array.isArray(errors) ? errors[0] : undefined;
  return inner instanceof Error ? codeOf(inner) : "";
}

function isSqlstate(code: string): boolean {
  return /^[0-9A-Z]{5}$/.test(code) && !SOCKET_LOST.has(code);
}

/**
 * `statement 2 of 3, line 7 column 12`. Lines count over the task's whole SQL; the SQL itself is
 * not shown.
 */
export function placeText(error: unknown, at: FailedStatement): string {
  const { position } = error as { position?: string };
  const known = position !== undefined && /^\d+$/.test(position);
  const inside = known ? indexOfCharacter(at.statement.text, Number(position)) : 0;
  const { line, column } = placeOf(at.sql, at.statement.start + inside);
  const where = known ? `line ${line} column ${column}` : `line ${line}`;
  return `statement ${at.index + 1} of ${at.count}, ${where}`;
}
