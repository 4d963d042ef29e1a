// A worker behind a gate: a burst over a quota, and connections that break while it is closed.
// Nothing starts beyond the threshold, nothing is lost, and what waits is in the stream.
import { strict as assert } from "node:assert";
import { connect, type JetStreamManager, type NatsConnection } from "nats";
import { until } from "../support/actors.ts";
import { QUOTA, startKubernetes, type TestKubernetes } from "../support/kubernetes-api.ts";
import { startMockApi, type MockApi } from "../support/mock-api.ts";
import { ended, type TestNode } from "../support/node.ts";
import { testNodes, type TestNodes } from "../support/nodes.ts";
import { startProxy, type TcpProxy } from "../support/tcp-proxy.ts";

const ITEMS = "GET /posts/{id}";
const GET = '{kind: http, method: GET, url: "{{ api_url }}/posts/{{ 1 + i % 100 }}"}';
const MAKE = "{kind: action, action: jobs.make}";
const burst = (n: number, tool: string) => `apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: burst, path: test/burst}
workload: {api_url: ""}
workflow:
  - step: each
    loop:
      in: "{{ range(${n}) | list }}"
      iterator: i
      spec: {mode: parallel, max_in_flight: ${n}}
    tool: ${tool}
`;
/** Of a quota of 75 at 0.95. */
const THRESHOLD = 71;

describe("a worker behind a gate", function () {
  this.timeout(120_000);
  let nodes: TestNodes;
  let api: MockApi;
  let quota: TestKubernetes | undefined;
  let connection: NatsConnection;
  let manager: JetStreamManager;
  let proxy: TcpProxy | undefined;

  beforeEach(async function () {
    const made = await testNodes();
    if (!made) return this.skip();
    nodes = made;
    api = await startMockApi();
    connection = await connect({ servers: nodes.nats.url });
    manager = await connection.jetstreamManager();
  });
  afterEach(async () => {
    await nodes?.close();
    await connection?.close();
    await api?.close();
    await quota?.close();
    await proxy?.close();
    quota = proxy = undefined;
  });

  const rings = () => manager.consumers.info(nodes.env["NATS_STREAM"] ?? "", "noetl_worker_pool");
  const start = async (node: TestNode, n: number, tool: string) => {
    const params = { playbook: burst(n, tool), payload: { api_url: api.url } };
    return (await node.call<{ execution_id: string }>("executions.start", params)).execution_id;
  };
  async function gauge(node: TestNode, name: string): Promise<number> {
    const { url } = await node.call<{ url: string }>("api.address");
    const metrics = await (await fetch(`${url}/metrics`)).text();
    const lines = metrics.split("\n").filter(line => line.startsWith(name));
    return lines.reduce((sum, line) => sum + Number(line.split(" ").at(-1)), 0);
  }

  it("never starts more than 71 of a burst of 80 over a quota of 75 at 0.95", async function () {
    quota = await startKubernetes();
    if (!quota) return this.skip();
    const limits = quota.quota;
    const env = {
      NOETL_WORKER_MAX_INFLIGHT_COMMANDS: "100",
      NOETL_WORKER_NATS_MAX_ACK_PENDING: "200",
      NOETL_PREFETCH_STALE_MS: "300",
      BACKPRESSURE_QUOTA_NAME: QUOTA,
      BACKPRESSURE_CAPACITY_RATIO: "0.95",
      BACKPRESSURE_POLL_INTERVAL: "0.2",
      KUBERNETES_SERVICE_HOST: "127.0.0.1",
      KUBERNETES_SERVICE_PORT: String(quota.port),
      NOETL_PREFETCH_SERVICE_ACCOUNT_DIR: quota.serviceAccount,
    };
    // Each call is a job of the quota while it runs; none ends until all that may have begun.
    const release = Promise.withResolvers<void>();
    let [most, made] = [0, 0];
    const make = async () => {
      made += 1;
      limits.used += 1;
      most = Math.max(most, limits.used);
      await release.promise;
      limits.used -= 1;
    };
    const server = await nodes.start({ roles: ["server"], env });
    const worker = await nodes.start({ roles: ["worker", "api"], env });
    worker.broker.createService({ name: "jobs", actions: { make } });
    await nodes.acquainted();
    const blocked = 'noetl_prefetch_blocked{consumer="general"';
    assert.equal(await gauge(worker, blocked), 0);
    const id = await start(server, 80, MAKE);
    await until(() => limits.used === THRESHOLD, 30_000);
    await until(async () => (await gauge(worker, blocked)) === 1);
    await until(async () => (await rings()).num_ack_pending === 0);
    // The others wait in the stream; what named this worker and it did not take at once is there
    // for all, too, and may have been claimed since.
    await until(async () => (await rings()).num_pending >= 80 - THRESHOLD);
    const { num_ack_pending, num_waiting } = await rings();
    assert.deepEqual([num_ack_pending, num_waiting], [0, 0], "and nobody pulls");
    release.resolve();
    const { status, loop_progress } = (await ended(server.broker, id)) as never as {
      status: string;
      loop_progress: Record<string, object>;
    };
    assert.equal(status, "COMPLETED", JSON.stringify(loop_progress));
    assert.deepEqual([most, made], [THRESHOLD, 80]);
    await until(async () => (await gauge(worker, blocked)) === 0);
    assert.ok((await gauge(worker, "noetl_prefetch_blocked_seconds_total")) > 0);
  });

  it("runs 970 commands once each through eight lost connections and a full quota", async () => {
    proxy = await startProxy(Number(new URL(nodes.nats.url).port));
    const through = { NATS_URL: proxy.through(nodes.nats.url) };
    const limit = 40;
    const env = {
      NOETL_WORKER_MAX_INFLIGHT_COMMANDS: "100",
      NOETL_WORKER_NATS_MAX_ACK_PENDING: "200",
      NOETL_HTTP_MAX_CONNECTIONS: "200",
      NOETL_PREFETCH_GATE: "quota",
      NOETL_PREFETCH_RESERVED_LIMIT: String(limit),
      NOETL_PREFETCH_CAPACITY_RATIO: "1",
      NOETL_RERING_SECONDS: "2",
    };
    let running = 0;
    let most = 0;
    api.waits[ITEMS] = async () => {
      running += 1;
      most = Math.max(most, running);
      await new Promise(resolve => setTimeout(resolve, 60));
      running -= 1;
    };
    const server = await nodes.start({ roles: ["server"], env });
    const worker = await nodes.start({ roles: ["worker", "api"], env: { ...env, ...through } });
    await nodes.acquainted();
    const id = await start(server, 970, GET);
    for (let cut = 1; cut <= 8; cut += 1) {
      await until(() => (api.calls[ITEMS] ?? 0) >= cut * 100, 40_000);
      proxy.reset();
    }
    const { status } = await ended(server.broker, id, 90_000);
    assert.equal(status, "COMPLETED");
    const calls = api.calls[ITEMS] ?? 0;
    process.stdout.write(`      ${calls} requests for 970 items, at most ${most} at once\n`);
    assert.equal(calls, 970);
    assert.ok(most <= limit, `${most} at once`);
    assert.equal(await gauge(worker, "noetl_prefetch_overshoot_total"), 0);
    await until(async () => (await rings()).num_pending === 0, 20_000);
  });
});
