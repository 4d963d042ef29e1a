// NoETL inside another Moleculer app: its services live and end with a broker that is not ours.
import { strict as assert } from "node:assert";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { ServiceBroker } from "moleculer";
import type { BrokerOptions, Context } from "moleculer";
import { createNoetl, type Noetl, type NoetlOptions } from "../../index.ts";
import { ask, until } from "../support/actors.ts";
import { ended, type TestNode } from "../support/node.ts";
import { testNodes, type TestNodes } from "../support/nodes.ts";
import { testDatabase, type TestDatabase } from "../support/postgres.ts";
import { newFolder } from "../support/process.ts";
import { deserted } from "../support/submitted.ts";

const PLAYBOOK = `apiVersion: noetl.io/v2
kind: Playbook
metadata: { name: host, path: tests/host }
workload: { names: [a, b, c] }
workflow:
  - step: create
    loop: { in: "{{ workload.names }}", iterator: n, spec: { mode: parallel, max_in_flight: 2 } }
    tool: { kind: action, action: users.create, params: { name: "{{ n }}" } }
    next: { arcs: [{ step: last }] }
  - step: last
    tool: { kind: action, action: users.create, params: { name: last } }`;

/** A service of the app; `held` calls wait until they are let go. */
function users() {
  const seen: { name: string; tenant: unknown }[] = [];
  const story: string[] = [];
  let letGo = () => {};
  let gate = Promise.resolve();
  return {
    seen,
    story,
    hold() {
      gate = new Promise(resolve => (letGo = resolve));
    },
    letGo: () => letGo(),
    schema: {
      name: "users",
      async stopped() {
        story.push("stopped");
      },
      actions: {
        create: {
          params: { name: "string" },
          async handler(ctx: Context<{ name: string }, Record<string, unknown>>) {
            seen.push({ name: ctx.params.name, tenant: ctx.meta["tenant_id"] });
            await gate;
            story.push("answered");
            return { hello: ctx.params.name };
          },
        },
      },
    },
  };
}

/** What other apps have: what is off in ours is on here. */
function hostBroker(options: BrokerOptions = {}): ServiceBroker {
  return new ServiceBroker({
    logger: false,
    metrics: true,
    tracing: true,
    bulkhead: { enabled: true },
    retryPolicy: { enabled: true },
    circuitBreaker: { enabled: true },
    registry: { stopDelay: 0 },
    skipProcessEventRegistration: true,
    ...options,
  });
}

