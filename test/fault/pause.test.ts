// Pausing real runs: nothing begins, what runs finishes, a death in between changes nothing.
import { strict as assert } from "node:assert";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as watched } from "node:timers/promises";
import { ask, until } from "../support/actors.ts";
import { assertSound } from "../support/log-checker.ts";
import { begin, endAll, newFolder, noetl, startServer } from "../support/process.ts";
import type { NoetlServer } from "../support/process.ts";
import { setStage, type Stage } from "../support/stage.ts";
import { asked, ended, inFlight, statusOf, submit } from "../support/submitted.ts";

const PROBE = "GET /api/v1/concurrency/probe";
/** So long nothing must be asked for. */
const SILENCE_MS = 1_500;

const head = (path: string) =>
  `apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {name: ${path}, path: test/${path}}\n`;

const LOOP = `${head("held")}workload: {api_url: "", n: 200}
workflow:
  - step: start
    loop:
      in: "{{ n }}"
      iterator: i
      spec: {mode: parallel, max_in_flight: 4}
    tool:
      kind: http
      url: "{{ api_url }}/api/v1/concurrency/probe"
      params: {delay_seconds: 0.1, label: "{{ i }}"}
    next: {arcs: [{step: after}]}
  - step: after
    tool: {kind: noop}
`;

const FANOUT = LOOP.replace(
  "  - step: start\n",
  "  - step: start\n    spec: {loop_mode: fanout, fanout: {max_in_flight: 4}}\n",
).replace("      spec: {mode: parallel, max_in_flight: 4}\n", "");

const PARENT = `${head("parent")}workload: {api_url: "", n: 100}
workflow:
  - step: start
    tool:
      kind: playbook
      path: test/held
      return_result: true
      args: {api_url: "{{ api_url }}", n: "{{ n }}"}
`;

