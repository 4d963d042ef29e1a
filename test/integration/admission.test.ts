// A worker takes what it has room for, and the rest waits where it lies: over NATS in the stream,
// and in one process in its doorbell. Real databases, a table that nobody can write to.
import { strict as assert } from "node:assert";
import { connect, type JetStreamManager, type NatsConnection } from "nats";
import { ownLaneOf } from "../../mixins/jetstream-config.ts";
import { loadSettings } from "../../schemas/env.ts";
import { ask, until } from "../support/actors.ts";
import { block, BLOCKED, QUICK, stands, type Block } from "../support/blocked.ts";
import { ended, startNode, type TestNode } from "../support/node.ts";
import { testNodes, type TestNodes } from "../support/nodes.ts";
import { testDatabase, type TestDatabase } from "../support/postgres.ts";
import { credentialsFor } from "../support/public-playbooks.ts";

const CAPS = {
  NOETL_WORKER_MAX_INFLIGHT_COMMANDS: "4",
  NOETL_WORKER_MAX_INFLIGHT_DB_COMMANDS: "2",
};
/** A pull's expiry, on a machine that has other work too. */
const HELD_BACK_MAX_MS = 1_000;

interface Free {
  free: number;
}

describe("a worker whose database class is full", function () {
  this.timeout(60_000);
  let target: TestDatabase;
  let gate: Block;
  beforeEach(async () => {
    target = await testDatabase();
    gate = await block(target.url);
  });
  afterEach(async () => {
    await gate?.open().catch(() => undefined);
    await target?.drop();
  });

  const start = async (node: TestNode, playbook: string, payload = {}) =>
    (await node.call<{ execution_id: string }>("executions.start", { playbook, payload }))
      .execution_id;

  /** The quick run ends while all statements stand; then they go on, each row once. */
  async function goesOn(server: TestNode, worker: TestNode, blocked: string): Promise<void> {
    await stands(gate, 2);
    const begun = performance.now();
    const quick = await ended(server.broker, await start(server, QUICK));
    const tookMs = Math.round(performance.now() - begun);
    process.stdout.write(`      two steps beside it took ${tookMs} ms\n`);
    assert.equal(quick.status, "COMPLETED");
    assert.ok(tookMs < HELD_BACK_MAX_MS, `${tookMs} ms`);
    assert.equal(await gate.waiting(), 2, "no third statement");
    assert.equal((await worker.call<Free>("worker.info")).free, 2);
    await gate.open();
    assert.equal((await ended(server.broker, blocked)).status, "COMPLETED");
    assert.equal(await gate.rows(), 10);
  }

  it("in one process does other work, and no third statement", async () => {
    const node = await startNode({ env: { ...CAPS, ...credentialsFor(target.url) } });
    try {
      await goesOn(node, node, await start(node, BLOCKED));
    } finally {
      await node.stop();
    }
  });

  describe("over NATS", () => {
    let nodes: TestNodes;
    let connection: NatsConnection;
    let manager: JetStreamManager;
    before(async function () {
      const made = await testNodes();
      if (!made) return this.skip();
      nodes = made;
      connection = await connect({ servers: nodes.nats.url });
      manager = await connection.jetstreamManager();
    });
    afterEach(() => nodes?.stopNodes());
    after(async () => {
      await connection?.close();
      await nodes?.close();
    });

    const stream = () => nodes.env["NATS_STREAM"] ?? "";
    const databaseRings = () => manager.consumers.info(stream(), "noetl_worker_pool_db");

    async function pair(env: Record<string, string> = {}): Promise<[TestNode, TestNode]> {
      const all = { ...CAPS, ...credentialsFor(target.url), ...env };
      const server = await nodes.start({ roles: ["server"], env: all });
      const worker = await nodes.start({ roles: ["worker"], env: all });
      await nodes.acquainted();
      return [server, worker];
    }

    it("leaves what waits in the stream, and does other work", async () => {
      const [server, worker] = await pair();
      const blocked = await start(server, BLOCKED);
      await stands(gate, 2);
      // One that names the worker is for all after a while, as it has no room for it.
      await until(async () => (await databaseRings()).num_pending === 8);
      const { consumer } = ownLaneOf(loadSettings({}), "database", worker.broker.nodeID);
      const lanes = [await databaseRings(), await manager.consumers.info(stream(), consumer)];
      const taken = lanes.map(lane => lane.num_ack_pending);
      assert.deepEqual(taken, [0, 0], "taken are only those that run");
      await goesOn(server, worker, blocked);
    });

    it("goes on when stream and consumers vanish meanwhile: Postgres rings again", async () => {
      const [server, worker] = await pair({ NOETL_RERING_SECONDS: "1" });
      const blocked = await start(server, BLOCKED);
      await stands(gate, 2);
      await manager.streams.delete(stream());
      await until(
        // One may be rung twice: as it was meant for this worker, and as its stream is woken.
        async () => ((await databaseRings().catch(() => undefined))?.num_pending ?? 0) >= 8,
        15_000,
      );
      await goesOn(server, worker, blocked);
    });

    it("a pipeline with a database task in it is of the database class", async () => {
      const [server] = await pair();
      const id = await start(
        server,
        BLOCKED.replace(
          "tool: {kind: postgres",
          "tool:\n      - {name: first, kind: noop}\n      - {name: put, kind: postgres",
        ),
      );
      await stands(gate, 2);
      const kinds = await ask<{ kind: string }>(
        nodes.database.url,
        `select distinct meta->>'kind' as kind from noetl.event
         where execution_id = $1 and event_type = 'command.issued'`,
        [id],
      );
      assert.deepEqual(kinds, [{ kind: "postgres" }]);
      await gate.open();
      assert.equal((await ended(server.broker, id)).status, "COMPLETED");
    });
  });
});