describe("NoETL inside another app", function () {
  this.timeout(30_000);
  let database: TestDatabase;
  let broker: ServiceBroker;
  let app: ReturnType<typeof users>;
  let noetl: Noetl | undefined;

  const join = async (more: Partial<NoetlOptions> = {}): Promise<Noetl> => {
    const { settings, ...options } = more;
    noetl = await createNoetl({
      broker,
      env: {},
      settings: {
        DATABASE_URL: database.url,
        NOETL_DATA_DIR: await newFolder(),
        NOETL_ENCRYPTION_KEY: "0123456789abcdef".repeat(4),
        NOETL_DRAIN_SECONDS: 5,
        ...settings,
      },
      ...options,
    });
    return noetl;
  };
  const start = async (meta: object = {}) => {
    const params = { playbook: PLAYBOOK };
    const options = { meta };
    type Started = { execution_id: string };
    return broker.call<Started, object>("executions.start", params, options);
  };
  const run = async () => ended(broker, (await start()).execution_id);

  beforeEach(async () => {
    database = await testDatabase({ migrated: true });
    app = users();
    broker = hostBroker();
    broker.createService(app.schema);
  });

  afterEach(async () => {
    app.letGo();
    await noetl?.close();
    noetl = undefined;
    await broker.stop();
    await database.drop();
  });

  it("starts with the app's broker, runs its actions, and ends with it", async () => {
    await join();
    await broker.start();
    const view = await run();
    assert.deepEqual([view.status, view.result], ["COMPLETED", { hello: "last" }]);
    assert.equal(app.seen.length, 4);
    await broker.stop();
    await deserted(database.url);
  });

  it("joins a broker that runs already, and leaves it running", async () => {
    await broker.start();
    const guest = await join();
    assert.equal((await run()).status, "COMPLETED", "at once, with no waiting for services");
    await guest.close();
    await deserted(database.url);
    assert.deepEqual(await broker.call("users.create", { name: "x" }), { hello: "x" });
    assert.deepEqual(
      broker.services.map(service => service.name).filter(name => !name.startsWith("$")),
      ["users"],
    );
    await join();
    assert.equal((await run()).status, "COMPLETED", "and may be asked in again");
  });

  it("a stopping broker lets running work finish first", async () => {
    await join();
    await broker.start();
    app.hold();
    const { execution_id } = await start();
    await until(() => app.seen.length === 2);
    const stopping = broker.stop();
    await until(() => broker.stopping);
    app.letGo();
    await stopping;
    assert.deepEqual(app.story, ["answered", "answered", "stopped"], "the app's services last");
    await deserted(database.url);
    broker = hostBroker();
    broker.createService(app.schema);
    await join({ settings: { NOETL_RERING_SECONDS: 0.2 } });
    await broker.start();
    assert.equal((await ended(broker, execution_id)).status, "COMPLETED");
    assert.equal(app.seen.length, 4, "nothing ran twice");
  });

  it("callers that wait for a run keep no other caller waiting", async () => {
    broker = hostBroker({ bulkhead: { enabled: true, concurrency: 1 } });
    broker.createService(app.schema);
    await join();
    await broker.start();
    app.hold();
    const { execution_id } = await start();
    const waiting = ended(broker, execution_id);
    await until(() => app.seen.length === 1);
    const playbook = PLAYBOOK.replace("tests/host", "tests/quick").replaceAll("action", "noop");
    const quick = await broker.call<{ execution_id: string }, object>("executions.start", {
      playbook,
    });
    const asked = performance.now();
    assert.equal((await ended(broker, quick.execution_id)).status, "COMPLETED");
    assert.ok(performance.now() - asked < 5_000, "the other waits 10 seconds");
    app.letGo();
    assert.equal((await waiting).status, "COMPLETED");
  });

  it("says why a service cannot start in a broker that runs, and leaves nothing", async () => {
    const taken = createServer().listen(0, "127.0.0.1");
    await new Promise(resolve => taken.once("listening", resolve));
    const { port } = taken.address() as AddressInfo;
    await broker.start();
    try {
      await assert.rejects(
        join({ roles: ["server", "worker", "api"], settings: { NOETL_PORT: port } }),
        { type: "UNAVAILABLE", message: /the port is in use/ },
      );
    } finally {
      taken.close();
    }
    await deserted(database.url);
    assert.deepEqual(
      broker.services.map(service => service.name).filter(name => !name.startsWith("$")),
      ["users"],
    );
  });

  it("refuses a broker with a service of the same name", async () => {
    broker.createService({ name: "catalog" });
    await assert.rejects(join(), { code: 409, message: /a service 'catalog' already/ });
    await deserted(database.url);
  });

  it("refuses a setting that there is not, and one of two roles without a NATS", async () => {
    const refused = { type: "REJECTED", code: 422 };
    const wrong = { NOETL_WORKER_SLOTS: 3 };
    await assert.rejects(join({ settings: wrong }), { ...refused, message: /NOETL_WORKER_SLOTS/ });
    await assert.rejects(join({ roles: ["worker"] }), { ...refused, message: /NATS_URL must be/ });
  });

  it("makes a broker of its own when it is given none", async () => {
    const settings = { DATABASE_URL: database.url, NOETL_LOG_LEVEL: "error" as const };
    const own = await createNoetl({ env: {}, settings });
    await own.broker.call("catalog.list");
    await own.close();
    await deserted(database.url);
  });
});

