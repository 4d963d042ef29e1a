// A worker is ready when its pulls are answered. One that only has a connection says that it gets
// no work, and why, wherever somebody looks; real nats-server and Postgres.
import { strict as assert } from "node:assert";
import { connect, type JetStreamManager, type NatsConnection } from "nats";
import { checkDatabase } from "../../cli/doctor-database.ts";
import { workerTable } from "../../cli/workers.ts";
import { openDatabase } from "../../mixins/postgres/index.ts";
import { loadSettings } from "../../schemas/env.ts";
import type { Health } from "../../services/api/health.ts";
import type { WorkerView } from "../../services/workers/workers.service.ts";
import { until } from "../support/actors.ts";
import { startGate, type Gate } from "../support/gate.ts";
import { ended, type TestNode } from "../support/node.ts";
import { testNodes, type TestNodes } from "../support/nodes.ts";
import { noetl } from "../support/process.ts";

const POOL = "noetl_worker_pool";
/** Beats and pulls of a test are quick. */
const QUICK = {
  NOETL_LOG_LEVEL: "fatal",
  NOETL_WORKER_BEAT_SECONDS: "0.2",
  NOETL_WORKER_NATS_FETCH_TIMEOUT_SECONDS: "1.2",
  NOETL_WORKER_NATS_FETCH_HEARTBEAT_SECONDS: "0.5",
};
/** Pulls of both classes that are not answered, and what is tried to mend it, in a second. */
const CALM_MAX = 60;

const SLOW = `apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: slow, path: test/slow}
workload: {gate: ""}
workflow:
  - {step: one, tool: {kind: http, url: "{{ workload.gate }}"}}
`;

