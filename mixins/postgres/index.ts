// The connection to our own database: a pool, one statement at a time or a short transaction.
import pg from "pg";
import { Unavailable, errorType } from "../../schemas/errors.ts";

/**
 * A row as `pg` gives it: bigint columns are strings, jsonb is parsed, timestamps are asked for as
 * numbers.
 */
export type Row = Record<string, unknown>;

export interface Query {
  query<R extends Row = Row>(
    text: string,
    values?: unknown[],
  ): Promise<{ rows: R[]; rowCount: number }>;
}

export interface Database extends Query {
  /** Runs `work` in one transaction; rolls back when it throws. */
  transaction<T>(work: (query: Query) => Promise<T>): Promise<T>;
  /**
   * One long question on a connection of its own, so that the pool's stay free; it reads only.
   * After `timeoutMs` the server gives it up with SQLSTATE 57014.
   */
  aside<R extends Row = Row>(
    text: string,
    values: unknown[],
    timeoutMs: number,
  ): Promise<{ rows: R[] }>;
  /** Connections in use, idle, and callers waiting for one. */
  stats(): { total: number; idle: number; waiting: number };
  /** Milliseconds since a statement last met a server that was away; Infinity when none has. */
  sinceAwayMs(): number;
  close(): Promise<void>;
}

export interface DatabaseOptions {
  url: string;
  /** Connections at most; the design works with 1. */
  size: number;
  /** Milliseconds to wait for a connection. */
  connectTimeoutMs?: number;
  /** Milliseconds after which a silent statement is given up and its connection destroyed. */
  queryTimeoutMs?: number;
}

const CONNECT_MS = 5_000;
const QUERY_MS = 30_000;

/**
 * Opens a pool that is safe behind PgBouncer in transaction mode: no named statements, no session
 * state, no startup options. Throws Unavailable when the server cannot be reached; other errors
 * pass as they are.
 */
export function openDatabase(options: DatabaseOptions): Database {
  const pool = new pg.Pool({
    connectionString: options.url,
    max: options.size,
    connectionTimeoutMillis: options.connectTimeoutMs ?? CONNECT_MS,
    query_timeout: options.queryTimeoutMs ?? QUERY_MS,
    idleTimeoutMillis: 30_000,
    keepAlive: true,
    allowExitOnIdle: true,
  });
  // An idle connection that dies is replaced by the next query; without a listener it would end the
  // process.
  pool.on("error", () => undefined);
  let awayAt = -Infinity;
  function noteAway(error: unknown): never {
    if (errorType(error) === "UNAVAILABLE") awayAt = performance.now();
    throw error;
  }
  return {
    async query<R extends Row>(text: string, values?: unknown[]) {
      return run<R>(pool, text, values).catch(noteAway);
    },
    async transaction(work) {
      const client = await pool.connect().catch(fail).catch(noteAway);
      let broken: Error | undefined;
      client.on("error", noteBroken);
      function noteBroken(error: Error) {
        broken = error;
      }
      try {
        await run(client, "begin");
        const value = await work({ query: (text, values) => run(client, text, values) });
        await run(client, "commit");
        return value;
      } catch (error) {
        // A connection that answers no more is dropped, and the server rolls back by itself.
        if (errorType(error) === "UNAVAILABLE") noteBroken(error as Error);
        else await client.query("rollback").catch(noteBroken);
        return noteAway(error);
      } finally {
        client.off("error", noteBroken);
        client.release(broken);
      }
    },
    aside: <R extends Row>(text: string, values: unknown[], timeoutMs: number) =>
      aside<R>(options, { text, values, timeoutMs }).catch(noteAway),
    stats: () => ({ total: pool.totalCount, idle: pool.idleCount, waiting: pool.waitingCount }),
    sinceAwayMs: () => performance.now() - awayAt,
    close: () => pool.end(),
  };
}

/** The server's limit is a setting of the transaction: a pooler's session keeps nothing of it. */
async function aside<R extends Row>(
  options: DatabaseOptions,
  { text, values, timeoutMs }: { text: string; values: unknown[]; timeoutMs: number },
): Promise<{ rows: R[] }> {
  const client = new pg.Client({
    connectionString: options.url,
    connectionTimeoutMillis: options.connectTimeoutMs ?? CONNECT_MS,
    // Should the server answer no more.
    query_timeout: timeoutMs + (options.queryTimeoutMs ?? QUERY_MS),
    keepAlive: true,
  });
  // A connection that dies fails the query that waits for it.
  client.on("error", () => undefined);
  try {
    await client.connect().catch(fail);
    await run(client, "begin read only");
    await run(client, "select set_config('statement_timeout', $1, true)", [String(timeoutMs)]);
    const { rows } = await run<R>(client, text, values);
    await run(client, "commit");
    return { rows };
  } finally {
    await client.end().catch(() => undefined);
  }
}

type Runner = Pick<pg.Pool, "query"> | pg.ClientBase;

async function run<R extends Row>(runner: Runner, text: string, values?: unknown[]) {
  try {
    const result = await (runner as pg.Pool).query<R>(text, values);
    return { rows: result.rows, rowCount: result.rowCount ?? 0 };
  } catch (error) {
    return fail(error);
  }
}

function fail(error: unknown): never {
  if (isUnavailable(error)) {
    const code = codeOf(error);
    throw new Unavailable(`Postgres cannot be reached: ${(error as Error).message}`, { code });
  }
  throw error;
}

/** SQLSTATE of a database error, errno of a socket's, "" of any other. */
export function codeOf(error: unknown): string {
  const code = (error as { code?: unknown } | null)?.code;
  return typeof code === "string" ? code : "";
}

const CONNECTION_LOST = new Set([
  "ECONNREFUSED",
  "ECONNRESET",
  "EPIPE",
  "ETIMEDOUT",
  "ENOTFOUND",
  "EAI_AGAIN",
  "ENETUNREACH",
  "EHOSTUNREACH",
]);
const LOST_MESSAGE =
  /Connection terminated|timeout exceeded|Query read timeout|Client was closed|not queryable/i;

/**
 * The outcome of the statement is unknown, or it never ran, because the server or the way to it is
 * gone.
 */
export function isUnavailable(error: unknown): boolean {
  const code = codeOf(error);
  if (CONNECTION_LOST.has(code) || /^(08|57P|53)/.test(code)) return true;
  return code === "" && error instanceof Error && LOST_MESSAGE.test(error.message);
}

/** Deadlock or serialization failure: nothing happened, the same statement may be sent again. */
export function isRepeatable(error: unknown): boolean {
  return ["40P01", "40001", "55P03"].includes(codeOf(error));
}

/**
 * The data was refused: a guard (23xxx), a value Postgres cannot hold (22xxx) or one too large
 * (54xxx).
 */
export function isRefused(error: unknown): boolean {
  return /^(22|23|54)/.test(codeOf(error));
}
