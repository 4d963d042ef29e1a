// Cancelled work in another process ends at once: its worker is told over NATS.
import { strict as assert } from "node:assert";
import { ask, until } from "../support/actors.ts";
import { startGate, type Gate } from "../support/gate.ts";
import { ended, type TestNode } from "../support/node.ts";
import { deafen, testNodes, type TestNodes } from "../support/nodes.ts";
import { HEAD } from "../support/playbook-samples.ts";
import { testDatabase, type TestDatabase } from "../support/postgres.ts";
import { credentialsFor } from "../support/public-playbooks.ts";

const ONE = `${HEAD}workload: {url: ""}
workflow:
  - step: work
    tool: {kind: http, method: GET, url: "{{ workload.url }}", timeout: 60}
    next: {arcs: [{step: after}]}
  - {step: after, tool: {kind: noop}}
`;
const MANY = `${HEAD}workload: {url: ""}
workflow:
  - step: work
    loop: {in: 6, iterator: i, spec: {mode: parallel, max_in_flight: 6}}
    tool: {kind: http, method: GET, url: "{{ workload.url }}", timeout: 60}
`;
const SQL = `${HEAD}workflow:
  - step: work
    tool: {kind: postgres, auth: pg_k8s, query: select pg_sleep(60)}
`;

/** A cancel has this long to reach the work in another process. */
const ABORT_MS = 1_000;

interface Info {
  incarnation: string;
  slots: number;
  free: number;
  refused: number;
}

describe("cancelling what another process runs", function () {
  this.timeout(60_000);
  let nodes: TestNodes;
  let target: TestDatabase;
  let server: TestNode;
  let worker: TestNode;
  let gate: Gate;

  before(async function () {
    const made = await testNodes();
    if (!made) return this.skip();
    nodes = made;
    target = await testDatabase();
    server = await nodes.start({ roles: ["server"] });
    // With its next beat it would hear of a cancel too: here only messages tell.
    const silent = { NOETL_WORKER_BEAT_SECONDS: "60", NOETL_COMMAND_LEASE_SECONDS: "120" };
    const env = { ...credentialsFor(target.url), ...silent };
    worker = await nodes.start({ roles: ["worker"], env });
    await nodes.acquainted();
  });
  beforeEach(async () => {
    gate = await startGate();
  });
  afterEach(() => gate.close());
  after(async () => {
    await nodes?.close();
    await target?.drop();
  });

  const info = () => worker.call<Info>("worker.info");
  const busy = async () => {
    const { slots, free } = await info();
    return slots - free;
  };

  async function start(playbook: string): Promise<string> {
    const payload = { url: gate.url };
    const request = { playbook, payload };
    const { execution_id } = await server.call<{ execution_id: string }>(
      "executions.start",
      request,
    );
    return execution_id;
  }

  /** Cancels and gives the milliseconds until the worker's slots were free. */
  async function cancel(execution_id: string): Promise<number> {
    const begun = performance.now();
    await server.call("executions.cancel", { execution_id, reason: "enough" });
    await until(async () => (await busy()) === 0, ABORT_MS);
    const tookMs = performance.now() - begun;
    process.stdout.write(`      aborted in ${Math.round(tookMs)} ms\n`);
    const { status } = await ended(server.broker, execution_id);
    assert.equal(status, "CANCELLED");
    return tookMs;
  }

  async function http(playbook: string, requests: number): Promise<void> {
    const id = await start(playbook);
    await gate.arrived(requests);
    assert.equal(await busy(), requests);
    const { refused } = await info();
    assert.ok((await cancel(id)) < ABORT_MS);
    assert.equal((await info()).refused, refused, "nothing of it was reported");
  }

  it("a long HTTP call is aborted, and its slot is free again", () => http(ONE, 1));

  it("so are all the iterations of a loop that run", () => http(MANY, 6));

  it("so is the work of a step that has taken too long", async () => {
    const id = await start(ONE.replace("- step: work", "- step: work\n    spec: {timeout: 1s}"));
    await gate.arrived(1);
    const { status } = await ended(server.broker, id);
    assert.equal(status, "FAILED");
    await until(async () => (await busy()) === 0, ABORT_MS);
  });

  it("a long statement is aborted, and its backend is gone", async () => {
    const sleeping = () =>
      ask<{ pid: number }>(
        target.url,
        `select pid from pg_stat_activity
         where datname = current_database() and query = 'select pg_sleep(60)'
           and state = 'active'`,
      );
    const id = await start(SQL);
    await until(async () => (await sleeping()).length === 1);
    assert.ok((await cancel(id)) < ABORT_MS);
    await until(async () => (await sleeping()).length === 0, ABORT_MS);
  });

  it("a command that is rung again while it runs is held as before, and aborted", async () => {
    const id = await start(ONE);
    await gate.arrived(1);
    const command_id = `${id}:work:1:1`;
    const { incarnation } = await info();
    await nodes.ring({ execution_id: id, stream_id: id, actor: "executions", command_id });
    const command_ids = [command_id];
    const held = await worker.call<string[]>("worker.holds", { incarnation, command_ids });
    assert.deepEqual(held, command_ids);
    assert.equal(await busy(), 1);
    assert.ok((await cancel(id)) < ABORT_MS);
  });

  it("a worker names who held it in the log, and only then", async () => {
    const id = await start(
      MANY.replace("in: 6", "in: 20").replace("max_in_flight: 6", "max_in_flight: 20"),
    );
    const { slots } = await info();
    await gate.arrived(slots);
    await cancel(id);
    const rows = await ask<{ worker: string | null; held: boolean }>(
      nodes.database.url,
      `select c.meta->>'worker_id' as worker, exists (
         select 1 from noetl.event e where e.execution_id = c.execution_id
         and e.event_type = 'command.claimed' and e.meta->>'command_id' = c.meta->>'command_id'
       ) as held
       from noetl.event c where c.execution_id = $1 and c.event_type = 'command.cancelled'`,
      [id],
    );
    assert.equal(rows.length, 20);
    assert.equal(rows.filter(row => row.held).length, slots);
    for (const row of rows) assert.equal(row.worker, row.held ? worker.broker.nodeID : null);
  });

  it("sabotage: with the message lost the work goes on, and its outcome is refused", async () => {
    const mend = deafen(server, "worker.abort");
    try {
      const { refused } = await info();
      const id = await start(ONE);
      await gate.arrived(1);
      await assert.rejects(cancel(id), /nothing came/);
      assert.equal((await ended(server.broker, id)).status, "CANCELLED");
      gate.open();
      await until(async () => (await busy()) === 0);
      assert.equal((await info()).refused, refused + 1);
      const [late] = await ask<{ n: number }>(
        nodes.database.url,
        `select count(*)::integer as n from noetl.event where execution_id = $1
         and event_type in ('command.completed', 'command.failed')`,
        [id],
      );
      assert.equal(late?.n, 0);
    } finally {
      mend();
    }
  });
});
