// Moleculer events as starts: two servers hear them, one of them starts each, once.
import { strict as assert } from "node:assert";
import { ServiceBroker } from "moleculer";
import type { Context, Service } from "moleculer";
import { ask, until } from "../support/actors.ts";
import { startNode, type TestNode } from "../support/node.ts";
import { testNodes, type TestNodes } from "../support/nodes.ts";
import { testDatabase } from "../support/postgres.ts";

const playbook = (path: string) => `apiVersion: noetl.io/v2
kind: Playbook
metadata: { name: p, path: ${path} }
workflow:
  - step: only
    tool: { kind: noop }`;

const EVENTS = "order.created=orders/load,order.*=orders/audit,user.created=users/missing";

interface Started {
  path: string;
  workload: Record<string, unknown>;
  meta: Record<string, unknown>;
  context: Record<string, unknown>;
}

describe("events that start playbooks", function () {
  this.timeout(40_000);
  let nodes: TestNodes;
  let servers: TestNode[];
  let app: ServiceBroker;

  before(async function () {
    const made = await testNodes();
    if (!made) return this.skip();
    nodes = made;
    const env = { NOETL_EVENT_STARTS: EVENTS, NOETL_LOG_LEVEL: "fatal" };
    servers = [];
    for (let count = 0; count < 2; count += 1) {
      servers.push(await nodes.start({ roles: ["server"], env }));
    }
    await nodes.acquainted();
    const { NATS_URL: url = "", NOETL_NAMESPACE: namespace = "" } = nodes.env;
    app = new ServiceBroker({
      ...{ logger: false, namespace, nodeID: "app", skipProcessEventRegistration: true },
      transporter: { type: "NATS", options: { servers: [url] } },
    });
    app.createService({
      name: "orders",
      actions: {
        /** Emits as a durable step would, twice: its first answer was lost. */
        async place(ctx: Context<{ id: number }>) {
          await ctx.emit("order.placed", ctx.params);
          await ctx.emit("order.placed", ctx.params);
        },
        /** Two different events in one request. */
        async both(this: Service, ctx: Context) {
          await ctx.emit("order.both", { id: 1 });
          await ctx.emit("order.both", { id: 2 });
        },
      },
    });
    await app.start();
    for (const path of ["orders/load", "orders/audit"]) {
      await app.call("catalog.register", { content: playbook(path) });
    }
    // Both servers are known to listen.
    await until(() => listeners(app).length === 2, 10_000);
  });

  after(async () => {
    await app?.stop();
    await nodes?.close();
  });

  const started = async (where = "true"): Promise<Started[]> =>
    ask<Started>(
      nodes.database.url,
      `select meta->>'path' as path, context->'workload' as workload, meta, context
       from noetl.event where event_type = 'playbook.initialized' and ${where}
       order by event_id`,
    );
  const withId = (from: number, to = from) =>
    started(`(context->'workload'->>'id')::integer between ${from} and ${to}`);
  /** Later events of one emitter are handled later: what they start shows that all is done. */
  async function settled(mark: number, server = servers[0]): Promise<void> {
    await server?.broker.call("executions.start", { path: "orders/load", payload: { id: mark } });
    await until(async () => (await withId(mark)).length > 0);
  }

  it("one server starts what an event names, with its params as payload", async () => {
    const meta = { caller: { name: "shop" }, tenant_id: "acme", other: 1 };
    for (let id = 1; id <= 20; id += 1) {
      await app.emit("order.created", { id }, { meta });
    }
    await until(async () => (await withId(1, 20)).length >= 40, 20_000);
    await settled(900);
    const rows = await withId(1, 20);
    assert.equal(rows.length, 40, "two playbooks for each event");
    const loads = rows.filter(row => row.path === "orders/load");
    assert.equal(new Set(loads.map(row => row.workload["id"])).size, 20);
    assert.deepEqual(loads[0]?.context["meta"], { tenant_id: "acme" });
    assert.equal(loads[0]?.meta["requested_by"], "shop");
    assert.match(String(loads[0]?.meta["start_key"]), /^event:[0-9a-f]{64}$/);
  });

  it("both servers take their part", async () => {
    const counted = servers.map(() => 0);
    for (const [index, { broker }] of servers.entries()) {
      const { call } = broker;
      broker.call = ((name: string, ...rest: never[]) => {
        if (name === "executions.start") counted[index]! += 1;
        return Reflect.apply(call, broker, [name, ...rest]) as unknown;
      }) as typeof call;
    }
    for (let id = 21; id <= 30; id += 1) await app.emit("order.moved", { id });
    await until(async () => (await withId(21, 30)).length === 10, 20_000);
    assert.deepEqual(counted, [5, 5]);
  });

  it("a broadcast, which both servers get, starts once", async () => {
    for (let id = 31; id <= 35; id += 1) await app.broadcast("order.moved", { id });
    await until(async () => (await withId(31, 35)).length >= 5, 20_000);
    await settled(901);
    await settled(902, servers[1]);
    assert.equal((await withId(31, 35)).length, 5);
  });

  it("the same event again of one durable step starts once", async () => {
    const meta = { idempotency_key: "1:step:1:task:1" };
    await app.call("orders.place", { id: 41 }, { meta });
    await app.call("orders.place", { id: 41 }, { meta });
    await app.call("orders.place", { id: 42 }, { meta: { idempotency_key: "1:step:2:task:1" } });
    await until(async () => (await withId(42)).length > 0);
    await settled(903);
    assert.equal((await withId(41, 42)).length, 2);
  });

  it("two events of one request start two runs", async () => {
    const before = (await withId(1, 2)).length;
    await app.call("orders.both");
    await until(async () => (await withId(1, 2)).length === before + 2);
  });

  it("a param that is no object is the payload's event", async () => {
    await app.emit("order.noted", "a text");
    const noted = () => started(`context->'workload'->>'event' = 'a text'`);
    await until(async () => (await noted()).length === 1);
    assert.deepEqual((await noted())[0]?.workload, { event: "a text" });
  });

  it("noetl.start takes what executions.start takes", async () => {
    await app.emit("noetl.start", { path: "orders/load", payload: { id: 50 } });
    await until(async () => (await withId(50)).length === 1);
    const params = { path: "orders/load", payload: { id: 51 }, idempotency_key: "mine" };
    await app.emit("noetl.start", params);
    await app.emit("noetl.start", params);
    await until(async () => (await withId(51)).length === 1);
    await settled(904);
    assert.equal((await withId(51)).length, 1);
  });

  it("a start that fails is logged with its reason, and harms nobody", async () => {
    const said: unknown[][] = [];
    for (const { broker } of servers) {
      const service = broker.getLocalService("starts");
      service.logger.error = (...args: unknown[]) => void said.push(args);
    }
    await app.emit("user.created", { id: 60 });
    await app.emit("noetl.start", { payload: {} });
    await until(() => said.length === 2);
    const reasons = said.map(([fields, message]) => {
      const { err, tries } = fields as { err: { message: string; code: number }; tries: number };
      return [message, err.code, tries];
    });
    assert.deepEqual(reasons.sort(), [
      ["event.start_failed", 404, 1],
      ["event.start_failed", 422, 1],
    ]);
  });
});

