// Following an execution: facts without gaps, news at once, and other nodes' news soon.
import { strict as assert } from "node:assert";
import type { ExecutionTail } from "../../services/executions/tail.ts";
import { ask } from "../support/actors.ts";
import { startGate, type Gate } from "../support/gate.ts";
import { ended, startNode, type TestNode } from "../support/node.ts";
import { HEAD } from "../support/playbook-samples.ts";
import { testDatabase, type TestDatabase } from "../support/postgres.ts";

const GATED = `${HEAD}workload: {gate: ""}
workflow:
  - step: first
    tool: {kind: http, url: "{{ workload.gate }}"}
    next: {arcs: [{step: each}]}
  - step: each
    loop: {in: [1, 2, 3], iterator: n, spec: {mode: parallel, max_in_flight: 3}}
    tool: {kind: http, url: "{{ workload.gate }}"}
    next: {arcs: [{step: last}]}
  - {step: last, tool: {kind: noop, result: {done: true}}}
`;

describe("executions.tail", function () {
  this.timeout(60_000);
  let database: TestDatabase;
  let node: TestNode;
  let gate: Gate;
  before(async () => {
    database = await testDatabase({ migrated: true });
    node = await startNode({ url: database.url });
  });
  beforeEach(async () => void (gate = await startGate()));
  afterEach(() => gate.close());
  after(async () => {
    await node.stop();
    await database.drop();
  });

  const tail = (params: object, from = node) => from.call<ExecutionTail>("executions.tail", params);

  async function start(): Promise<string> {
    const payload = { gate: gate.url };
    const started = await node.call<{ execution_id: string }>("executions.start", {
      playbook: GATED,
      payload,
    });
    return started.execution_id;
  }

  /** Asks again and again as a follower does, until the end. */
  async function followed(execution_id: string, from: TestNode, limit = 100) {
    const answers: ExecutionTail[] = [];
    for (let after = 0, seen: string | undefined; ;) {
      const answer = await tail({ execution_id, after, seen, limit, timeout_ms: 5_000 }, from);
      answers.push(answer);
      ({ version: after, seen } = answer);
      if (answer.ended) return { answers, facts: answers.flatMap(one => one.events) };
      assert.ok(answers.length < 500, "it does not end");
    }
  }

  const ownLog = (id: string) =>
    ask<{ version: number; event_type: string }>(
      database.url,
      "select version, event_type from noetl.event where stream_id = $1 order by version",
      [id],
    );

  it("gives every fact of the execution's own stream once, in order, to the end", async () => {
    const execution_id = await start();
    gate.open();
    for (const limit of [100, 2]) {
      const { answers, facts } = await followed(execution_id, node, limit);
      const shown = facts.map(({ version, event_type }) => ({ version, event_type }));
      assert.deepEqual(shown, await ownLog(execution_id));
      assert.equal(answers.at(-1)?.execution.status, "COMPLETED");
      assert.ok(answers.every(one => one.events.length <= limit));
      assert.ok(!("result" in (answers[0]?.execution ?? {})));
    }
  });

  it("shows facts as executions.events shows the recorded ones", async () => {
    const execution_id = await start();
    gate.open();
    await ended(node.broker, execution_id);
    const { events } = await tail({ execution_id });
    const page = await node.call<{ events: Record<string, unknown>[] }>("executions.events", {
      execution_id,
      page_size: 500,
    });
    const byId = new Map(page.events.map(one => [`${one["event_id"]} ${one["event_type"]}`, one]));
    for (const event of events) {
      assert.deepEqual(event, byId.get(`${event["event_id"]} ${event["event_type"]}`));
    }
    assert.ok(events.length > 5);
  });

  it("waits while nothing happens, and answers without facts at the timeout", async () => {
    const execution_id = await start();
    await gate.arrived(1);
    const { version, seen } = await settled(execution_id);
    const begun = performance.now();
    const answer = await tail({ execution_id, after: version, seen, timeout_ms: 700 });
    const tookMs = performance.now() - begun;
    assert.ok(tookMs >= 650, `it answered after ${tookMs} ms`);
    assert.deepEqual([answer.events, answer.version, answer.ended], [[], version, false]);
    gate.open();
    await ended(node.broker, execution_id);
  });

  /** All that is there has been shown: the next news is the test's own. */
  async function settled(execution_id: string, from = node): Promise<ExecutionTail> {
    let answer = await tail({ execution_id }, from);
    for (;;) {
      const { version: after, seen } = answer;
      const next = await tail({ execution_id, after, seen, timeout_ms: 700 }, from);
      if (next.events.length === 0 && next.seen === seen) return answer;
      answer = next.events.length > 0 ? next : { ...next, version: after };
    }
  }

  it("hears what its own process commits, long before it would look again", async () => {
    const execution_id = await start();
    await gate.arrived(1);
    const { version, seen } = await settled(execution_id);
    const waiting = tail({ execution_id, after: version, seen, timeout_ms: 10_000 });
    // Looks are at whole half seconds: just after one, the next is far.
    await new Promise(resolve => setTimeout(resolve, 520 - (Date.now() % 500)));
    const begun = performance.now();
    gate.open(1);
    const { events } = await waiting;
    const tookMs = performance.now() - begun;
    assert.equal(events[0]?.["event_type"], "command.completed");
    assert.ok(tookMs < 300, `heard after ${tookMs} ms`);
    gate.open();
    await ended(node.broker, execution_id);
  });

  it("follows on a node that hears nothing of the one that runs it", async () => {
    const other = await startNode({ url: database.url, roles: ["client"] });
    try {
      const execution_id = await start();
      const following = followed(execution_id, other);
      await gate.arrived(1);
      gate.open();
      const { facts } = await following;
      assert.deepEqual(
        facts.map(fact => fact["version"]),
        (await ownLog(execution_id)).map(fact => fact.version),
      );
    } finally {
      await other.stop();
    }
  });

  it("tells of a loop's progress, which its own stream does not hold", async () => {
    const execution_id = await start();
    await gate.arrived(1);
    gate.open(1);
    await gate.arrived(4);
    const { version, seen } = await settled(execution_id);
    const waiting = tail({ execution_id, after: version, seen, timeout_ms: 10_000 });
    gate.open(1);
    const { events, execution, seen: now } = await waiting;
    assert.deepEqual(events, []);
    assert.notEqual(now, seen);
    assert.equal((execution.loop_progress["each"] as { done: number }).done, 1);
    gate.open();
    await ended(node.broker, execution_id);
  });

  it("answers at once when all is over", async () => {
    const execution_id = await start();
    gate.open();
    await ended(node.broker, execution_id);
    const { version, seen } = await tail({ execution_id });
    const begun = performance.now();
    const answer = await tail({ execution_id, after: version, seen, timeout_ms: 10_000 });
    assert.deepEqual([answer.events, answer.ended], [[], true]);
    assert.ok(performance.now() - begun < 2_000);
  });

  it("refuses an unknown execution with 404 and a bad request with 422", async () => {
    await assert.rejects(tail({ execution_id: "77" }), { type: "REJECTED", code: 404 });
    for (const wrong of [{ after: -1 }, { limit: 501 }, { timeout_ms: 30_001 }, { seen: 5 }]) {
      await assert.rejects(tail({ execution_id: "77", ...wrong }), { code: 422 });
    }
  });

  it("does not hold a node that stops", async () => {
    const other = await startNode({ url: database.url, roles: ["client"] });
    const execution_id = await start();
    await gate.arrived(1);
    const { version, seen } = await settled(execution_id, other);
    const waiting = tail({ execution_id, after: version, seen, timeout_ms: 30_000 }, other);
    const begun = performance.now();
    await other.stop();
    assert.deepEqual((await waiting).events, []);
    assert.ok(performance.now() - begun < 3_000);
    gate.open();
    await ended(node.broker, execution_id);
  });
});
