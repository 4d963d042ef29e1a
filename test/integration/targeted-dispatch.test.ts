// Who gets which command: workers of different sizes, one that is gone, and what only some can run.
import { strict as assert } from "node:assert";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { CAPACITY_EVENT } from "../../schemas/worker-capacity.ts";
import { ask, until } from "../support/actors.ts";
import { ended, type TestNode } from "../support/node.ts";
import { testNodes, type TestNodes } from "../support/nodes.ts";
import { HEAD } from "../support/playbook-samples.ts";

const ITEMS = 3_000;
const ITEM_MS = 20;
/** Workers speak every 15 s by themselves. */
const SOON_MS = 4_000;

/** One command an item: each takes a slot for a while, and no CPU. */
const LOOP = `${HEAD}workload: {api: "", n: 1, window: 28}
workflow:
  - step: many
    loop:
      in: "{{ workload.n }}"
      iterator: i
      spec: {mode: parallel, max_in_flight: "{{ workload.window }}", policy: {exec: distributed}}
    tool: {kind: http, url: "{{ workload.api }}"}
`;

const NEEDS_GPU = `${HEAD}workflow:
  - step: plain
    tool: {kind: noop}
    next: {arcs: [{step: train}]}
  - step: train
    spec: {requires: {capabilities: [gpu], labels: {zone: eu}}}
    loop: {in: 30, iterator: i, spec: {mode: parallel, max_in_flight: 4}}
    tool: {kind: noop}
    next: {arcs: [{step: after}]}
  - {step: after, tool: {kind: noop}}
`;

const THREE = `${HEAD}workflow:
  - {step: first, tool: {kind: noop}, next: {arcs: [{step: second}]}}
  - {step: second, tool: {kind: noop}, next: {arcs: [{step: third}]}}
  - {step: third, tool: {kind: noop}}
`;

/** What became of each command, with the worker that it was issued to. */
const LIVES = `
  select split_part(event_type, '.', 2) || case
           when event_type = 'command.issued' and meta ? 'claim_id' then ' ' || (meta->>'worker_id')
           else '' end as life
  from noetl.event where execution_id = $1 and event_type like 'command.%' order by version`;

const BY_WORKER = `
  select meta->>'worker_id' as worker, count(*)::integer as n from noetl.event
  where execution_id = $1 and meta ? 'claim_id' and ($2::text is null or node_name = $2)
  group by 1`;

const ROWS = "select count(*)::integer as rows from noetl.event where execution_id = $1";

