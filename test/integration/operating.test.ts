// What an operator looks at: GET /metrics and GET /health of a running server.
import { strict as assert } from "node:assert";
import { ask, until } from "../support/actors.ts";
import { parseExposition } from "../support/exposition.ts";
import { openEventStream } from "../support/event-stream.ts";
import { startGate } from "../support/gate.ts";
import { natsServerBinary, startNats } from "../support/nats.ts";
import { ended, startNode, type TestNode } from "../support/node.ts";
import { HEAD } from "../support/playbook-samples.ts";
import { startServer, testDatabase, type TestDatabase } from "../support/postgres.ts";

const ALL = ["server", "worker", "api"] as const;

const LOOPING = `${HEAD}workflow:
  - step: each
    loop: {in: [1, 2, 3], iterator: n, spec: {mode: parallel, max_in_flight: 3}}
    tool: {kind: noop}
`;
const FAILING = `${HEAD}workflow:
  - {step: one, tool: {kind: http, url: "http://127.0.0.1:1/"}}
`;
const HELD = `${HEAD}workload: {gate: ""}
workflow:
  - {step: one, tool: {kind: http, url: "{{ workload.gate }}"}}
`;

async function addressOf(node: TestNode): Promise<string> {
  return (await node.call<{ url: string }>("api.address")).url;
}

