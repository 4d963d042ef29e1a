// Starting a run (design §6): one idempotency key is one execution, however many ask at once.
import { strict as assert } from "node:assert";
import { ask } from "../support/actors.ts";
import { startNode, type TestNode } from "../support/node.ts";
import { HEAD } from "../support/playbook-samples.ts";
import { testDatabase, type TestDatabase } from "../support/postgres.ts";

const PLAYBOOK = `${HEAD}workflow:\n  - {step: only, tool: {kind: noop, result: {ok: true}}}\n`;

interface Started {
  execution_id: string;
  created: boolean;
}

describe("actors: start", function () {
  this.timeout(60_000);
  let database: TestDatabase;
  let nodes: [TestNode, TestNode];
  before(async () => {
    database = await testDatabase({ migrated: true });
    nodes = [
      await startNode({ url: database.url, roles: ["client"] }),
      await startNode({ url: database.url, roles: ["client"] }),
    ];
    await nodes[0].call("catalog.register", { content: PLAYBOOK });
  });
  after(async () => {
    await Promise.all(nodes.map(node => node.stop()));
    await database.drop();
  });

  const start = (index: number, key: string, payload: object = { a: 1 }) =>
    nodes[index % 2 === 0 ? 0 : 1].call<Started>("executions.start", {
      path: "demo/one",
      payload,
      idempotency_key: key,
    });

  async function race(key: string): Promise<void> {
    const started = await Promise.all(Array.from({ length: 50 }, (_, index) => start(index, key)));
    assert.equal(new Set(started.map(one => one.execution_id)).size, 1, "one execution");
    assert.equal(started.filter(one => one.created).length, 1, "made once");
    const made = await ask<{ event: number; stream: number; row: number }>(
      database.url,
      `select (select count(*)::int from noetl.event
               where event_type = 'playbook.initialized' and meta->>'start_key' = $1) as event,
              (select count(*)::int from noetl.stream where execution_id = $2) as stream,
              (select count(*)::int from noetl.execution where execution_id = $2) as row`,
      [key, started[0]?.execution_id],
    );
    assert.deepEqual(made, [{ event: 1, stream: 1, row: 1 }]);
  }

  it("fifty starts at once with one key, on two nodes, are one execution", () => race("k1"));

  it("the same key later answers the same execution; another body is a 409", async () => {
    const first = await start(0, "k2");
    assert.equal(first.created, true);
    const again = await start(1, "k2");
    assert.deepEqual([again.execution_id, again.created], [first.execution_id, false]);
    await assert.rejects(start(0, "k2", { a: 2 }), { type: "REJECTED", code: 409 });
    assert.notEqual((await start(0, "k3")).execution_id, first.execution_id);
  });

  it("sabotage: without the key's uniqueness fifty starts are many executions", async () => {
    await ask(database.url, "alter table noetl.start_request drop constraint start_request_pkey");
    await assert.rejects(race("k4"), { name: "AssertionError" });
  });
});
