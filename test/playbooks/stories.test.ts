// Short playbooks and the stories they must tell, against the mock API: each result exactly.
import { strict as assert } from "node:assert";
import { assertSound } from "../support/log-checker.ts";
import { startMockApi, type MockApi } from "../support/mock-api.ts";
import { startNode, type TestNode } from "../support/node.ts";
import { testDatabase, type TestDatabase } from "../support/postgres.ts";
import { credentialsFor } from "../support/public-playbooks.ts";
import type { LogEvent } from "../support/log-checker.ts";
import * as family from "./family-stories.ts";
import * as stories from "./stories.ts";

interface Progress {
  total: number;
  done: number;
  failed: number;
  retries: number;
}

describe("playbooks", function () {
  this.timeout(30_000);
  let api: MockApi;
  let store: TestDatabase;
  let target: TestDatabase;
  let node: TestNode;

  before(async () => {
    store = await testDatabase({ migrated: true });
    target = await testDatabase();
    node = await startNode({ url: store.url, env: credentialsFor(target.url) });
  });
  beforeEach(async () => {
    api = await startMockApi();
  });
  afterEach(() => api.close());
  after(async () => {
    await node.stop();
    await store.drop();
    await target.drop();
  });

  /** Runs it to its end, and checks what every log must show. */
  async function tell(playbook: string, payload: object = {}) {
    const view = await node.run(playbook, { api_url: api.url, ...payload });
    const { events } = await assertSound(store.url, view.execution_id);
    const progress = view.loop_progress as unknown as Record<string, Progress>;
    return { ...view, progress, events, calls: api.calls };
  }

  /** How often each step was entered, in the order of the first entries. */
  function entries(events: LogEvent[]): Record<string, number> {
    const counts: Record<string, number> = {};
    for (const { event_type, meta } of events) {
      if (event_type !== "step.enter" && meta["enter"] !== true) continue;
      const step = String(meta["step"]);
      counts[step] = (counts[step] ?? 0) + 1;
    }
    return counts;
  }

  it("a parallel loop repeats what its policy says, and keeps the order of its input", async () => {
    const { status, result, progress, calls } = await tell(stories.FLAKY);
    assert.equal(status, "COMPLETED");
    assert.deepEqual(result, {
      total: 4,
      success: 4,
      failed: 0,
      first_ids: [1, 11, 21, 31],
      lengths: [10, 10, 10, 5],
    });
    // Pages 2 and 4 answer 500 once each.
    assert.equal(calls["GET /api/v1/flaky"], 6);
    const { total, done, failed, retries } = progress["fetch"] ?? {};
    assert.deepEqual(
      { total, done, failed, retries },
      { total: 4, done: 4, failed: 0, retries: 2 },
    );
  });

  it("a policy that is spent fails the iteration, the loop and the run, and counts", async () => {
    const { status, error, progress, calls } = await tell(stories.BROKEN);
    assert.equal(status, "FAILED");
    assert.deepEqual([error?.["step"], error?.["kind"]], ["fetch", "server_error"]);
    assert.match(String(error?.["message"]), /503/);
    const { total, done, failed } = progress["fetch"] ?? {};
    assert.equal(total, 3);
    assert.ok((done ?? 0) <= 2 && failed === 1, JSON.stringify(progress));
    assert.equal(calls["GET /api/v1/errors"], 3);
  });

  it("pages are fetched by going back to the same step, with ctx carried along", async () => {
    const { status, result, events, calls } = await tell(stories.PAGES);
    assert.equal(status, "COMPLETED");
    assert.deepEqual(result, { items: 35, pages: 4, last: "Assessment 35" });
    assert.deepEqual(entries(events), { start: 1, fetch: 4, end: 1 });
    assert.equal(calls["GET /api/v1/assessments"], 4);
  });

  it("a workbook task is used by name, with other inputs each time", async () => {
    const { status, result } = await tell(stories.WORKBOOK);
    assert.equal(status, "COMPLETED");
    assert.deepEqual(result, { a: ["1", "plain"], b: ["2", "other"] });
  });

  it("an error arc is taken in place of the usual one, and the run is FAILED still", async () => {
    const { status, error, events } = await tell(stories.ERROR_ARC, { code: 500 });
    assert.equal(status, "FAILED");
    assert.equal(error?.["step"], "start");
    assert.deepEqual(entries(events), { start: 1, repair: 1 });
  });

  it("and without a failure the error arc is not taken", async () => {
    const { status, events } = await tell(stories.ERROR_ARC, { code: 200 });
    assert.equal(status, "COMPLETED");
    assert.deepEqual(entries(events), { start: 1, usual: 1 });
  });

  it("an arc without a guard does not swallow a failure", async () => {
    const { status, events } = await tell(stories.PLAIN_ARC);
    assert.equal(status, "FAILED");
    assert.deepEqual(entries(events), { start: 1 });
  });

  it("two branches run side by side and meet once", async () => {
    const { status, result, events } = await tell(stories.FORK);
    assert.equal(status, "COMPLETED");
    assert.deepEqual(entries(events), { start: 1, left: 1, right: 1, join: 1 });
    assert.deepEqual(result, { left: "L", right: "R" });
  });

  it("iterations of a sequential loop see what those before them wrote", async () => {
    const { status, result } = await tell(stories.SUM);
    assert.equal(status, "COMPLETED");
    assert.deepEqual(result, { sum: 10, order: [1, 2, 3, 4], count: 4 });
  });

  it("children run below a parallel loop and return the step that was asked for", async () => {
    await node.call("catalog.register", { content: family.CHILD });
    const { status, result, execution_id } = await tell(family.PARENT);
    assert.equal(status, "COMPLETED");
    assert.deepEqual(result, {
      doubled: [2, 4, 6],
      ended: ["COMPLETED", "COMPLETED", "COMPLETED"],
    });
    const { executions } = await node.call<{ executions: Record<string, unknown>[] }>(
      "executions.list",
      { path: "test/child" },
    );
    const children = executions.filter(one => one["parent_execution_id"] === execution_id);
    assert.deepEqual(
      children.map(child => child["status"]),
      ["COMPLETED", "COMPLETED", "COMPLETED"],
    );
  });

  it("a failed child is an error that the parent's policy can act on", async () => {
    await node.call("catalog.register", { content: family.FAILING_CHILD });
    const { status, result } = await tell(family.FORGIVING_PARENT);
    assert.equal(status, "COMPLETED");
    assert.deepEqual(result, { code: "CHILD_FAILED" });
  });

  it("rows go into Postgres by parameters, whatever is in them", async () => {
    const { status, result } = await tell(stories.ROWS, { text: `O'Brien"; drop table notes; --` });
    assert.equal(status, "COMPLETED");
    assert.deepEqual(result, { note: `O'Brien"; drop table notes; --`, rows: 1 });
  });

  it("a loop over nothing is done at once, and what follows runs", async () => {
    const { status, result, progress } = await tell(stories.EMPTY);
    assert.equal(status, "COMPLETED");
    assert.deepEqual(result, { total: 0, results: [] });
    assert.equal(progress["nothing"]?.total, 0);
  });
});
