// A worker that speaks nothing but HTTP: what waits, claims, reports, and every way to be refused.
import { strict as assert } from "node:assert";
import { openDatabase, type Database } from "../../mixins/postgres/index.ts";
import { testDatabase, type TestDatabase } from "../support/postgres.ts";
import { startNode, type TestNode } from "../support/node.ts";

const TWO_STEPS = `
apiVersion: noetl.io/v2
kind: Playbook
metadata: { name: two, path: tests/two }
workflow:
  - step: first
    tool: { kind: noop }
    next: { arcs: [{ step: second }] }
  - step: second
    tool: { kind: noop, args: { seen: "{{ first.answer }}" } }
`;

const LOOP = `
apiVersion: noetl.io/v2
kind: Playbook
metadata: { name: loop, path: tests/loop }
workflow:
  - step: each
    loop: { in: [a, b, c], iterator: letter, spec: { mode: parallel, max_in_flight: 3 } }
    tool: { kind: noop, args: { letter: "{{ letter }}" } }
`;

/** Large in every way: a variable, a result, a collection, and so the scope of its loop. */
const LARGE = `
apiVersion: noetl.io/v2
kind: Playbook
metadata: { name: large, path: tests/large }
workload: { text: "${"x".repeat(20_000)}", a: "${"a".repeat(12_000)}", b: "${"b".repeat(12_000)}" }
workflow:
  - step: make
    tool: { kind: noop, args: { text: "{{ workload.text }}" } }
    next: { arcs: [{ step: each }] }
  - step: each
    loop: { in: "{{ make.rows }}", iterator: row, spec: { mode: parallel, max_in_flight: 1 } }
    tool: { kind: noop, args: { all: "{{ row + make.rows + workload.a + workload.b }}" } }
`;

interface Waiting {
  command_id: string;
  step: string;
  stream_id: string;
}
interface Granted {
  delivery: number;
  scope: Record<string, unknown>;
  iteration: { value: string };
}
interface Reference {
  ref: string;
  sha256?: string;
  bytes: number;
  tier: string;
}
interface LoopGrant {
  scope_ref?: Reference;
  iteration: { collection_ref?: Reference; index: number };
}
interface Answer<Body = Record<string, unknown>> {
  status: number;
  body: Body;
}

