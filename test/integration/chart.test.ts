// The chart, rendered by a real Helm, and its parts, run for real: PgBouncer, NATS and a server.
import { strict as assert } from "node:assert";
import { spawnSync } from "node:child_process";
import { chownSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import pg from "pg";
import { parse } from "yaml";
import { ask } from "../support/actors.ts";
import {
  complaint,
  helmBinary,
  lint,
  manifests,
  plainEnv,
  podOf,
  render,
  rendered,
  RENDERED,
  the,
  type Choice,
  type Manifest,
} from "../support/chart.ts";
import { natsServerBinary, startNats } from "../support/nats.ts";
import {
  begin as beginPgBouncer,
  freePort,
  lent,
  pgBouncerBinary,
  sayNoPgBouncer,
  unprivileged,
} from "../support/pgbouncer.ts";
import { testDatabase } from "../support/postgres.ts";
import { endAll, newFolder, beginServer } from "../support/process.ts";
import { ROOT } from "../support/source-files.ts";

const KIND = ["kind.yaml"];
const read = (path: string): string => readFileSync(join(ROOT, path), "utf8");

describe("the chart", function () {
  this.timeout(60_000);
  const helm = helmBinary() ?? "";

  before(function () {
    if (helm !== "") return;
    process.stdout.write("      skipped: no helm (node .ci/get-helm.ts, HELM_BIN or PATH)\n");
    this.skip();
  });

  const made = (choice: Choice): Manifest[] => manifests(render(helm, choice));
  const named = (all: Manifest[]) => all.map(({ kind, metadata }) => `${kind} ${metadata.name}`);
  const settingsOf = (all: Manifest[], part = "server") =>
    the(all, "ConfigMap", `noetl-${part}`).data ?? {};

  for (const [file, values] of Object.entries(RENDERED)) {
    it(`is rendered as k8s/rendered/${file} says, else: node .ci/render.ts`, () => {
      assert.equal(render(helm, { values }), read(`k8s/rendered/${file}`));
      lint(helm, { values });
    });
  }

  it("hands every knob of PgBouncer to its environment, by its name", () => {
    const { pgbouncer } = parse(read("k8s/chart/values.yaml")) as {
      pgbouncer: Record<string, unknown>;
    };
    const about = ["enabled", "namespace", "service_name", "image", "replicas", "port"];
    const knobs = Object.keys(pgbouncer).filter(name => ![...about, "resources"].includes(name));
    assert.deepEqual(knobs.slice(0, 8), [
      ...["max_client_conn", "default_pool_size", "min_pool_size", "reserve_pool_size"],
      ...["reserve_pool_timeout", "max_db_connections", "server_lifetime", "server_idle_timeout"],
    ]);
    const set = knobs.map((name, at) => `pgbouncer.${name}=${1_000_000 + at}`);
    const [container] = podOf(
      the(made({ values: KIND, set }), "Deployment", "pgbouncer"),
    )!.containers;
    const env = plainEnv(container!);
    knobs.forEach((name, at) =>
      assert.equal(env[name.toUpperCase()], String(1_000_000 + at), name),
    );
  });

  it("leads everybody to PgBouncer where it is, and to Postgres without it", () => {
    const elsewhere = ["pgbouncer.namespace=postgres", "pgbouncer.service_name=pool"];
    const moved = made({ values: KIND, set: elsewhere });
    for (const part of ["server", "worker"]) {
      const { POSTGRES_HOST, POSTGRES_PORT, DB_POOLER } = settingsOf(moved, part);
      assert.equal(POSTGRES_HOST, "pool.postgres.svc.cluster.local");
      assert.deepEqual([POSTGRES_PORT, DB_POOLER], ["6432", "transaction"]);
    }
    for (const kind of ["ConfigMap", "Deployment", "Service", "PodDisruptionBudget"]) {
      assert.equal(the(moved, kind, "pool").metadata.namespace, "postgres");
    }
    const without = made({ values: KIND, set: ["pgbouncer.enabled=false"] });
    assert.ok(!named(without).some(name => name.includes("pgbouncer")));
    const { POSTGRES_HOST, POSTGRES_PORT, DB_POOLER } = settingsOf(without);
    assert.equal(POSTGRES_HOST, "noetl-postgres.noetl.svc.cluster.local");
    assert.deepEqual([POSTGRES_PORT, DB_POOLER], ["5432", undefined]);
  });

  it("lets config.server and config.worker win, each variable once", () => {
    const set = ["config.server.POSTGRES_HOST=db.example", "config.worker.NOETL_LOG_LEVEL=debug"];
    const all = made({ values: KIND, set });
    assert.equal(settingsOf(all)["POSTGRES_HOST"], "db.example");
    assert.equal(settingsOf(all)["NOETL_LOG_LEVEL"], undefined);
    assert.equal(settingsOf(all, "worker")["NOETL_LOG_LEVEL"], "debug");
  });

  it("takes a NATS and a Postgres of yours", () => {
    const set = [
      ...["nats.enabled=false", "nats.url=nats://bus:4222", "nats.user="],
      ...["postgres.enabled=false", "postgres.host=db"],
    ];
    const all = made({ values: KIND, set });
    assert.ok(!named(all).some(name => /StatefulSet/.test(name)));
    const settings = settingsOf(all);
    assert.deepEqual([settings["NATS_URL"], settings["NATS_USER"]], ["nats://bus:4222", undefined]);
  });

  it("refuses values that it does not know, and asks for those that it needs", () => {
    const refused: [string[], RegExp][] = [
      [["pgbouncer.max_clients=3"], /additional properties 'max_clients' not allowed/],
      [["worker.replicas=two"], /got string, want integer/],
      [["postgres.enabled=false"], /postgres\.host: name a Postgres, or set postgres\.enabled/],
      [["nats.enabled=false"], /nats\.url: name a NATS, or set nats\.enabled/],
      [["ingress.enabled=true"], /ingress\.host: the name that people use/],
      [["nats.jetstream_file_size=5G"], /does not match pattern/],
    ];
    for (const [set, message] of refused) {
      assert.match(complaint(helm, { values: KIND, set }) ?? "", message);
    }
  });

  it("has a schema that knows the values of values.yaml, all of them", () => {
    const { pgbouncer, properties } = {
      ...(parse(read("k8s/chart/values.yaml")) as { pgbouncer: object }),
      ...(JSON.parse(read("k8s/chart/values.schema.json")) as { properties: Schemas }),
    };
    const { global: _helms, ...ours } = properties;
    const values = parse(read("k8s/chart/values.yaml")) as object;
    assert.deepEqual(Object.keys(ours).sort(), Object.keys(values).sort());
    const knobs = Object.keys(ours["pgbouncer"]?.properties ?? {});
    assert.deepEqual(knobs.sort(), Object.keys(pgbouncer).sort());
  });
});

type Schemas = Record<string, { properties?: object }>;

describe("what the chart configures", function () {
  this.timeout(60_000);
  const all = rendered("kind.yaml");
  afterEach(endAll);

  it("is a PgBouncer with every knob, and a server behind it that is ready", async function () {
    const [bouncer, nats] = [pgBouncerBinary(), natsServerBinary()];
    if (!bouncer || !nats) {
      sayNoPgBouncer();
      return this.skip();
    }
    const database = await testDatabase();
    const direct = new URL(database.direct);
    // As a user without rights, and with characters that a quoted file could trip over.
    const login = { POSTGRES_USER: `chart_${Date.now()}`, POSTGRES_PASSWORD: `pa"ss w\\d$` };
    const { POSTGRES_USER: role, POSTGRES_PASSWORD: password } = login;
    await ask(database.direct, `create role ${role} superuser login password '${password}'`);
    const port = await freePort();
    const knobs = plainEnv(podOf(the(all, "Deployment", "pgbouncer"))!.containers[0]!);
    const env = {
      ...knobs,
      ...login,
      PATH: `${process.env["PATH"]}:${dirname(bouncer)}`,
      ...{ DB_HOST: "127.0.0.1", DB_PORT: direct.port },
      ...{ LISTEN_ADDR: "127.0.0.1", LISTEN_PORT: String(port) },
      PGBOUNCER_FOLDER: mkdtempSync(join(tmpdir(), "noetl-pgbouncer-")),
    };
    const user = unprivileged();
    if (user) chownSync(env.PGBOUNCER_FOLDER, user.uid, user.gid);
    const script = join(env.PGBOUNCER_FOLDER, "pgbouncer.sh");
    writeFileSync(script, the(all, "ConfigMap", "pgbouncer").data?.["pgbouncer.sh"] ?? "");
    const child = await beginPgBouncer([...lent(user), "sh", script], env);
    const url = `postgres://${role}:${encodeURIComponent(password)}@127.0.0.1:${port}`;
    const bell = await startNats(nats);
    try {
      await assertKnobs(`${url}/pgbouncer`, knobs);
      const folder = await newFolder();
      const settings = the(all, "ConfigMap", "noetl-server").data ?? {};
      const { NATS_USER: _user, ...given } = settings;
      const server = await beginServer(["server"], {
        ...given,
        ...login,
        ...{ POSTGRES_HOST: "127.0.0.1", POSTGRES_PORT: String(port) },
        POSTGRES_DB: direct.pathname.slice(1),
        ...{ NATS_URL: bell.url, NOETL_DATA_DIR: folder, NOETL_PORT: "0" },
        NOETL_HOST: "127.0.0.1",
      });
      await assertProbes(server.url);
    } finally {
      child.kill("SIGTERM");
      await bell.stop();
      rmSync(env.PGBOUNCER_FOLDER, { recursive: true });
      await database.drop();
      await ask(database.direct.replace(/[^/]*$/, "postgres"), `drop role ${role}`);
    }
  });

  it("is a NATS that takes its configuration", function () {
    const nats = natsServerBinary();
    if (!nats) return this.skip();
    const folder = mkdtempSync(join(tmpdir(), "noetl-nats-"));
    const file = join(folder, "nats.conf");
    writeFileSync(file, the(all, "ConfigMap", "noetl-nats").data?.["nats.conf"] ?? "");
    const { status, stderr } = spawnSync(nats, ["-t", "-c", file], { encoding: "utf8" });
    rmSync(folder, { recursive: true });
    assert.equal(status, 0, stderr);
  });

  /** PgBouncer's own view of its settings, which it gives to its stats_users. */
  async function assertKnobs(console: string, knobs: Record<string, string>): Promise<void> {
    const client = new pg.Client({ connectionString: console });
    await client.connect();
    const { rows } = await client.query<{ key: string; value: string }>("show config");
    await client.end();
    const found = new Map(rows.map(({ key, value }) => [key, value]));
    const said = Object.entries(knobs).filter(([name]) => !/^(DB|LISTEN|POSTGRES)_/.test(name));
    assert.ok(said.length >= 10);
    for (const [name, value] of said) assert.equal(found.get(name.toLowerCase()), value, name);
  }

  /** The probes of the server's pod, as the kubelet asks them. */
  async function assertProbes(url: string): Promise<void> {
    const container = podOf(the(all, "Deployment", "noetl-server"))!.containers[0]!;
    for (const name of ["startupProbe", "livenessProbe", "readinessProbe"]) {
      const { path } = (container[name] as { httpGet: { path: string } }).httpGet;
      const response = await fetch(url + path);
      assert.equal(response.status, 200, `${path}: ${await response.text()}`);
    }
  }
});
