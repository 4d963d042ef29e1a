// Loops over a cursor against a real Postgres: rows of a user's table, claimed, run and told.
import { strict as assert } from "node:assert";
import { assertAllDone, cursorPlaybook, doneTwice, frameRows } from "../support/cursor-scene.ts";
import { assertSound } from "../support/log-checker.ts";
import { startNode, type TestNode } from "../support/node.ts";
import { testDatabase, type TestDatabase } from "../support/postgres.ts";
import { credentialsFor } from "../support/public-playbooks.ts";

describe("a loop over a cursor", function () {
  this.timeout(60_000);
  let store: TestDatabase;
  let target: TestDatabase;
  let node: TestNode;

  before(async () => {
    store = await testDatabase({ migrated: true });
    target = await testDatabase();
    node = await startNode({ url: store.url, env: credentialsFor(target.url) });
  });
  after(async () => {
    await node.stop();
    await store.drop();
    await target.drop();
  });

  it("does each of 2,000 rows once by four slots, in at most three facts a frame", async () => {
    const playbook = cursorPlaybook({ rows: 2_000, slots: 4, frame: "max_rows: 50" });
    const view = await node.run(playbook, {});
    assert.equal(view.status, "COMPLETED", JSON.stringify(view.error));
    await assertAllDone(target.url, 2_000);
    assert.deepEqual(await doneTwice(target.url), []);
    assert.deepEqual(view.result, {
      ...{ status: "ok", processed: 2_000, failed: 0, breaks: 0, frame_count: 40 },
      stats: { total: 2_000, success: 2_000, failed: 0, not_run: 0 },
    });
    await assertSound(store.url, view.execution_id);
    const { frames, facts, flushes } = await frameRows(store.url, view.execution_id);
    assert.equal(frames, 40 + 4, "forty with rows, and one for each slot that found none");
    assert.ok(facts <= 3 * frames + flushes, `${facts} facts of ${frames} frames`);
  });
});
