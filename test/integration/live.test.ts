// Following an execution over HTTP, by Server-Sent Events.
import { strict as assert } from "node:assert";
import { setTimeout as delay } from "node:timers/promises";
import type { Role } from "../../cli/runtime.ts";
import { ask, until } from "../support/actors.ts";
import { openEventStream, type Message } from "../support/event-stream.ts";
import { startGate, type Gate } from "../support/gate.ts";
import { ended, startNode, type TestNode } from "../support/node.ts";
import { HEAD } from "../support/playbook-samples.ts";
import { testDatabase, type TestDatabase } from "../support/postgres.ts";

const GATED = `${HEAD}workload: {gate: ""}
workflow:
  - step: each
    loop: {in: [1, 2, 3], iterator: n, spec: {mode: parallel, max_in_flight: 3}}
    tool: {kind: http, url: "{{ workload.gate }}"}
    next: {arcs: [{step: last}]}
  - {step: last, tool: {kind: noop, result: {done: true}}}
`;

const MAX = 5;

describe("GET /api/executions/ID/stream", function () {
  this.timeout(60_000);
  let database: TestDatabase;
  let node: TestNode;
  let base: string;
  let gate: Gate;
  before(async () => {
    database = await testDatabase({ migrated: true });
    node = await startApi();
    base = await addressOf(node);
  });
  beforeEach(async () => void (gate = await startGate()));
  afterEach(() => gate.close());
  after(async () => {
    await node.stop();
    await database.drop();
  });

  function startApi(roles: Role[] = ["server", "worker", "api"]): Promise<TestNode> {
    const env = { NOETL_LIVE_STREAMS_MAX: String(MAX), NOETL_DRAIN_SECONDS: "20" };
    return startNode({ url: database.url, roles, env });
  }

  async function addressOf(of: TestNode): Promise<string> {
    const { url } = await of.call<{ url: string }>("api.address");
    return `${url}/api/executions/`;
  }

  async function start(): Promise<string> {
    const request = { playbook: GATED, payload: { gate: gate.url } };
    return (await node.call<{ execution_id: string }>("executions.start", request)).execution_id;
  }

  const versions = (messages: Message[]) =>
    messages.filter(one => one.event === "event").map(one => Number(one.id));

  async function ownVersions(id: string): Promise<number[]> {
    const text = "select version from noetl.event where stream_id = $1 order by version";
    return (await ask<{ version: number }>(database.url, text, [id])).map(row => row.version);
  }

  it("tells each fact with its version, progress between, and at the end the result", async () => {
    const id = await start();
    const stream = await openEventStream(`${base}${id}/stream`);
    assert.equal(stream.status, 200);
    assert.match(stream.headers["content-type"] ?? "", /^text\/event-stream/);
    assert.equal(stream.headers["cache-control"], "no-store");
    await gate.arrived(3);
    gate.open();
    const messages = await stream.rest();
    assert.deepEqual(versions(messages), await ownVersions(id));
    for (const one of messages)
      if (one.event === "event") assert.equal(one.data["execution_id"], id);
    const shown = messages.filter(one => one.event === "progress");
    assert.equal(shown[0]?.data["status"], "RUNNING");
    const end = messages.at(-1);
    assert.equal(end?.event, "end");
    assert.equal(end.data["status"], "COMPLETED");
    assert.deepEqual(end?.data["result"], { done: true });
    assert.equal(messages.filter(one => one.event === "end").length, 1);
  });

  it("goes on after Last-Event-ID or `after`; who has heard the end is told so", async () => {
    const id = await start();
    gate.open();
    await ended(node.broker, id);
    const all = await (await openEventStream(`${base}${id}/stream`)).rest();
    const after = await (await openEventStream(`${base}${id}/stream?after=2`)).rest();
    assert.deepEqual(versions(after), versions(all).slice(2));
    const again = await openEventStream(`${base}${id}/stream?after=1`, { "last-event-id": "3" });
    assert.deepEqual(versions(await again.rest()), versions(all).slice(3));
    const heard = await openEventStream(`${base}${id}/stream`, {
      "last-event-id": all.at(-1)?.id ?? "",
    });
    assert.equal(heard.status, 204);
    heard.close();
  });

  it("loses and repeats nothing over connections that break again and again", async () => {
    const id = await start();
    const heard: number[] = [];
    let last = "";
    for (let rounds = 0; !last.endsWith("-end"); rounds += 1) {
      assert.ok(rounds < 200, "it does not end");
      if (rounds === 3) gate.open();
      const headers: Record<string, string> = last === "" ? {} : { "last-event-id": last };
      const stream = await openEventStream(`${base}${id}/stream`, headers);
      // Two messages, then away.
      for (let count = 0; count < 2; count += 1) {
        const one = await Promise.race([stream.next(), delay(300)]);
        if (one?.id === undefined) continue;
        last = one.id;
        if (one.event === "event") heard.push(Number(one.id));
      }
      stream.close();
    }
    assert.deepEqual(heard, await ownVersions(id));
  });

  it("answers errors as JSON before the stream begins", async () => {
    const id = await start();
    const cases: [string, Record<string, string>, number][] = [
      ["77/stream", {}, 404],
      ["seven/stream", {}, 422],
      [`${id}/stream?after=x`, {}, 422],
      [`${id}/stream?page=1`, {}, 422],
      [`${id}/stream`, { "last-event-id": "<script>" }, 422],
    ];
    for (const [path, headers, status] of cases) {
      const answer = await openEventStream(base + path, headers);
      assert.equal(answer.status, status, path);
      assert.match(answer.headers["content-type"] ?? "", /^application\/json/);
      const body = JSON.parse(await answer.body()) as { error: { type: string } };
      assert.equal(body.error.type, "REJECTED");
    }
    const wrongMethod = await fetch(`${base}${id}/stream`, { method: "POST" });
    assert.deepEqual([wrongMethod.status, wrongMethod.headers.get("allow")], [405, "GET"]);
    gate.open();
    await ended(node.broker, id);
  });

  it("takes so many streams and no more, and has room again when clients leave", async () => {
    const id = await start();
    const open = () => openEventStream(`${base}${id}/stream`);
    for (let round = 0; round < 3; round += 1) {
      const streams = await Promise.all(Array.from({ length: MAX }, open));
      assert.deepEqual(new Set(streams.map(one => one.status)), new Set([200]));
      const refused = await open();
      assert.equal(refused.status, 429);
      assert.equal(refused.headers["retry-after"], "5");
      refused.close();
      for (const one of streams) one.close();
      // Nobody tells the server but the closed connections.
      await until(async () => {
        const one = await open();
        one.close();
        return one.status === 200;
      });
      await delay(50);
    }
    gate.open();
    await ended(node.broker, id);
  });

  it("ends with the server, which does not wait for it", async () => {
    const other = await startApi(["client", "api"]);
    const id = await start();
    const url = `${await addressOf(other)}${id}/stream`;
    const streams = await Promise.all([1, 2, 3].map(() => openEventStream(url)));
    for (const stream of streams) assert.equal((await stream.next())?.event, "event");
    const begun = performance.now();
    await other.stop();
    const tookMs = performance.now() - begun;
    for (const stream of streams) {
      assert.ok(!(await stream.rest()).some(one => one.event === "end"));
    }
    assert.ok(tookMs < 3_000, `it took ${tookMs} ms to stop`);
    gate.open();
    await ended(node.broker, id);
  });
});