describe("NoETL beside another app, over NATS", function () {
  this.timeout(40_000);
  let nodes: TestNodes;
  let broker: ServiceBroker;
  let app: ReturnType<typeof users>;
  let worker: TestNode;
  let heard: { name: string; params: Record<string, unknown> }[];

  before(async function () {
    const started = await testNodes();
    if (!started) return this.skip();
    nodes = started;
  });

  beforeEach(async () => {
    app = users();
    heard = [];
    const { NATS_URL: url = "", NOETL_NAMESPACE: namespace } = nodes.env;
    broker = hostBroker({
      namespace,
      nodeID: "app",
      transporter: { type: "NATS", options: { servers: [url] } },
    });
    const hear = (ctx: Context<Record<string, unknown>>) => {
      heard.push({ name: ctx.eventName ?? "", params: ctx.params });
    };
    broker.createService(app.schema);
    broker.createService({ name: "ears", events: { "execution.*": hear, "loop.done": hear } });
    const server = await nodes.start({ roles: ["server"] });
    worker = await nodes.start({ roles: ["worker"] });
    await nodes.acquainted();
    await broker.start();
    await broker.waitForServices("executions", 10_000, 20);
    for (const node of [server, worker]) await node.broker.waitForServices("ears", 10_000, 20);
  });

  afterEach(async () => {
    await broker.stop();
    await nodes.stopNodes();
  });

  after(() => nodes?.close());

  it("the app's actions are steps, and it hears the ends with ids and counts", async () => {
    const { execution_id } = await broker.call<{ execution_id: string }, object>(
      "executions.start",
      { playbook: PLAYBOOK },
      { meta: { tenant_id: "acme" } },
    );
    await until(() => heard.some(({ name }) => name === "execution.completed"), 20_000);
    const view = await broker.call<Record<string, unknown>, object>("executions.wait", {
      execution_id,
      timeout_ms: 10_000,
    });
    assert.deepEqual([view["status"], view["result"]], ["COMPLETED", { hello: "last" }]);
    assert.deepEqual([...new Set(app.seen.map(({ tenant }) => tenant))], ["acme"]);
    const completed = heard.find(({ name }) => name === "execution.completed")?.params;
    const { at, ...told } = completed ?? {};
    assert.ok(Math.abs(Date.now() - Number(at)) < 60_000);
    assert.deepEqual(told, {
      ...{ execution_id, parent_execution_id: null, path: "tests/host", status: "COMPLETED" },
      ...{ generation: 0, steps: 2 },
    });
    const done = heard.find(({ name }) => name === "loop.done")?.params;
    assert.equal(done?.["execution_id"], execution_id);
    assert.deepEqual(done["stats"], { total: 3, success: 3, failed: 0, not_run: 0 });
  });

  it("hears how a child failed, and its parent with it, and of a cancel", async () => {
    const failing = PLAYBOOK.replace("tests/host", "tests/child").replaceAll("users", "nobody");
    await broker.call("catalog.register", { content: failing });
    const parent = `apiVersion: noetl.io/v2
kind: Playbook
metadata: { name: parent, path: tests/parent }
workflow:
  - step: child
    tool: { kind: playbook, path: tests/child, return_result: true }`;
    const start = (playbook: string) =>
      broker.call<{ execution_id: string }, object>("executions.start", { playbook });
    const { execution_id } = await start(parent);
    const failures = () => heard.filter(({ name }) => name === "execution.failed");
    await until(() => failures().length === 2, 20_000);
    const [child, above] = failures().map(({ params }) => params);
    assert.deepEqual(
      [child?.["path"], child?.["parent_execution_id"]],
      ["tests/child", execution_id],
    );
    assert.deepEqual([above?.["execution_id"], above?.["status"]], [execution_id, "FAILED"]);
    app.hold();
    const held = await start(PLAYBOOK);
    await until(() => app.seen.length > 0);
    await broker.call("executions.cancel", { execution_id: held.execution_id });
    await until(() => heard.some(({ name }) => name === "execution.cancelled"), 20_000);
    const cancelled = heard.find(({ name }) => name === "execution.cancelled")?.params;
    assert.equal(cancelled?.["execution_id"], held.execution_id);
    app.letGo();
  });

  it("may be the worker itself, in its own broker", async () => {
    await worker.stop();
    const settings = { ...nodes.env, DATABASE_URL: nodes.database.url, NOETL_DRAIN_SECONDS: 5 };
    await createNoetl({ broker, roles: ["worker"], env: {}, settings });
    await broker.waitForServices(["worker", "tool.action"], 10_000, 20);
    const playbook = { playbook: PLAYBOOK };
    const run = await broker.call<{ execution_id: string }, object>("executions.start", playbook);
    const view = await ended(broker, run.execution_id);
    assert.deepEqual([view.status, app.seen.length], ["COMPLETED", 4]);
    await broker.stop();
    const [row] = await ask<{ status: string }>(
      nodes.database.url,
      "select status from noetl.runtime where worker_id = 'app'",
    );
    assert.equal(row?.status, "gone", "it says farewell");
  });
});
