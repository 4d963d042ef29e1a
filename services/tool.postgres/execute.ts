/** Runs the statements of one task in order on one connection and shapes what they answer. */
import { ResultTooLarge } from "../../mixins/postgres/target-connection.ts";
import type { TargetConnection, TargetResult } from "../../mixins/postgres/target-connection.ts";
import { ToolFailure, cancelledFailure } from "../../mixins/tool.ts";
import type { Json, JsonObject } from "../../schemas/json.ts";
import type { ToolEnvelope, ToolError } from "../../schemas/tool.ts";
import { databaseFailure, placeText } from "./failure.ts";
import type { DatabaseFailure, FailedStatement } from "./failure.ts";
import { splitStatements } from "./split.ts";
import type { Statement } from "./split.ts";
import { parserOf } from "./values.ts";

export interface Planned {
  sql: string;
  statement: Statement;
}

export interface ExecuteOptions {
  /** Bound in the last statement only. */
  parameters: unknown[];
  /** All statements in one; otherwise each commits by itself. */
  transaction: boolean;
  /** `search_path` of the transaction. */
  schema?: string;
  /** Rows as maps, else as lists. */
  asObjects: boolean;
  /** Of all statements together. */
  timeoutMs: number;
  maxRows: number;
  maxBytes: number;
  signal?: AbortSignal;
}

/** All statements of all texts, in order. */
export function planStatements(texts: string[]): Planned[] {
  return texts.flatMap(sql => splitStatements(sql).map(statement => ({ sql, statement })));
}

