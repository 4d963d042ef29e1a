// Actions of other services as durable steps: their keys, who asked, services that are away.
import { strict as assert } from "node:assert";
import { Errors } from "moleculer";
import type { Context } from "moleculer";
import { refusalOf } from "../../services/tool.action/allowed.ts";
import { until } from "../support/actors.ts";
import { ended, startNode, type TestNode } from "../support/node.ts";
import { testDatabase, type TestDatabase } from "../support/postgres.ts";

interface Seen {
  name: string;
  meta: Record<string, unknown>;
  requestID: string | null;
}

/** A playbook of one step; `step` is its tool and what else it has. */
function playbook(step: string, more = ""): string {
  return `apiVersion: noetl.io/v2
kind: Playbook
metadata: { name: p, path: tests/action }
workload: { names: [a, b, c] }
workflow:
  - step: create
${step.replace(/^/gm, "    ")}
${more}`;
}

const CREATE = `tool:
  kind: action
  action: users.create
  params: { name: "{{ workload.name }}" }`;

/** The same, tried again as long as that may help. */
const PATIENT = `${CREATE}
  spec:
    policy:
      rules:
        - when: "{{ output.status == 'error' and output.error.retryable }}"
          then: { do: retry, attempts: 200, backoff: fixed, delay: 0.05 }`;

