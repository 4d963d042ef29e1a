// Limits of time over the death of the server that waits for them: each ends in an error that says
// which one it was.
import { strict as assert } from "node:assert";
import { ask } from "../support/actors.ts";
import { startGate, type Gate } from "../support/gate.ts";
import { assertSound } from "../support/log-checker.ts";
import { endAll, startServer, type NoetlServer } from "../support/process.ts";
import { setStage, type Stage } from "../support/stage.ts";
import { ended, submit } from "../support/submitted.ts";

function work(name: string, limits: { step?: string; executor?: string }): string {
  return `apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: ${name}, path: test/${name}}
${limits.executor ?? ""}
workload: {url: ""}
workflow:
  - step: start
    tool: {kind: http, url: "{{ url }}", timeout: 100}
    spec: {${limits.step ?? ""}}
`;
}

describe("a limit of time", function () {
  this.timeout(90_000);
  let stage: Stage;
  let server: NoetlServer;
  let gate: Gate;
  let env: Stage["env"];

  beforeEach(async () => {
    stage = await setStage();
    gate = await startGate();
    // One slot: whoever comes second waits in the queue.
    env = { ...stage.env, NOETL_WORKER_MAX_INFLIGHT_COMMANDS: "1" };
    server = await startServer(env);
  });
  afterEach(endAll);
  afterEach(() => gate.close());
  afterEach(() => stage.close());

  async function codeOf(id: string): Promise<string | undefined> {
    const text = "select error->>'code' as code from noetl.execution where execution_id = $1";
    const [row] = await ask<{ code: string }>(stage.store.url, text, [id]);
    return row?.code;
  }

  async function replaceServer(): Promise<void> {
    await server.kill();
    server = await startServer(env);
  }

  it("of the queue fails a command that no worker takes", async () => {
    const payload = { url: gate.url };
    const hog = await submit(server, work("hog", {}), payload);
    await gate.asked;
    const id = await submit(server, work("queued", { step: "queue_timeout: 2s" }), payload);
    assert.equal((await ended(stage.store.url, id)).status, "FAILED");
    assert.equal(await codeOf(id), "QUEUE_TIMEOUT");
    await assertSound(stage.store.url, id);
    gate.open();
    assert.equal((await ended(stage.store.url, hog)).status, "COMPLETED");
  });

  it("of an attempt ends it, and frees its slot", async () => {
    const payload = { url: gate.url };
    const id = await submit(server, work("held", { step: "attempt_timeout: 2s" }), payload);
    await gate.asked;
    assert.equal((await ended(stage.store.url, id)).status, "FAILED");
    assert.equal(await codeOf(id), "ATTEMPT_TIMEOUT");
    await assertSound(stage.store.url, id);
    const next = await submit(server, work("next", {}), payload);
    await gate.arrived(2);
    gate.open();
    assert.equal((await ended(stage.store.url, next)).status, "COMPLETED");
  });

  it("of a run ends it although the server that has it is killed before", async () => {
    const executor = "executor: {spec: {timeout: 6s}}";
    const id = await submit(server, work("overrun", { executor }), { url: gate.url });
    await gate.asked;
    await replaceServer();
    assert.equal((await ended(stage.store.url, id)).status, "FAILED");
    assert.equal(await codeOf(id), "EXECUTION_TIMEOUT");
    await assertSound(stage.store.url, id);
  });

  it("of a start is taken as the playbook's own, and refused where it is none", async () => {
    await server.ask("POST", "/catalog/register", work("asked", {}));
    const start = (timeout: unknown) =>
      server.ask("POST", "/execute", { path: "test/asked", payload: { url: gate.url }, timeout });
    const refused = await start("soon");
    assert.equal(refused.status, 422);
    assert.match(JSON.stringify(refused.body), /timeout.*a duration such as/);
    const { body } = await start("2s");
    assert.equal((await ended(stage.store.url, String(body["execution_id"]))).status, "FAILED");
    assert.equal(await codeOf(String(body["execution_id"])), "EXECUTION_TIMEOUT");
  });
});