/** What leaves the session different for its next user. It costs the connection, not the task. */
const SESSION_WORDS = new Set(["SET", "RESET", "LISTEN", "PREPARE", "DECLARE", "LOAD"]);
const SESSION_TEXT =
  /\bpg_(try_)?advisory_lock|\bset_config\s*\(|\b(create|into)\s+(local |global )?temp(orary)?\b/i;

export function changesSession({ operation, text }: Statement): boolean {
  if (operation === "SET") return !/^set\s+(local|transaction|constraints)\b/i.test(text);
  return SESSION_WORDS.has(operation) || SESSION_TEXT.test(text);
}

/**
 * Stops at the first error; what ran before stays readable as `command_<i>`. The envelope is of
 * playbook-dsl §3.3: the last statement's fields and one `command_<i>` for each.
 */
export async function executeStatements(
  connection: TargetConnection,
  plan: Planned[],
  options: ExecuteOptions,
): Promise<ToolEnvelope> {
  const deadline = AbortSignal.timeout(options.timeoutMs);
  const stop = options.signal ? AbortSignal.any([options.signal, deadline]) : deadline;
  const session = new Session(connection, options, stop);
  const results: JsonObject[] = [];
  let at: FailedStatement | undefined;
  try {
    await session.begin();
    for (const [index, { sql, statement }] of plan.entries()) {
      at = { sql, statement, index, count: plan.length };
      if (changesSession(statement)) connection.taint();
      const last = index === plan.length - 1;
      const values = last && options.parameters.length > 0 ? options.parameters : undefined;
      results.push(toResult(await session.query(statement.text, values), options.asObjects));
    }
    at = undefined;
    await session.end(plan);
  } catch (error) {
    const failure = options.signal?.aborted
      ? { error: cancelledFailure().failure, pg: { code: "CANCELLED", sqlstate: "" } }
      : failureOf(error, at, options, deadline.aborted);
    if (!failure) throw error;
    const undone = await session.undo(stop.aborted);
    return failed(failure, results, plan.length, undone);
  }
  const data = { ...results.at(-1), statement_count: plan.length, ...commands(results) };
  return { status: "ok", data, error: null };
}

/** The transaction around the statements, and what they may still return together. */
class Session {
  readonly #connection: TargetConnection;
  readonly #options: ExecuteOptions;
  readonly #signal: AbortSignal;
  #rows = 0;
  #bytes = 0;

  constructor(connection: TargetConnection, options: ExecuteOptions, signal: AbortSignal) {
    this.#connection = connection;
    this.#options = options;
    this.#signal = signal;
  }

  async query(text: string, values?: unknown[]): Promise<TargetResult> {
    const { maxRows, maxBytes } = this.#options;
    const result = await this.#connection.query({
      text,
      values,
      parserOf,
      maxRows: maxRows - this.#rows,
      maxBytes: maxBytes - this.#bytes,
      signal: this.#signal,
    });
    this.#rows += result.rows.length;
    this.#bytes += result.bytes;
    return result;
  }

  async begin(): Promise<void> {
    if (!this.#options.transaction) return;
    await this.query("begin");
    const { schema } = this.#options;
    if (schema) await this.query("select set_config('search_path', $1, true)", [schema]);
  }

  async end(plan: Planned[]): Promise<void> {
    if (this.#options.transaction) {
      await this.query("commit");
      return;
    }
    if (!this.#connection.inTransaction()) return;
    const message =
      `the ${plan.length} statements leave a transaction open; it was rolled back ` +
      "(end it with commit, or write transaction: true)";
    const code = "TRANSACTION_OPEN";
    throw new ToolFailure({ kind: "logic", retryable: false, code, message });
  }

  /**
   * Whether an open transaction was undone. A connection that was abandoned is destroyed, which
   * undoes it too.
   */
  async undo(abandoned: boolean): Promise<boolean> {
    const open = this.#options.transaction || this.#connection.inTransaction();
    if (!open || abandoned) return open;
    const rollback = { text: "rollback", parserOf, maxRows: 1, maxBytes: 1, signal: this.#signal };
    // When it fails the connection is gone, and the transaction with it.
    await this.#connection.query(rollback).catch(() => undefined);
    return true;
  }
}

function failureOf(
  error: unknown,
  at: FailedStatement | undefined,
  options: ExecuteOptions,
  timedOut: boolean,
): DatabaseFailure | undefined {
  if (error instanceof ToolFailure) return own(error.failure);
  const place = at ? `${placeText({}, at)}: ` : "";
  if (error instanceof ResultTooLarge) {
    const { maxRows, maxBytes } = options;
    const limit = error.limit === "rows" ? `${maxRows} rows` : `${maxBytes} bytes`;
    const name = `result_max_${error.limit}`;
    const message = `${place}the result exceeds ${limit} (${name}); read it in pages`;
    return own({ kind: "config", retryable: false, code: "RESULT_TOO_LARGE", message });
  }
  if (timedOut) {
    const message = `${place}not finished within ${options.timeoutMs / 1000} s (timeout)`;
    return own({ kind: "db_timeout", retryable: true, code: "QUERY_TIMEOUT", message });
  }
  return databaseFailure(error, at);
}

function own(error: ToolError): DatabaseFailure {
  return { error, pg: { code: error.code, sqlstate: "" } };
}

function failed(
  { error, pg }: DatabaseFailure,
  results: JsonObject[],
  count: number,
  undone: boolean,
): ToolEnvelope {
  const data: JsonObject = {
    status: "error",
    message: error.message,
    errors: [{ statement: results.length, code: error.code, message: error.message }],
    statement_count: count,
    ...(undone && { rolled_back: true }),
    ...commands(results),
  };
  return { status: "error", data, error, pg };
}

function commands(results: JsonObject[]): JsonObject {
  return Object.fromEntries(results.map((result, index) => [`command_${index}`, result]));
}

function toResult(result: TargetResult, asObjects: boolean): JsonObject {
  const { columns, rowCount, command } = result;
  const rows = asObjects ? result.rows.map(row => toObject(columns, row)) : result.rows;
  return {
    status: "success",
    rows: rows as Json[],
    row_count: rowCount,
    columns,
    message: command === "" ? "OK" : `${command} ${rowCount}`,
    ...(!result.hasRows && { affected_rows: rowCount }),
  };
}

/**
 * Of two columns with one name the later wins. A column may be called `__proto__`: fromEntries
 * defines it.
 */
function toObject(columns: string[], row: unknown[]): Record<string, unknown> {
  return Object.fromEntries(columns.map((column, index) => [column, row[index]]));
}
