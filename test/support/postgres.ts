// Real Postgres for tests: one server per test process with a database each, and servers to break.
import { randomBytes } from "node:crypto";
import { rmSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { findRunner } from "../../mixins/postgres/embedded-binaries.ts";
import { DATABASE, dataFolder, prepareCluster } from "../../mixins/postgres/embedded-cluster.ts";
import { BoundedLog } from "../../mixins/postgres/embedded-log.ts";
import { startPostgres, type RunningPostgres } from "../../mixins/postgres/embedded-server.ts";
import { atEnd, atExit } from "./hooks.ts";
import { pgBouncerBinary, startPgBouncer, type TestPgBouncer } from "./pgbouncer.ts";
import { leftInSessions } from "./session-state.ts";

/** For tests that do not pull the plug: no fsync, more connections. */
const FAST = { fsync: "off", full_page_writes: "off", max_connections: "300" };

/** A server of a test's own. It keeps its port and its data between `kill`, `stop` and `start`. */
export interface TestServer {
  readonly url: string;
  readonly port: number;
  /** `immediate` aborts every session as a crash does; `crash` kills the postmaster itself. */
  kill(how?: "immediate" | "crash"): Promise<void>;
  stop(): Promise<void>;
  start(): Promise<void>;
  /**
   * A fresh database. `migrated` copies it from one that has the tables of schema `noetl`, migrated
   * once per server.
   */
  database(options?: { migrated?: boolean }): Promise<TestDatabase>;
  /** Stops it and removes its files. */
  remove(): Promise<void>;
}

export interface TestDatabase {
  /** What the product connects to: through PgBouncer where TEST_PGBOUNCER=1 says so. */
  readonly url: string;
  /** The server itself, for a test that looks at sessions. */
  readonly direct: string;
  /** Behind PgBouncer it fails when something was left in a session. */
  drop(): Promise<void>;
}

/** `npm run test:pgbouncer`: everything goes through one PgBouncer. */
export const isBehindPgBouncer = process.env["TEST_PGBOUNCER"] === "1";

let shared: Promise<TestServer> | undefined;
let bouncer: Promise<TestPgBouncer> | undefined;

/** A fresh database on the server that all suites of this process share. */
export async function testDatabase(options: { migrated?: boolean } = {}): Promise<TestDatabase> {
  shared ??= startServer({ settings: FAST });
  const server = await shared;
  const database = await server.database(options);
  if (!isBehindPgBouncer) return database;
  bouncer ??= startPgBouncer(pgBouncerBinary() ?? "pgbouncer", server.url);
  const url = (await bouncer).through(database.direct);
  return {
    ...database,
    url,
    async drop() {
      const left = await leftInSessions(url);
      await database.drop();
      if (left.length > 0) throw new Error(`left in sessions of PgBouncer: ${left.join(", ")}`);
    },
  };
}

/**
 * Starts a server in a temporary folder. By default with the settings of the product, fsync and
 * all; it dies with this process and its files are removed at the end.
 */
export async function startServer(
  options: { settings?: Record<string, string> } = {},
): Promise<TestServer> {
  const root = await mkdtemp(join(tmpdir(), "noetl-test-"));
  atExit(() => rmSync(root, { recursive: true, force: true }));
  const folder = dataFolder(root);
  const runner = await findRunner();
  const log = new BoundedLog(folder.log);
  const password = await prepareCluster(folder, runner, { durable: false });
  const begin = (port?: number): Promise<RunningPostgres> =>
    startPostgres({ folder, runner, log, port, settings: options.settings });
  let postgres = await begin();
  let template: Promise<string> | undefined;
  const { port } = postgres;

  const server: TestServer = {
    port,
    url: `postgres://postgres:${password}@127.0.0.1:${port}/${DATABASE}`,
    async kill(how = "immediate") {
      if (how === "immediate") return postgres.stop("immediate");
      process.kill(postgres.pid, "SIGKILL");
      await postgres.exited;
    },
    stop: () => postgres.stop(),
    async start() {
      postgres = await begin(port);
      if (postgres.port !== port) throw new Error(`port ${port} was taken while Postgres was down`);
    },
    async database({ migrated = false } = {}) {
      const name = `test_${randomBytes(6).toString("hex")}`;
      if (migrated) template ??= migratedTemplate(server);
      const source = migrated ? ` TEMPLATE ${await template}` : "";
      await asAdmin(server, `CREATE DATABASE ${name}${source}`);
      const url = databaseUrl(server, name);
      const drop = () => asAdmin(server, `DROP DATABASE IF EXISTS ${name} WITH (FORCE)`);
      return { url, direct: url, drop };
    },
    async remove() {
      await postgres.stop();
      await rm(root, { recursive: true, force: true });
    },
  };
  atEnd(() => server.remove());
  return server;
}

async function migratedTemplate(server: TestServer): Promise<string> {
  const name = "migrated_template";
  await asAdmin(server, `CREATE DATABASE ${name}`);
  // Loaded late: suites that need no tables do not need the migrations either.
  const { migrate } = await import("../../mixins/postgres/migrate.ts");
  const { openDatabase } = await import("../../mixins/postgres/index.ts");
  const database = openDatabase({ url: databaseUrl(server, name), size: 1 });
  await migrate(database).finally(() => database.close());
  return name;
}

async function asAdmin(server: TestServer, statement: string): Promise<void> {
  const client = new pg.Client(databaseUrl(server, "postgres"));
  await client.connect();
  try {
    await client.query(statement);
  } finally {
    await client.end();
  }
}

function databaseUrl(server: TestServer, name: string): string {
  return server.url.replace(/[^/]*$/, name);
}
