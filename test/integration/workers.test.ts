// Workers as people see them, from their rows.
import { strict as assert } from "node:assert";
import { hostname } from "node:os";
import type { WorkerView } from "../../services/workers/workers.service.ts";
import { ask, until } from "../support/actors.ts";
import { startGate } from "../support/gate.ts";
import { ended, startNode, type TestNode } from "../support/node.ts";
import { HEAD } from "../support/playbook-samples.ts";
import { noetl } from "../support/process.ts";
import { testDatabase, type TestDatabase } from "../support/postgres.ts";

const HELD = `${HEAD}workload: {gate: ""}
workflow:
  - {step: one, tool: {kind: http, url: "{{ workload.gate }}"}}
`;

describe("workers.list", function () {
  this.timeout(60_000);
  let database: TestDatabase;
  let node: TestNode;
  before(async () => {
    database = await testDatabase({ migrated: true });
    const env = { NOETL_WORKER_BEAT_SECONDS: "0.1", NOETL_WORKER_MAX_INFLIGHT_COMMANDS: "6" };
    node = await startNode({ url: database.url, env });
  });
  after(async () => {
    await node.stop();
    await database.drop();
  });

  const list = async () => (await node.call<{ workers: WorkerView[] }>("workers.list")).workers;
  const change = (set: string) => ask(database.url, `update noetl.runtime set ${set}`);

  it("shows a worker, its slots and what it runs; of its machine only the host", async () => {
    const [worker, ...others] = await list();
    assert.deepEqual(others, []);
    assert.equal(worker?.worker_id, node.broker.nodeID);
    assert.equal(worker?.status, "ready");
    assert.equal(worker?.host, hostname());
    assert.ok(!("machine" in (worker ?? {})) && !("pid" in (worker ?? {})));
    assert.ok(Math.abs(Date.parse(worker?.seen_at ?? "") - Date.now()) < 30_000);
    const gate = await startGate();
    const started = await node.call<{ execution_id: string }>("executions.start", {
      playbook: HELD,
      payload: { gate: gate.url },
    });
    await gate.arrived(1);
    await until(async () => (await list())[0]?.in_flight === 1);
    const { capabilities, ...room } = (await list())[0]?.capacity ?? { capabilities: [] };
    assert.deepEqual(room, { slots: 6, free: 5, free_db: 4, labels: [] });
    assert.ok(Array.isArray(capabilities));
    gate.open();
    await ended(node.broker, started.execution_id);
    await gate.close();
  });

  it("are shown by noetl workers, as a table and as JSON", async () => {
    const env = { DATABASE_URL: database.url, NOETL_DATA_DIR: node.dataDir };
    const shown = await noetl(["workers"], env);
    assert.equal(shown.code, 0, shown.stderr);
    const [head = "", row = ""] = shown.stdout.split("\n");
    assert.match(head, /^WORKER +STATUS +BUSY +LAST SEEN +HOST +OFFERS$/);
    assert.match(row, new RegExp(`^${node.broker.nodeID} +ready +0 of 6 `));
    const json = await noetl(["workers", "--json"], env);
    assert.equal((JSON.parse(json.stdout) as { workers: WorkerView[] }).workers.length, 1);
  });

  it("tells the lost from the living, the draining and the gone", async () => {
    // A worker that says nothing more: its own beats must not heal the row.
    const silent = await startNode({ url: database.url, roles: ["client"] });
    await node.stop();
    try {
      const [gone] = (await silent.call<{ workers: WorkerView[] }>("workers.list")).workers;
      assert.equal(gone?.status, "gone");
      const shown = async () =>
        (await silent.call<{ workers: WorkerView[] }>("workers.list")).workers[0]?.status;
      await change("status = 'ready', seen_at = now() - interval '31 seconds'");
      assert.equal(await shown(), "lost");
      await change("seen_at = now() - interval '29 seconds'");
      assert.equal(await shown(), "ready");
      await change("status = 'draining', capacity = '{}'");
      const [worker] = (await silent.call<{ workers: WorkerView[] }>("workers.list")).workers;
      assert.deepEqual(
        [worker?.status, worker?.capacity, worker?.in_flight],
        ["draining", null, null],
      );
    } finally {
      await silent.stop();
    }
  });
});