describe("GET /metrics", function () {
  this.timeout(60_000);
  let database: TestDatabase;
  let node: TestNode;
  let url: string;
  before(async () => {
    database = await testDatabase({ migrated: true });
    node = await startNode({ url: database.url, roles: [...ALL] });
    url = await addressOf(node);
  });
  after(async () => {
    await node.stop();
    await database.drop();
  });

  async function scrape(): Promise<Map<string, number>> {
    const response = await fetch(`${url}/metrics`);
    assert.equal(response.headers.get("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    const { samples, types } = parseExposition(await response.text());
    assert.ok([...types.keys()].every(name => name.startsWith("noetl_")));
    return samples;
  }

  it("is text that Prometheus reads, and its counters grow with what happens", async () => {
    const before = await scrape();
    await node.run(LOOPING);
    await node.run(FAILING);
    const after = await scrape();
    const grown = (series: string): number => {
      const [first, last] = [before.get(series), after.get(series)];
      assert.ok(first !== undefined && last !== undefined, `${series} is there both times`);
      return last - first;
    };
    assert.equal(grown("noetl_executions_started_total"), 2);
    assert.equal(grown('noetl_executions_ended_total{status="COMPLETED"}'), 1);
    assert.equal(grown('noetl_executions_ended_total{status="FAILED"}'), 1);
    assert.equal(grown('noetl_executions_ended_total{status="CANCELLED"}'), 0);
    assert.equal(grown('noetl_actor_loads_total{kind="executions"}'), 2);
    assert.equal(grown('noetl_actor_loads_total{kind="loops"}'), 1);
    assert.equal(grown('noetl_worker_outcomes_total{answer="accepted"}'), 4);
    assert.ok(grown("noetl_rings_total") >= 2);
    const [{ count } = { count: "" }] = await ask<{ count: string }>(
      database.url,
      "select count(*) as count from noetl.event",
    );
    assert.equal(after.get("noetl_append_events_total"), Number(count));
    const statements = after.get("noetl_append_statements_total");
    assert.equal(after.get("noetl_append_statement_seconds_count"), statements);
    assert.ok(grown("noetl_process_cpu_seconds_total") > 0);
    assert.equal(after.get("noetl_projection_holds"), 1);
  });

  it("counts requests by route and class of status, each from zero", async () => {
    const count = async (route: string, status: string) =>
      (await scrape()).get(`noetl_http_requests_total{route="${route}",status="${status}"}`);
    assert.equal(await count("GET /api/executions/:execution_id", "5xx"), 0);
    assert.equal(await count("GET /api/executions/:execution_id", "4xx"), 0);
    for (const id of ["71", "72"]) await fetch(`${url}/api/executions/${id}`);
    await fetch(`${url}/api/executions/77/../../../etc/${"x".repeat(50)}`);
    await until(async () => (await count("GET /api/executions/:execution_id", "4xx")) === 2);
    assert.ok((await count("other", "4xx")) === 1);
  });

  it("shows parked streams and open streams of followers", async () => {
    const gate = await startGate();
    const { execution_id } = await node.call<{ execution_id: string }>("executions.start", {
      playbook: HELD,
      payload: { gate: gate.url },
    });
    await gate.arrived(1);
    const stream = await openEventStream(`${url}/api/executions/${execution_id}/stream`);
    assert.equal((await scrape()).get("noetl_http_live_streams"), 1);
    await ask(database.url, "update noetl.stream set failures = 3 where stream_id = $1", [
      execution_id,
    ]);
    await until(async () => (await scrape()).get("noetl_streams_parked") === 1);
    gate.open();
    await stream.rest();
    await until(async () => (await scrape()).get("noetl_http_live_streams") === 0);
    await ended(node.broker, execution_id);
    await gate.close();
  });

  it("asks for a key where keys are asked for", async () => {
    const env = { NOETL_AUTH: "required" };
    const closed = await startNode({ url: database.url, roles: ["client", "api"], env });
    try {
      assert.equal((await fetch(`${await addressOf(closed)}/metrics`)).status, 401);
      const { key } = await closed.call<{ key: string }>("keys.create", {
        name: "prometheus",
        role: "viewer",
      });
      const headers = { authorization: `Bearer ${key}` };
      assert.equal((await fetch(`${await addressOf(closed)}/metrics`, { headers })).status, 200);
    } finally {
      await closed.stop();
    }
  });
});

interface Health {
  status: string;
  checks: Record<string, string>;
}

describe("GET /health", function () {
  this.timeout(60_000);

  async function healthOf(node: TestNode): Promise<[number, Health]> {
    const response = await fetch(`${await addressOf(node)}/health`);
    return [response.status, (await response.json()) as Health];
  }

  it("says what it checked, and is unavailable while the database is away", async () => {
    const server = await startServer();
    const env = { NOETL_DB_POOL_WAIT_SECONDS: "1" };
    const node = await startNode({ url: server.url, roles: ["client", "api"], env });
    try {
      const [status, health] = await healthOf(node);
      assert.deepEqual([status, health.status], [200, "ok"]);
      assert.deepEqual(health.checks, { database: "ok", executions: "ok" });
      await server.stop();
      const [away, ill] = await healthOf(node);
      assert.deepEqual([away, ill.status], [503, "unavailable"]);
      assert.equal(ill.checks["database"], "UNAVAILABLE");
      assert.notEqual(ill.checks["executions"], "ok");
      const live = await fetch(`${await addressOf(node)}/health/live`);
      assert.equal(live.status, 200);
      const metrics = await fetch(`${await addressOf(node)}/metrics`);
      assert.ok(
        parseExposition(await metrics.text()).samples.has("noetl_build_info" + labels(node)),
      );
      await server.start();
      await until(async () => (await healthOf(node))[0] === 200);
    } finally {
      await node.stop();
      await server.remove();
    }
  });

  it("is degraded, and still ready, while NATS is away", async function () {
    const binary = natsServerBinary();
    if (binary === undefined) return this.skip();
    const nats = await startNats(binary);
    const database = await testDatabase({ migrated: true });
    const env = { NATS_URL: nats.url, NOETL_LOG_LEVEL: "fatal" };
    const node = await startNode({ url: database.url, roles: ["server", "api"], env });
    try {
      assert.equal((await healthOf(node))[1].checks["nats"], "ok");
      await nats.stop();
      await until(async () => {
        const [status, { status: word, checks }] = await healthOf(node);
        return status === 200 && word === "degraded" && checks["nats"] === "UNAVAILABLE";
      });
    } finally {
      await node.stop();
      await database.drop();
    }
  });
});

function labels(node: TestNode): string {
  return `{version="0.1.0",node_id="${node.broker.nodeID}"}`;
}