describe("a worker", function () {
  this.timeout(60_000);
  let nodes: TestNodes;
  let connection: NatsConnection;
  let manager: JetStreamManager;
  let server: TestNode;
  let worker: TestNode;
  let gate: Gate | undefined;

  async function open(env: Record<string, string> = {}, config = ""): Promise<boolean> {
    const made = await testNodes({ config });
    if (!made) return false;
    nodes = made;
    const user = config === "" ? {} : { user: "boss", pass: "boss" };
    connection = await connect({ servers: nodes.nats.url, ...user });
    manager = await connection.jetstreamManager();
    const login = { NATS_USER: "boss", NATS_PASSWORD: "boss" };
    const boss: Record<string, string> = config === "" ? {} : login;
    server = await nodes.start({ roles: ["server", "api"], env: { ...QUICK, ...boss } });
    worker = await nodes.start({ roles: ["worker", "api"], env: { ...QUICK, ...env } });
    return true;
  }
  afterEach(async () => {
    gate?.open();
    await nodes?.close();
    await connection?.close();
    await gate?.close();
    gate = undefined;
  });

  const stream = () => nodes.env["NATS_STREAM"] ?? "";
  const urlOf = async (node: TestNode) => (await node.call<{ url: string }>("api.address")).url;
  const row = async () =>
    (await server.call<{ workers: WorkerView[] }>("workers.list")).workers[0]!;
  async function health(): Promise<[number, Health]> {
    const response = await fetch(`${await urlOf(worker)}/health`);
    return [response.status, (await response.json()) as Health];
  }
  async function metric(name: string, node = worker): Promise<string[]> {
    const text = await (await fetch(`${await urlOf(node)}/metrics`)).text();
    return text.split("\n").filter(line => line.startsWith(name));
  }

  /** Everybody who is asked says that it is not ready, and why. */
  async function unready(why: RegExp): Promise<void> {
    await until(async () => why.test((await row()).reason ?? ""), 20_000);
    assert.equal((await row()).status, "unready");
    const [status, { checks }] = await health();
    assert.equal(status, 503);
    assert.match(checks?.["worker"] ?? "", why);
    assert.deepEqual(await metric("noetl_worker_ready"), ["noetl_worker_ready 0"]);
  }

  async function ready(): Promise<void> {
    await until(async () => (await row()).status === "ready", 20_000);
    await until(async () => (await health())[0] === 200);
    assert.equal((await row()).reason, undefined);
    assert.equal((await health())[1].checks?.["worker"], "ok");
    assert.deepEqual(await metric("noetl_worker_ready"), ["noetl_worker_ready 1"]);
  }

  it("whose consumer is deleted is ready again when it has made it anew", async function () {
    if (!(await open())) return this.skip();
    await ready();
    await manager.consumers.delete(stream(), POOL);
    await until(() => manager.consumers.info(stream(), POOL).catch(() => undefined));
    await ready();
  });

  it("whose consumer cannot be made again says so, calmly, until it can", async function () {
    if (!(await open())) return this.skip();
    await ready();
    const { config } = await manager.streams.info(stream());
    // Another installer is quicker than we are, and has its own idea of what a stream is.
    const workqueue = { name: stream(), subjects: config.subjects, retention: "workqueue" };
    await until(() => {
      void manager.streams.delete(stream()).catch(() => false);
      return manager.streams.add(workqueue as object).catch(() => false);
    });
    await unready(/consumer noetl_worker_pool.* \(consumer must be deliver all on workqueue/);
    const name = worker.broker.nodeID;
    assert.match(workerTable([await row()]), new RegExp(`unready[^]*${name} gets no work: cons`));
    const settings = loadSettings(nodes.env);
    const database = openDatabase({ url: nodes.database.url, size: 1 });
    const { checks } = await checkDatabase(database, { url: nodes.database.url, settings });
    await database.close();
    const failed = checks.filter(one => one.name === "workers" && one.state === "fail");
    assert.match(
      failed[0]?.found ?? "",
      new RegExp(`^${name} gets no work: consumer noetl_worker`),
    );

    const env = { ...nodes.env, DATABASE_URL: nodes.database.url, NOETL_DATA_DIR: worker.dataDir };
    const refused = await noetl(["workers"], env);
    assert.deepEqual([refused.code, refused.stdout], [2, ""]);
    assert.match(refused.stderr, /has retention 'workqueue', expected 'limits': remove it with/);

    const asked = async () => (await manager.getAccountInfo()).api.total;
    const before = await asked();
    const begun = performance.now();
    await until(() => performance.now() - begun > 1_000);
    const tries = (await asked()) - before;
    assert.ok(tries < CALM_MAX, `${tries} questions in a second`);

    await manager.streams.delete(stream());
    await ready();
  });

  it("whose NATS is killed says so, and is ready when that is back", async function () {
    if (!(await open())) return this.skip();
    await ready();
    assert.equal((await metric("noetl_consumer_num_pending")).length, 2);
    await nodes.nats.loseAll();
    await until(async () => /NATS cannot be reached/.test((await row()).reason ?? ""), 20_000);
    await until(async () => (await metric("noetl_consumer_num_pending")).length === 0);
    await nodes.nats.start();
    await ready();
    assert.equal((await metric("noetl_consumer_num_pending")).length, 2);
  });

  it("that may not pull says what NATS does not let it do", async function () {
    const denied = "$JS.API.CONSUMER.MSG.NEXT.>";
    const config = `authorization { users = [
      { user: boss, password: boss },
      { user: clerk, password: clerk, permissions: { publish: { deny: "${denied}" } } }
    ] }`;
    const clerk = { NATS_USER: "clerk", NATS_PASSWORD: "clerk" };
    if (!(await open(clerk, config))) return this.skip();
    await unready(/fell silent \(NATS lets this user not publish to \$JS.*MSG\.NEXT/);
  });

  it("that finds its work over HTTP is ready without NATS", async function () {
    const made = await testNodes();
    if (!made) return this.skip();
    nodes = made;
    connection = await connect({ servers: nodes.nats.url });
    server = await nodes.start({ roles: ["server", "api"], env: QUICK });
    const there = { ...QUICK, NOETL_SERVER_URL: await urlOf(server) };
    worker = await nodes.start({ roles: ["worker", "api"], env: there });
    await nodes.nats.loseAll();
    await until(async () => (await metric("noetl_doorbell_connected"))[0]?.endsWith(" 0"));
    const { execution_id } = await server.call<{ execution_id: string }>("executions.start", {
      playbook: SLOW.replace(/\{step: one.*/, "{step: one, tool: {kind: noop}}"),
    });
    assert.equal((await ended(server.broker, execution_id)).status, "COMPLETED");
    assert.equal((await row()).status, "ready");
    await nodes.nats.start();
  });

  it("that is full pulls nothing, and is ready", async function () {
    if (!(await open({ NOETL_WORKER_MAX_INFLIGHT_COMMANDS: "1" }))) return this.skip();
    await nodes.acquainted();
    gate = await startGate();
    await server.call("executions.start", { playbook: SLOW, payload: { gate: gate.url } });
    await gate.arrived(1);
    await until(async () => (await row()).in_flight === 1);
    const pulls = async () => {
      const infos = await Promise.all(
        [POOL, `${POOL}_db`].map(one => manager.consumers.info(stream(), one)),
      );
      return infos.reduce((sum, { num_waiting }) => sum + num_waiting, 0);
    };
    await until(async () => (await pulls()) === 0);
    await ready();
  });
});
