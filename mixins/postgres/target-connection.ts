/** One connection to a user's database: statements with a row reader, limits, cancellation. */
import net from "node:net";
import pg from "pg";
import { codeOf } from "./index.ts";

/**
 * Where a user's database is. `sslmode` as libpq names them; `prefer` and `allow` do not use TLS.
 */
export interface Target {
  host: string;
  port: number;
  database: string;
  user: string;
  password?: string;
  sslmode?: SslMode;
}

export const SSL_MODES = [
  "disable",
  "allow",
  "prefer",
  "require",
  "verify-ca",
  "verify-full",
] as const;
export type SslMode = (typeof SSL_MODES)[number];

/** A statement, and how far its result may go. */
export interface TargetQuery {
  text: string;
  /** Bound to $1 …; absent means the simple protocol, in which `%` and `?` are just characters. */
  values?: unknown[];
  /** Parser of one type's text form; called once per column. */
  parserOf: (oid: number) => (text: string) => unknown;
  maxRows: number;
  maxBytes: number;
  signal?: AbortSignal;
}

export interface TargetResult {
  columns: string[];
  /** One list per row, in the order of `columns`. */
  rows: unknown[][];
  /** Rows returned or affected. */
  rowCount: number;
  bytes: number;
  /** Whether the statement describes rows at all. */
  hasRows: boolean;
  /** The server's command tag: SELECT, INSERT, CREATE, … */
  command: string;
}

/** What is left of `pg` outside this folder. */
export interface TargetConnection {
  /**
   * Runs one statement. Throws what the driver throws, `ResultTooLarge`, or the signal's reason;
   * after the latter two the connection is unusable and will be destroyed.
   */
  query(query: TargetQuery): Promise<TargetResult>;
  /** Whether the server says that a transaction is open (also a failed one). */
  inTransaction(): boolean;
  /** Session state was changed: the connection must not serve anybody else. */
  taint(): void;
}

/** A result beyond `maxRows` or `maxBytes`. Never truncated: refused. */
export class ResultTooLarge extends Error {
  readonly limit: "rows" | "bytes";

  constructor(limit: "rows" | "bytes") {
    super(`the result has too many ${limit}`);
    this.name = "ResultTooLarge";
    this.limit = limit;
  }
}

const APPLICATION_NAME = "noetl";
const CANCEL_TIMEOUT_MS = 2_000;
/** https://www.postgresql.org/docs/current/protocol-message-formats.html, CancelRequest. */
const CANCEL_REQUEST = 80877102;

/**
 * Settings of a driver's client. Nothing is left to the driver's own defaults, which are the
 * operator's PG* variables.
 */
export function clientOptions(target: Target): pg.ClientConfig {
  return {
    host: target.host,
    port: target.port,
    database: target.database,
    user: target.user,
    password: () => target.password ?? "",
    ssl: sslOptions(target.sslmode),
    keepAlive: true,
    application_name: APPLICATION_NAME,
  };
}

function sslOptions(mode: SslMode | undefined): pg.ClientConfig["ssl"] {
  if (mode === "require") return { rejectUnauthorized: false };
  if (mode === "verify-ca") {
    return { rejectUnauthorized: true, checkServerIdentity: () => undefined };
  }
  return mode === "verify-full" ? { rejectUnauthorized: true } : false;
}

/** Parts of the driver's client that its types do not show. */
interface ClientParts {
  processID?: number | null;
  secretKey?: number | null;
  getTransactionStatus?(): string | null;
}

/** A connected client behind the narrow interface, and what its releaser must know. */
export class OpenConnection implements TargetConnection {
  readonly #client: pg.Client | pg.PoolClient;
  readonly #target: Target;
  #unusable = false;

  constructor(client: pg.Client | pg.PoolClient, target: Target) {
    this.#client = client;
    this.#target = target;
    // A cut connection is reported by the query that meets it; unheard, it would end the process.
    client.on("error", this.#onError);
  }

  readonly #onError = (): void => {
    this.#unusable = true;
  };