describe("action steps", function () {
  this.timeout(30_000);
  let database: TestDatabase;
  let node: TestNode;
  let seen: Seen[];
  /** What the next calls of users.create do beside being seen. */
  let behave: (call: number) => unknown;

  const users = () => ({
    name: "users",
    actions: {
      async create(ctx: Context<{ name: string }, Record<string, unknown>>) {
        const { params, meta, requestID } = ctx;
        seen.push({ name: params.name, meta: structuredClone(meta), requestID });
        return behave(seen.length) ?? { hello: params.name };
      },
    },
  });
  // Short to drain: some of these actions never answer, and nobody shall wait for them.
  const quick = {
    NOETL_DRAIN_SECONDS: "0.2",
    NOETL_LOG_LEVEL: "fatal",
    NOETL_RERING_SECONDS: "0.2",
  };
  const open = () => startNode({ url: database.url, env: quick });
  const keys = () => seen.map(({ meta }) => meta["idempotency_key"]);
  const start = (content: string, payload: object, options: object = {}) =>
    node.broker.call<{ execution_id: string }, object>(
      "executions.start",
      { playbook: content, payload },
      options,
    );

  beforeEach(async () => {
    database = await testDatabase({ migrated: true });
    seen = [];
    behave = () => undefined;
    node = await open();
    node.broker.createService(users());
    await node.broker.waitForServices("users", 5_000, 10);
  });

  afterEach(async () => {
    await node.stop();
    await database.drop();
  });

  it("an action's answer is the step's result", async () => {
    const run = await node.run(playbook(CREATE), { name: "Ada" });
    assert.deepEqual([run.status, run.result], ["COMPLETED", { hello: "Ada" }]);
    const [call] = seen;
    const { execution_id } = run;
    assert.equal(call?.meta["execution_id"], execution_id);
    assert.equal(call?.meta["command_id"], `${execution_id}:create:1:1`);
    assert.deepEqual([call?.meta["step"], call?.meta["attempt"]], ["create", 1]);
  });

  it("retries keep the idempotency key", async () => {
    behave = call => {
      if (call < 4) throw new Errors.MoleculerServerError("the answer is lost", 503);
    };
    const run = await node.run(playbook(PATIENT), { name: "Ada" });
    assert.equal(run.status, "COMPLETED");
    assert.equal(seen.length, 4);
    assert.equal(new Set(keys()).size, 1);
    assert.deepEqual(
      seen.map(({ meta }) => meta["attempt"]),
      [1, 2, 3, 4],
    );
  });

  it("items of a loop, and visits of a jump, have keys of their own", async () => {
    const loop = `loop: { in: "{{ workload.names }}", iterator: n, spec: { mode: parallel } }
tool: { kind: action, action: users.create, params: { name: "{{ n }}" } }`;
    await node.run(playbook(loop));
    const jump = `tool:
  - name: page
    kind: action
    action: users.create
    params: { name: page }
    spec:
      policy:
        rules:
          - when: "{{ output.data.more }}"
            then: { do: jump, to: page }`;
    behave = call => ({ more: call < 6 });
    const run = await node.run(playbook(jump));
    assert.equal(run.status, "COMPLETED");
    assert.equal(seen.length, 6, "three items and three pages");
    assert.equal(new Set(keys()).size, 6);
  });

  it("a new delivery of the command keeps the key", async () => {
    behave = () => new Promise(() => undefined);
    const { execution_id } = await start(playbook(CREATE), { name: "Ada" });
    await until(() => seen.length === 1);
    // Nothing of its work can end: the worker gives the command back when it has drained.
    await node.stop();
    behave = () => undefined;
    node = await open();
    node.broker.createService(users());
    const run = await ended(node.broker, execution_id);
    assert.equal(run.status, "COMPLETED");
    assert.equal(seen.length, 2);
    assert.equal(new Set(keys()).size, 1);
  });

  it("a service that comes later is waited for by policy", async () => {
    const late = CREATE.replace("users.create", "late.create");
    const { execution_id } = await start(playbook(PATIENT.replace(CREATE, late)), { name: "Ada" });
    await until(async () => {
      const events = await node.broker.call<{ events: { event_type: string }[] }, object>(
        "executions.events",
        { execution_id },
      );
      return events.events.some(event => event.event_type === "command.claimed");
    });
    node.broker.createService({ ...users(), name: "late" });
    const run = await ended(node.broker, execution_id);
    assert.deepEqual([run.status, seen.length], ["COMPLETED", 1]);
  });

  it("one that never comes fails the step as a connection does", async () => {
    const none = playbook(CREATE.replace("users.create", "nobody.home"));
    const run = await node.run(none, { name: "Ada" });
    const { kind, code } = run.error as { kind?: string; code?: string };
    assert.deepEqual([run.status, kind, code], ["FAILED", "connection", "SERVICE_NOT_FOUND"]);
  });

  it("a cancelled execution waits for no action", async () => {
    behave = () => new Promise(() => undefined);
    const { execution_id } = await start(playbook(CREATE), { name: "Ada" });
    await until(() => seen.length === 1);
    const info = () => node.broker.call<{ slots: number; free: number }>("worker.info");
    assert.equal((await info()).free, (await info()).slots - 1);
    await node.broker.call("executions.cancel", { execution_id });
    const run = await ended(node.broker, execution_id);
    assert.equal(run.status, "CANCELLED");
    await until(async () => (await info()).free === (await info()).slots);
  });

  describe("who asked", () => {
    const meta = { caller: { name: "ada" }, tenant_id: "acme", locale: "pl", other: "left" };

    it("and what is carried reach the action, with the request's id", async () => {
      const { execution_id } = await start(
        playbook(CREATE),
        { name: "x" },
        { meta, requestID: "r-1" },
      );
      await ended(node.broker, execution_id);
      const [call] = seen;
      assert.equal(call?.requestID, "r-1");
      const { caller, tenant_id, locale, other } = call?.meta ?? {};
      assert.deepEqual(
        [caller, tenant_id, locale, other],
        [{ name: "ada" }, "acme", "pl", undefined],
      );
      const { events } = await node.broker.call<
        { events: { meta: Record<string, unknown>; context: Record<string, unknown> }[] },
        object
      >("executions.events", { execution_id, event_type: "playbook.initialized" });
      assert.deepEqual(
        [events[0]?.meta["requested_by"], events[0]?.meta["request_id"]],
        ["ada", "r-1"],
      );
      assert.deepEqual(events[0]?.context["meta"], { tenant_id: "acme", locale: "pl" });
    });

    it("go to items of a loop, and outlive the process that was asked", async () => {
      const loop = `loop: { in: "{{ workload.names }}", iterator: n }
tool: { kind: action, action: users.create, params: { name: "{{ n }}" } }`;
      behave = call => (call === 2 ? new Promise(() => undefined) : undefined);
      const { execution_id } = await start(playbook(loop), {}, { meta, requestID: "r-2" });
      await until(() => seen.length === 2);
      await node.stop();
      behave = () => undefined;
      node = await open();
      node.broker.createService(users());
      await ended(node.broker, execution_id);
      assert.deepEqual(
        seen.map(({ name }) => name),
        ["a", "b", "b", "c"],
      );
      assert.deepEqual(
        [...new Set(seen.map(one => `${String(one.meta["tenant_id"])} ${one.requestID}`))],
        ["acme r-2"],
      );
    });

    it("go to children", async () => {
      await node.broker.call("catalog.register", { content: playbook(CREATE) });
      const parent = `tool:
  kind: playbook
  path: tests/action
  return_result: true
  input: { name: child }`;
      const { execution_id } = await start(
        playbook(parent).replace("tests/action", "tests/parent"),
        {},
        { meta, requestID: "r-3" },
      );
      const run = await ended(node.broker, execution_id);
      assert.equal(run.status, "COMPLETED");
      const [call] = seen;
      assert.notEqual(call?.meta["execution_id"], execution_id);
      assert.deepEqual(
        [call?.name, call?.requestID, call?.meta["tenant_id"], call?.meta["caller"]],
        ["child", "r-3", "acme", { name: "ada" }],
      );
    });

    it("is refused when it is large, no JSON, or looks secret", async () => {
      const refused: [object, RegExp][] = [
        [{ locale: "x".repeat(2_100) }, /carries 21\d\d bytes in locale, expected at most 2048/],
        [{ tenant_id: { id: 1, api_key: "k" } }, /'api_key'.*looks secret/],
        [{ user_id: 1n }, /ctx\.meta\.user_id is not JSON/],
      ];
      for (const [wrong, message] of refused) {
        await assert.rejects(
          start(playbook(CREATE), {}, { meta: wrong }),
          (error: { code?: number; message?: string }) =>
            error.code === 422 && message.test(error.message ?? ""),
          String(message),
        );
      }
    });
  });

  it("no action of the runtime's inside may be called, whatever services it has", async () => {
    const api = await startNode({ url: database.url, roles: ["server", "worker", "api"] });
    try {
      const actions = api.broker.registry.getActionList({ onlyLocal: true }) as { name: string }[];
      const open = actions
        .map(({ name }) => name)
        .filter(name => refusalOf(name, []) === undefined);
      assert.ok(actions.length > 40, `${actions.length} actions`);
      assert.deepEqual(
        open.filter(
          name =>
            !/^(executions|catalog)\.(get|status|list|events|result|tail|wait|start|cancel)$/.test(
              name,
            ),
        ),
        [],
      );
    } finally {
      await api.stop();
    }
  });
});