describe("an event start", function () {
  this.timeout(20_000);

  it("is tried again while the store is away", async () => {
    const database = await testDatabase({ migrated: true });
    const env = { NOETL_EVENT_STARTS: "order.created=orders/load", NOETL_LOG_LEVEL: "fatal" };
    const node = await startNode({ url: database.url, env });
    try {
      await node.broker.call("catalog.register", { content: playbook("orders/load") });
      let failures = 2;
      const { call } = node.broker;
      node.broker.call = ((name: string, ...rest: never[]) => {
        const lost = name === "executions.start" && failures-- > 0;
        if (lost) return Promise.reject(Object.assign(new Error("away"), { retryable: true }));
        return Reflect.apply(call, node.broker, [name, ...rest]) as unknown;
      }) as typeof call;
      await node.broker.emit("order.created", { id: 1 });
      assert.ok(failures < 0, "emit waits for its listeners here");
      const { executions } = await node.broker.call<{ executions: object[] }>("executions.list");
      assert.equal(executions.length, 1);
    } finally {
      await node.stop();
      await database.drop();
    }
  });

  it("is refused for an event that the run itself would tell", async () => {
    const database = await testDatabase({ migrated: true });
    try {
      for (const pattern of ["execution.*", "**", "loop.done", "noetl.start"]) {
        const env = { NOETL_EVENT_STARTS: `${pattern}=a/b` };
        await assert.rejects(startNode({ url: database.url, env }), {
          code: 422,
          message: /would start a playbook on every/,
        });
      }
    } finally {
      await database.drop();
    }
  });
});

/** Nodes whose `starts` this broker knows. */
function listeners(broker: ServiceBroker): string[] {
  const list = broker.registry.getServiceList({ onlyAvailable: true }) as {
    name: string;
    nodeID: string;
  }[];
  return list.filter(({ name }) => name === "starts").map(({ nodeID }) => nodeID);
}