describe("the door for workers over HTTP", () => {
  let database: TestDatabase;
  let store: Database;
  let node: TestNode;
  let api: string;

  before(async () => {
    database = await testDatabase({ migrated: true });
    store = openDatabase({ url: database.url, size: 1 });
    node = await startNode({ url: database.url, roles: ["server", "api"] });
    api = (await node.call<{ url: string }>("api.address")).url + "/api";
  });
  after(async () => {
    await node.stop();
    await store.close();
    await database.drop();
  });

  async function ask<Body>(path: string, body?: object): Promise<Answer<Body>> {
    const response = await fetch(api + path, {
      ...(body && {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify(body),
      }),
    });
    return { status: response.status, body: (await response.json()) as Body };
  }

  async function start(playbook: string): Promise<string> {
    const { body } = await ask<{ execution_id: string }>("/execute", { playbook });
    return body.execution_id;
  }

  /** The commands of an execution that wait, once there are so many. */
  async function waiting(execution: string, count = 1): Promise<Waiting[]> {
    const found = new Map<string, Waiting>();
    const until = Date.now() + 10_000;
    while (found.size < count && Date.now() < until) {
      const { body } = await ask<{ rings: Waiting[] }>("/commands?max=10&wait_ms=1000");
      for (const ring of body.rings) {
        if (ring.command_id.startsWith(`${execution}:`)) found.set(ring.command_id, ring);
      }
    }
    assert.equal(found.size, count, "so many commands wait");
    return [...found.values()];
  }

  const claim = <Body = Granted>(id: string, worker_id = "w1", more: object = {}) =>
    ask<Body>(`/commands/${encodeURIComponent(id)}/claim`, { worker_id, ...more });

  const valueOf = (id: string, reference: Reference, index?: number) =>
    ask<{ value: unknown }>(`/commands/${encodeURIComponent(id)}/value`, { reference, index });

  const done = (command_id: string, context: unknown, delivery = 1) => ({
    event_type: "command.completed",
    ...{ command_id, delivery, worker_id: "w1", result: { status: "ok", context } },
  });

  const statusOf = async (id: string) =>
    (await ask<{ status: string }>(`/executions/${id}/wait?timeout_ms=5000`)).body.status;

  it("runs an execution to its end with nothing but requests", async () => {
    const id = await start(TWO_STEPS);
    const [first] = await waiting(id);
    assert.equal(first?.step, "first");
    const grant = await claim(first.command_id);
    assert.equal(grant.status, 200);
    assert.equal(grant.body.delivery, 1);
    const told = await ask("/events", done(first.command_id, { answer: 42 }));
    assert.equal(told.status, 200, JSON.stringify(told.body));
    const [second] = await waiting(id);
    const scope = (await claim(second!.command_id)).body.scope as {
      steps: Record<string, { context: unknown }>;
    };
    assert.deepEqual(scope.steps["first"]?.context, { answer: 42 });
    await ask("/events", done(second!.command_id, {}));
    assert.equal(await statusOf(id), "COMPLETED");
    const ended = await ask<{ status: string; stream_id: string }>(
      `/commands/${encodeURIComponent(second!.command_id)}`,
    );
    assert.equal(ended.body.status, "completed");
    assert.equal(ended.body.stream_id, id);
  });

  it("answers the same claim again, and refuses another worker's", async () => {
    const id = await start(TWO_STEPS);
    const [first] = await waiting(id);
    const mine = { incarnation: "i1", claim_id: "c1" };
    const once = await claim(first!.command_id, "w1", mine);
    const again = await claim(first!.command_id, "w1", mine);
    assert.deepEqual(again, once);
    const other = await claim(first!.command_id, "w2");
    assert.equal(other.status, 409);
    assert.match(JSON.stringify(other.body), /held by worker w1/);
  });

  it("accepts an outcome once, and only under the current delivery", async () => {
    const id = await start(TWO_STEPS);
    const [first] = await waiting(id);
    await claim(first!.command_id);
    const early = await ask("/events", done(first!.command_id, {}, 2));
    assert.equal(early.status, 409);
    assert.match(JSON.stringify(early.body), /fenced out/);
    const events = [done(first!.command_id, 1), done(first!.command_id, 2)];
    const { body } = await ask<{ results: { status: string; reason?: string }[] }>(
      "/events/batch",
      { events },
    );
    assert.deepEqual(
      body.results.map(({ status, reason }) => [status, reason]),
      [
        ["ok", undefined],
        ["refused", "settled"],
      ],
    );
  });

  it("does the items of a loop, and keeps data that is too large for a row", async () => {
    const id = await start(LOOP);
    const items = await waiting(id, 3);
    for (const { command_id } of items) {
      const { body } = await claim(command_id);
      await ask("/events", done(command_id, body.iteration.value.repeat(5_000)));
    }
    assert.equal(await statusOf(id), "COMPLETED");
    const { body } = await ask<{ value: { results: string[] } }>(
      `/executions/${id}/result?step=each`,
    );
    assert.deepEqual(
      body.value.results.map(text => [text[0], text.length]),
      [
        ["a", 5_000],
        ["b", 5_000],
        ["c", 5_000],
      ],
    );
    const { rows } = await store.query<{ bytes: number }>(
      `select max(octet_length(result::text)) as bytes from noetl.event
       where execution_id = $1 and event_type = 'command.completed'`,
      [id],
    );
    assert.ok(rows[0]!.bytes < 2_048, `a row of ${rows[0]!.bytes} bytes`);
  });

  it("offers a command that was given back, uncharged", async () => {
    const id = await start(TWO_STEPS);
    const [first] = await waiting(id);
    const { command_id } = first!;
    await claim(command_id);
    const back = { event_type: "command.released", command_id, delivery: 1, worker_id: "w1" };
    assert.equal((await ask("/events", back)).status, 200);
    const [again] = await waiting(id);
    assert.equal(again?.command_id, command_id);
    assert.equal((await claim(command_id, "w2")).body.delivery, 2);
  });

  it("shows life by heartbeats, as a worker of its own does by its row", async () => {
    const beat = { event_type: "command.heartbeat", worker_id: "w9", incarnation: "i9" };
    assert.equal((await ask("/events", beat)).status, 200);
    const { rows } = await store.query<{ status: string }>(
      "select status from noetl.runtime where worker_id = 'w9' and incarnation = 'i9'",
    );
    assert.deepEqual(rows, [{ status: "ready" }]);
  });

  it("gives a worker what its grant only names: the scope, an item, a result", async () => {
    const id = await start(LARGE);
    const [make] = await waiting(id);
    const made = await claim(make!.command_id);
    const { workload } = made.body.scope as { workload: { text: { $value: Reference } } };
    const mark = Object.values(workload.text)[0] as Reference;
    const text = await valueOf(make!.command_id, mark);
    assert.equal(text.body.value, "x".repeat(20_000));
    await ask("/events", done(make!.command_id, { rows: Array(2_000).fill("row") }));

    const [item] = await waiting(id);
    const { body } = await claim<LoopGrant>(item!.command_id);
    const collection = body.iteration.collection_ref!;
    const at = await valueOf(item!.command_id, collection, body.iteration.index);
    assert.equal(at.body.value, "row");
    const scope = await valueOf(item!.command_id, body.scope_ref!);
    const { steps } = scope.body.value as { steps: { make: { reference: Reference } } };
    const result = await valueOf(item!.command_id, steps.make.reference);
    assert.equal((result.body.value as { rows: string[] }).rows.length, 2_000);

    const refused: [string, Reference, number | undefined, number][] = [
      [item!.command_id, collection, 2_000, 404],
      [item!.command_id, { ...collection, ref: `${collection.ref}0` }, undefined, 404],
      [`${BigInt(id) + 1n}:each:1:0:1`, collection, 0, 403],
      [item!.command_id, { ...collection, ref: "catalog://tests/two@1#00" }, undefined, 403],
      [item!.command_id, { ...mark, ref: `noetl://execution/${id}/../other` }, undefined, 404],
    ];
    for (const [command, reference, index, status] of refused) {
      const answer = await valueOf(command, reference, index);
      assert.equal(answer.status, status, JSON.stringify(answer.body));
    }
    assert.equal((await ask(`/executions/${id}/cancel`, {})).status, 202);
  });

  it("tells with a heartbeat which of the commands that a worker holds are over", async () => {
    const id = await start(LOOP);
    const items = await waiting(id, 3);
    for (const { command_id } of items) await claim(command_id);
    const held = items.map(({ command_id }) => command_id);
    const beat = { event_type: "command.heartbeat", worker_id: "w1", command_ids: held };
    const first = await ask<{ over: string[] }>("/events", beat);
    assert.deepEqual([first.status, first.body.over], [200, []]);
    await ask("/events", done(held[0]!, "a"));
    assert.deepEqual((await ask<{ over: string[] }>("/events", beat)).body.over, [held[0]]);
    await ask(`/executions/${id}/cancel`, {});
    assert.equal(await statusOf(id), "CANCELLED");
    const { body } = await ask<{ results: { over: string[] }[] }>("/events/batch", {
      events: [beat, { ...beat, command_ids: ["12:a:1:1"] }],
    });
    assert.deepEqual(new Set(body.results[0]!.over), new Set(held));
    assert.deepEqual(body.results[1]!.over, []);
  });

  it("refuses what is not a worker's to say, and says what is expected", async () => {
    const wrong: [object, RegExp][] = [
      [{ event_type: "playbook.completed" }, /command\.completed, command\.failed/],
      [{ event_type: "command.completed", worker_id: "w" }, /command_id/],
      [{ ...done("12:first:1:1", 1), delivery: 0 }, /delivery/],
      [{ ...done("12:first:1:1", 1), status: "ok" }, /there is no such field/],
      [{ ...done("12:first:1:1", 1), event_type: "command.failed" }, /'error'/],
    ];
    for (const [event, message] of wrong) {
      const { status, body } = await ask("/events", event);
      assert.ok(status === 422 || status === 409, `${status} ${JSON.stringify(body)}`);
      assert.match(JSON.stringify(body), message);
    }
    const nobodys = await claim("12345:first:1:1");
    assert.equal(nobodys.status, 404);
    assert.equal((await ask("/commands/12345:first:1:1")).status, 404);
    assert.equal((await ask("/commands?max=0")).status, 422);
  });
});
