// Cancelling a running loop of 2,000 iterations over HTTP: soon over, nothing begun after it.
import { strict as assert } from "node:assert";
import { chance } from "../support/chance.ts";
import { assertSound } from "../support/log-checker.ts";
import { endAll, startServer, type NoetlServer } from "../support/process.ts";
import { setStage, type Stage } from "../support/stage.ts";
import { asked, ended, submit } from "../support/submitted.ts";

const PROBE = "GET /api/v1/concurrency/probe";

const LONG = `apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: long, path: test/long}
workload: {api_url: "", n: 2000}
workflow:
  - step: start
    loop:
      in: "{{ n }}"
      iterator: i
      spec: {mode: parallel, max_in_flight: 16}
    tool:
      kind: http
      url: "{{ api_url }}/api/v1/concurrency/probe"
      params: {delay_seconds: 0.01, label: "{{ i }}"}
    next: {arcs: [{step: after}]}
  - step: after
    tool: {kind: noop}
`;

describe("cancelling a loop of 2,000 iterations", function () {
  this.timeout(60_000);
  let stage: Stage;
  let server: NoetlServer;

  before(async () => {
    stage = await setStage();
    server = await startServer(stage.env);
  });
  after(endAll);
  after(() => stage.close());

  it("answers 202, ends CANCELLED soon, claims nothing after it, and counts", async () => {
    const { api, store } = stage;
    const seed = chance("cancel");
    const id = await submit(server, LONG, { api_url: api.url });
    await asked(api, PROBE, seed.between(50, 400));
    const answer = await server.ask("POST", `/executions/${id}/cancel`, { reason: "enough" });
    assert.equal(answer.status, 202);
    assert.deepEqual(answer.body["execution_id"], id);
    const { status, tookMs } = await ended(store.url, id);
    process.stdout.write(`      cancel: CANCELLED ${tookMs} ms after the answer\n`);
    assert.equal(status, "CANCELLED");
    assert.ok(tookMs < 3_000, `took ${tookMs} ms`);
    // Versions, claims after the cancel, stats and progress are the checker's to compare.
    const { events, rows } = await assertSound(store.url, id);
    const done = events.find(event => event.event_type === "loop.done");
    const stats = done?.meta["stats"] as Record<string, number>;
    assert.equal(done?.meta["status"], "cancelled");
    assert.equal(stats["total"], 2000);
    assert.ok((stats["success"] ?? 0) > 0 && (stats["not_run"] ?? 0) > 1000, JSON.stringify(stats));
    assert.equal(rows[0]?.loop?.["start"]?.done, stats["success"]);
    // What was asked is what was done, and at most what the dropped commands carried.
    const calls = api.calls[PROBE] ?? 0;
    const dropped = events.filter(event => event.event_type === "command.cancelled");
    const carried = dropped.reduce((sum, { meta }) => sum + Number(meta["count"] ?? 1), 0);
    const undone = calls - (stats["success"] ?? 0);
    assert.ok(dropped.length <= 16, `${dropped.length} commands were open`);
    assert.ok(undone <= carried, `${calls} calls, ${JSON.stringify(stats)}`);
    const entered = events.filter(event => event.meta["step"] === "after");
    assert.equal(entered.length, 0, "the step after the loop was entered");
  });

  it("is done once: again is 202 and adds nothing, after the end of a run it is 409", async () => {
    const { api, store } = stage;
    const id = await submit(server, LONG, { api_url: api.url });
    const cancel = () => server.ask("POST", `/executions/${id}/cancel`);
    assert.equal((await cancel()).status, 202);
    await ended(store.url, id);
    const { events } = await assertSound(store.url, id);
    assert.equal((await cancel()).status, 202);
    assert.equal((await assertSound(store.url, id)).events.length, events.length);
    const short = await submit(server, LONG, { api_url: api.url, n: 3 });
    assert.equal((await ended(store.url, short)).status, "COMPLETED");
    const late = await server.ask("POST", `/executions/${short}/cancel`);
    assert.equal(late.status, 409);
    assert.match(JSON.stringify(late.body), /already COMPLETED/);
  });
});