describe("targeted dispatch", function () {
  this.timeout(120_000);
  let nodes: TestNodes | undefined;
  let api: string;
  const slow = createServer((_request, response) => {
    setTimeout(() => response.end("{}"), ITEM_MS);
  });
  before(async function () {
    await new Promise<void>(resolve => slow.listen(0, "127.0.0.1", resolve));
    api = `http://127.0.0.1:${(slow.address() as AddressInfo).port}`;
  });
  beforeEach(async function () {
    nodes = await testNodes();
    if (!nodes) this.skip();
  });
  afterEach(() => nodes?.close());
  after(() => slow.close());

  const begin = (role: "server" | "worker", env: Record<string, string> = {}) =>
    nodes!.start({ roles: [role], env });

  async function claims(view: { execution_id: string }, step?: string) {
    const params = [view.execution_id, step ?? null];
    const rows = await ask<{ worker: string; n: number }>(nodes!.database.url, BY_WORKER, params);
    return new Map(rows.map(({ worker, n }) => [worker, n]));
  }

  /** The server has heard of so many workers. */
  async function heard(server: TestNode, count: number, timeoutMs = 20_000): Promise<void> {
    await nodes!.acquainted();
    await until(async () => (await metric(server, "noetl_workers_heard")) === count, timeoutMs);
  }

  async function metric(node: TestNode, name: string): Promise<number> {
    const { url } = await node.call<{ url: string }>("api.address");
    const text = await (await fetch(`${url}/metrics`)).text();
    return Number(new RegExp(`^${name.replace(/[{}"]/g, "\\$&")} (\\d+)`, "m").exec(text)?.[1]);
  }

  /** Of a run of three steps, when it has ended. */
  async function livesOf(executionId: string): Promise<string[]> {
    const lives = await until(async () => {
      const rows = await ask<{ life: string }>(nodes!.database.url, LIVES, [executionId]);
      return rows.filter(({ life }) => life === "completed").length === 3 && rows;
    }, 20_000);
    return lives.map(({ life }) => life);
  }

  it(`shares ${ITEMS} commands out in proportion to the workers' slots`, async () => {
    const server = await nodes!.start({ roles: ["server", "api"] });
    const sizes = [2, 4, 8];
    const workers = await Promise.all(
      sizes.map(size =>
        begin("worker", {
          NOETL_WORKER_MAX_INFLIGHT_COMMANDS: String(size),
          NOETL_WORKER_MAX_INFLIGHT_DB_COMMANDS: "1",
        }),
      ),
    );
    await heard(server, 3);
    const view = await server.run(LOOP, { api, n: ITEMS });
    assert.equal(view.status, "COMPLETED");
    const got = await claims(view);
    const total = [...got.values()].reduce((sum, n) => sum + n, 0);
    assert.equal(total, ITEMS);
    workers.forEach(({ broker }, at) => {
      const due = (ITEMS * sizes[at]!) / 14;
      const n = got.get(broker.nodeID) ?? 0;
      assert.ok(
        Math.abs(n - due) <= 0.15 * due,
        `${n} of ${due.toFixed(0)}: ${JSON.stringify([...got])}`,
      );
    });
    assert.ok((await metric(server, 'noetl_dispatch_total{to="one"}')) > 0, "nothing was targeted");
    const [log] = await ask<{ rows: number }>(nodes!.database.url, ROWS, [view.execution_id]);
    const rows = (log?.rows ?? NaN) / ITEMS;
    assert.ok(rows <= 2.1, `${rows} rows an item: it is handed over with the one before it`);
  });

  /** A worker that is dead before it receives, and seems to have room for everything. */
  async function runBesideDead(env: Record<string, string>, playbook = LOOP) {
    const server = await nodes!.start({ roles: ["server", "api"], env });
    await begin("worker", {
      NOETL_WORKER_MAX_INFLIGHT_COMMANDS: "4",
      NOETL_WORKER_MAX_INFLIGHT_DB_COMMANDS: "1",
    });
    await heard(server, 1);
    const dead = { worker_id: "dead", incarnation: "dead-1", status: "ready", slots: 10_000 };
    const room = { available_slots: 10_000, available_db_slots: 10_000, active_tasks: 0 };
    const offers = { capabilities: [], labels: [], takes: true };
    await server.broker.broadcast(CAPACITY_EVENT, { ...dead, ...room, ...offers });
    await heard(server, 2);
    const { execution_id } = await server.call<{ execution_id: string }>("executions.start", {
      playbook,
      payload: { api, n: 40, window: 40 },
    });
    return { server, execution_id };
  }

  it("begins at once where a server has come after its workers", async () => {
    await Promise.all([begin("worker"), begin("worker")]);
    const server = await nodes!.start({ roles: ["server", "api"] });
    await heard(server, 2, SOON_MS);
  });

  it("loses nothing of what a worker was meant to take that is dead", async () => {
    const { server, execution_id } = await runBesideDead({});
    const view = await ended(server.broker, execution_id);
    assert.equal(view.status, "COMPLETED");
    assert.deepEqual(await claims(view).then(got => [...got.values()]), [40]);
    const reoffered = await metric(server, 'noetl_dispatch_total{to="all_after_one"}');
    assert.ok(reoffered >= 30, `${reoffered} were offered again`);
  });

  it("gives no step to a worker that nobody can reach, however much room it has", async () => {
    const { execution_id } = await runBesideDead({}, THREE);
    const lives = await livesOf(execution_id);
    assert.ok(!lives.includes("issued dead"), lives.join(", "));
  });

  it("asks nobody when a worker has room to spare: a step is issued as its own", async () => {
    const server = await nodes!.start({ roles: ["server", "api"] });
    const { broker } = await begin("worker");
    await heard(server, 1);
    const { execution_id } = await server.call<{ execution_id: string }>("executions.start", {
      playbook: THREE,
    });
    const one = [`issued ${broker.nodeID}`, "completed"];
    assert.deepEqual(await livesOf(execution_id), [...one, ...one, ...one]);
    assert.equal(await metric(server, 'noetl_dispatch_total{to="one_unasked"}'), 1);
  });

  it("would leave them lying if they were not offered to all again", async () => {
    const { server, execution_id } = await runBesideDead({
      NOETL_TARGETED_DISPATCH_PATIENCE_SECONDS: "60",
      NOETL_RERING_SECONDS: "60",
    });
    const params = { execution_id, timeout_ms: 1_500 };
    const view = await server.call<{ status: string }>("executions.wait", params);
    assert.equal(view.status, "RUNNING");
  });

  it("brings what needs something to who offers it, and names it while nobody does", async () => {
    const gpu = { NOETL_WORKER_CAPABILITIES: "gpu", NOETL_WORKER_LABELS: "zone=eu" };
    const server = await nodes!.start({ roles: ["server", "api"] });
    const plain = await begin("worker", { NOETL_WORKER_LABELS: "zone=us" });
    await heard(server, 1);
    const { execution_id } = await server.call<{ execution_id: string }>("executions.start", {
      playbook: NEEDS_GPU,
    });
    interface Listed {
      workers: { worker_id: string; capacity: { labels: string[] } }[];
      unserved: { execution_id: string; step: string; requires: string[] }[];
    }
    const [waits] = await until(async () => {
      const { unserved } = await server.call<Listed>("workers.list");
      return unserved.length > 0 && unserved;
    }, 20_000);
    const { seen_at: _at, ...said } = waits as Listed["unserved"][number] & { seen_at: string };
    assert.deepEqual(said, { execution_id, step: "train", requires: ["gpu", "zone=eu"] });
    const able = await begin("worker", gpu);
    const view = await ended(server.broker, execution_id);
    assert.equal(view.status, "COMPLETED");
    assert.deepEqual([...(await claims(view, "train")).keys()], [able.broker.nodeID]);
    assert.ok((await claims(view, "plain")).has(plain.broker.nodeID));
    const { workers } = await server.call<Listed>("workers.list");
    const labels = workers.map(({ capacity }) => capacity.labels).sort();
    assert.deepEqual(labels, [["zone=eu"], ["zone=us"]]);
  });
});