  /** Stops listening; true when the connection must be destroyed. */
  finish(): boolean {
    if (!this.#unusable) this.#client.off("error", this.#onError);
    return this.#unusable || this.inTransaction();
  }

  inTransaction(): boolean {
    const status = (this.#client as ClientParts).getTransactionStatus?.();
    return status === "T" || status === "E";
  }

  taint(): void {
    this.#unusable = true;
  }

  query(request: TargetQuery): Promise<TargetResult> {
    const { signal } = request;
    if (signal?.aborted) return Promise.reject(signal.reason as Error);
    const { promise, resolve, reject } = Promise.withResolvers<TargetResult>();
    let abandoned = false;
    const abandon = (reason: unknown): void => {
      abandoned = true;
      this.#unusable = true;
      // The connection is destroyed by whoever hears of this. A pooler forgets with it which
      // session the cancel is for, so that goes first.
      void this.#cancel().then(() => reject(reason));
    };
    const onAbort = (): void => abandon(signal?.reason);
    const done = (result: TargetResult): void => {
      if (!abandoned) resolve(result);
    };
    const query = submit(request, abandon, done);
    query.on("error", (error: Error) => {
      if (codeOf(error) === "" || /^(08|57P)/.test(codeOf(error))) this.#unusable = true;
      if (!abandoned) reject(error);
    });
    signal?.addEventListener("abort", onAbort, { once: true });
    this.#client.query(query);
    return promise.finally(() => signal?.removeEventListener("abort", onAbort));
  }

  /**
   * Asks the server to stop the running statement. Best effort: destroying the connection alone
   * would leave a statement that sends nothing running to its end, with its locks.
   */
  async #cancel(): Promise<void> {
    const { processID, secretKey } = this.#client as ClientParts;
    if (typeof processID !== "number" || typeof secretKey !== "number") return;
    const message = Buffer.alloc(16);
    message.writeInt32BE(16, 0);
    message.writeInt32BE(CANCEL_REQUEST, 4);
    message.writeInt32BE(processID, 8);
    message.writeInt32BE(secretKey, 12);
    const { promise, resolve } = Promise.withResolvers<void>();
    // Not ended here: a pooler takes the end of a request for its withdrawal. The server ends it.
    const socket = net.connect(this.#target.port, this.#target.host, () => socket.write(message));
    socket.setTimeout(CANCEL_TIMEOUT_MS, () => socket.destroy());
    socket.on("error", () => socket.destroy());
    socket.once("close", () => resolve());
    socket.unref();
    await promise;
  }
}

/**
 * The driver's query object, counting as rows come in so that a huge result is refused while it is
 * small.
 */
function submit(
  request: TargetQuery,
  abandon: (reason: unknown) => void,
  done: (result: TargetResult) => void,
): pg.Query {
  const rows: unknown[][] = [];
  let bytes = 0;
  let refused = false;
  const refuse = (limit: "rows" | "bytes"): void => {
    if (!refused) abandon(new ResultTooLarge(limit));
    refused = true;
    rows.length = 0;
  };
  const getTypeParser = (oid: number) => {
    const parse = request.parserOf(oid);
    return (text: string) => {
      bytes += text.length;
      return refused ? null : parse(text);
    };
  };
  const config = {
    text: request.text,
    values: request.values,
    rowMode: "array" as const,
    types: { getTypeParser },
  };
  const query = new pg.Query(config);
  // Typed for its own row mode; ours is lists.
  query.on("row", ((row: unknown[]) => {
    if (refused) return;
    if (rows.length >= request.maxRows) return refuse("rows");
    if (bytes > request.maxBytes) return refuse("bytes");
    rows.push(row);
  }) as never);
  query.on("end", (result: pg.QueryArrayResult | pg.QueryArrayResult[]) => {
    const last = Array.isArray(result) ? result.at(-1) : result;
    const fields = last?.fields ?? [];
    done({
      columns: fields.map(field => field.name),
      rows,
      rowCount: last?.rowCount ?? rows.length,
      bytes,
      hasRows: fields.length > 0,
      command: last?.command ?? "",
    });
  });
  return query;
}