describe("pausing an execution", function () {
  this.timeout(90_000);
  let stage: Stage;
  let server: NoetlServer;

  beforeEach(async () => {
    stage = await setStage();
    server = await startServer(stage.env);
  });
  afterEach(endAll);
  afterEach(() => stage.close());

  const calls = () => stage.api.calls[PROBE] ?? 0;
  const post = (id: string, verb: string) => server.ask("POST", `/executions/${id}/${verb}`, {});

  /** Once what ran has finished, nothing is asked for. */
  async function assertSilent(id: string, limitMs?: number): Promise<void> {
    await until(async () => (await inFlight(stage.store.url, id)).length === 0, limitMs);
    const before = calls();
    await watched(SILENCE_MS);
    assert.equal(calls(), before, "something has begun while it was paused");
  }

  it("holds a loop over the death of its server, and then does each item once", async () => {
    const { api, store } = stage;
    const id = await submit(server, LOOP, { api_url: api.url });
    await asked(api, PROBE, 30);
    const answer = await post(id, "pause");
    assert.deepEqual([answer.status, answer.body["status"]], [202, "PAUSED"]);
    assert.equal((await post(id, "pause")).body["status"], "PAUSED");
    await assertSilent(id);
    assert.equal(await statusOf(store.url, id), "PAUSED");
    await server.kill();
    server = await startServer(stage.env);
    await assertSilent(id);
    assert.equal(await statusOf(store.url, id), "PAUSED");
    assert.equal((await post(id, "resume")).body["status"], "RUNNING");
    assert.equal((await ended(store.url, id)).status, "COMPLETED");
    const { events } = await assertSound(store.url, id);
    assert.equal(calls(), 200);
    const types = events.map(event => event.event_type);
    assert.equal(types.filter(type => type === "execution.pause_requested").length, 1);
    // Of the execution and of its loop.
    assert.equal(types.filter(type => type === "execution.paused").length, 2);
  });

  it("would be noticed to hold nothing, if its loop took no notice", async () => {
    const { api, env } = stage;
    await server.kill();
    server = await startServer(env, { switchedOff: "pauses of loops" });
    const id = await submit(server, LOOP, { api_url: api.url });
    await asked(api, PROBE, 10);
    assert.equal((await post(id, "pause")).body["status"], "PAUSED");
    await assert.rejects(assertSilent(id, 2_000));
  });

  it("holds a fan-out, which does each shard once after it", async () => {
    const { api, store } = stage;
    const id = await submit(server, FANOUT, { api_url: api.url, n: 60 });
    await asked(api, PROBE, 10);
    assert.equal((await post(id, "pause")).body["status"], "PAUSED");
    await assertSilent(id);
    assert.equal((await post(id, "resume")).body["status"], "RUNNING");
    assert.equal((await ended(store.url, id)).status, "COMPLETED");
    const { events } = await assertSound(store.url, id);
    assert.equal(calls(), 60);
    const types = events.map(event => event.event_type);
    assert.equal(types.filter(type => type === "loop.shard.done").length, 60);
    assert.equal(types.filter(type => type === "execution.paused").length, 2);
  });

  it("holds its children, which go on with it", async () => {
    const { api, store } = stage;
    await server.ask("POST", "/catalog/register", LOOP);
    const id = await submit(server, PARENT, { api_url: api.url });
    await asked(api, PROBE, 10);
    assert.equal((await post(id, "pause")).body["status"], "PAUSED");
    const { body } = await server.ask("GET", "/executions?path=test/held");
    const [child] = body["executions"] as { execution_id: string }[];
    await until(async () => (await statusOf(store.url, child!.execution_id)) === "PAUSED");
    await assertSilent(child!.execution_id);
    await post(id, "resume");
    assert.equal((await ended(store.url, id)).status, "COMPLETED");
    assert.equal(calls(), 100);
    await assertSound(store.url, id);
    await assertSound(store.url, child!.execution_id);
  });

  it("is no obstacle to a cancel", async () => {
    const { api, store } = stage;
    const id = await submit(server, LOOP, { api_url: api.url });
    await asked(api, PROBE, 10);
    await post(id, "pause");
    assert.equal((await post(id, "cancel")).status, 202);
    await until(async () => (await statusOf(store.url, id)) === "CANCELLED");
    await assertSound(store.url, id);
    const late = await post(id, "pause");
    assert.equal(late.status, 409);
    assert.match(JSON.stringify(late.body), /already CANCELLED/);
  });

  it("by the command line beside a run of another process, which goes on by itself", async () => {
    const { api, store } = stage;
    await server.kill();
    const file = join(await newFolder(), "held.yaml");
    await writeFile(file, LOOP);
    const payload = JSON.stringify({ api_url: api.url, n: 400 });
    const run = begin(["run", file, "--payload", payload, "--json"], stage.env);
    await asked(api, PROBE, 30);
    const text = "select execution_id from noetl.execution";
    const [{ execution_id: id } = { execution_id: "" }] = await ask<{ execution_id: string }>(
      store.url,
      text,
    );
    const paused = await noetl(["pause", id, "--reason", "a look"], stage.env);
    assert.deepEqual(
      [paused.code, paused.stdout],
      [0, `${id}  PAUSED; go on with: noetl resume ${id}\n`],
    );
    await assertSilent(id);
    const stands = await noetl(["status", id], stage.env);
    assert.match(stands.stdout, /PAUSED/);
    assert.ok(stands.stdout.endsWith(`go on with: noetl resume ${id}\n`), stands.stdout);
    const on = await noetl(["unpause", id, "--json"], stage.env);
    assert.deepEqual(JSON.parse(on.stdout), { execution_id: id, status: "RUNNING" });
    const { code, stdout, stderr } = await run.ended;
    assert.equal(code, 0, stderr);
    assert.equal((JSON.parse(stdout) as { status: string }).status, "COMPLETED");
    assert.equal(calls(), 400);
    await assertSound(store.url, id);
  });
});
