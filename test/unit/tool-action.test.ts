// The action tool without a runtime: its error table, its answers, what it sends and refuses.
import { strict as assert } from "node:assert";
import { Readable } from "node:stream";
import { Errors, ServiceBroker } from "moleculer";
import type { Context } from "moleculer";
import { callTool } from "../../mixins/tool.ts";
import { Busy, Conflict, Rejected, Unavailable } from "../../schemas/errors.ts";
import type { ToolCommand, ToolRequest } from "../../schemas/tool.ts";
import { plainAnswer } from "../../services/tool.action/answer.ts";
import { refusalOf } from "../../services/tool.action/allowed.ts";
import { actionFailure } from "../../services/tool.action/failure.ts";
import { actionTool } from "../../services/tool.action/tool.action.service.ts";
import { bad, ok, play, rule, task, ON_ERROR } from "../support/pipeline-play.ts";

const { MoleculerClientError, MoleculerError, MoleculerRetryableError, ValidationError } = Errors;

/** What an error becomes: kind, whether it may be tried again, code and status. */
function told(error: unknown): unknown[] {
  const { kind, retryable, code, status_code } = actionFailure(error).failure;
  return [kind, retryable, code, status_code];
}

describe("an action's error", () => {
  const at = { action: "users.create" };
  const table: [string, unknown, unknown[]][] = [
    [
      "a refused parameter is the caller's fault",
      new ValidationError("Parameters validation error!"),
      ["client_error", false, "VALIDATION_ERROR", 422],
    ],
    [
      "so is a Rejected of ours",
      new Rejected("no such playbook"),
      ["client_error", false, "REJECTED", 422],
    ],
    [
      "a service that is not there may come",
      new Errors.ServiceNotFoundError(at),
      ["connection", true, "SERVICE_NOT_FOUND", 404],
    ],
    [
      "one whose nodes are all away too",
      new Errors.ServiceNotAvailableError(at),
      ["connection", true, "SERVICE_NOT_AVAILABLE", 404],
    ],
    [
      "a node that died with the request",
      new Errors.RequestRejectedError(at),
      ["connection", true, "REQUEST_REJECTED", 503],
    ],
    [
      "no answer in time",
      new Errors.RequestTimeoutError({ ...at, nodeID: "n" }),
      ["timeout", true, "REQUEST_TIMEOUT", 504],
    ],
    [
      "a full queue",
      new Errors.QueueIsFullError({ ...at, nodeID: "n" }),
      ["rate_limit", true, "QUEUE_FULL", 429],
    ],
    [
      "a rate limit by its code alone",
      new MoleculerClientError("slowly", 429, "SLOW_DOWN"),
      ["rate_limit", true, "SLOW_DOWN", 429],
    ],
    [
      "a server's fault",
      new MoleculerError("boom", 500),
      ["server_error", true, "ACTION_500", 500],
    ],
    ["an outage", new Unavailable("away"), ["server_error", true, "UNAVAILABLE", 503]],
    [
      "an error that says it may be tried again, whatever its code",
      new Conflict("rival"),
      ["server_error", true, "CONFLICT", 409],
    ],
    [
      "a retryable one without a type",
      new MoleculerRetryableError("later", 400),
      ["server_error", true, "ACTION_400", 400],
    ],
    [
      "a client's fault",
      new MoleculerClientError("taken", 409, "NAME_TAKEN"),
      ["client_error", false, "NAME_TAKEN", 409],
    ],
    ["a plain error counts as 500", new Error("bug"), ["server_error", true, "ACTION_500", 500]],
    ["a thrown text too", "bug", ["server_error", true, "ACTION_500", 500]],
    ["a code below 400 says nothing", { code: 302 }, ["unknown", false, "ACTION_302", 302]],
    [
      "a type that is no word is not repeated",
      new MoleculerClientError("x", 404, "<b>no such</b>"),
      ["client_error", false, "ACTION_404", 404],
    ],
    [
      "a message that NATS does not carry is the playbook's fault",
      Object.assign(new Error("x"), { code: "MAX_PAYLOAD_EXCEEDED" }),
      ["config", false, "CONFIG", undefined],
    ],
  ];
  for (const [what, error, expected] of table) {
    it(what, () => assert.deepEqual(told(error), expected));
  }

  it("keeps how long a busy action asks to wait, to a limit", () => {
    const wait = (ms: unknown) =>
      actionFailure(new Busy("full", { retry_after_ms: ms as number })).failure.retry_after_ms;
    assert.deepEqual([wait(1_500), wait(1e9)], [1_500, 300_000]);
    assert.deepEqual([wait("soon"), wait(-1)], [undefined, undefined]);
  });

  it("keeps small data with its secrets masked, and neither a stack nor large data", () => {
    const small = new MoleculerClientError("no", 400, "NO", { field: "name", password: "hunter2" });
    assert.deepEqual(actionFailure(small).detail, { data: { field: "name", password: "***" } });
    const long = Object.fromEntries(
      Array.from({ length: 30 }, (_, n) => [`k${n}`, "x".repeat(300)]),
    );
    const large = new MoleculerClientError("no", 400, "NO", long);
    assert.deepEqual(actionFailure(large).detail, {});
    const leaky = actionFailure(new MoleculerError("at postgres://me:hunter2@db/x", 500));
    assert.ok(!JSON.stringify([leaky.failure, leaky.detail]).includes("hunter2"));
    assert.ok(!JSON.stringify(leaky.failure).includes("test/unit"), "no stack");
  });
});

describe("an action's answer", () => {
  it("is JSON as it would be over the wire", () => {
    const at = new Date(0);
    assert.deepEqual(plainAnswer({ at, none: undefined, n: 1 }, "a.b"), {
      at: "1970-01-01T00:00:00.000Z",
      n: 1,
    });
    assert.equal(plainAnswer(undefined, "a.b"), null);
    assert.deepEqual(plainAnswer([1, "x", null], "a.b"), [1, "x", null]);
  });

  it("that is not JSON is refused by name", () => {
    const cycle: Record<string, unknown> = {};
    cycle["self"] = cycle;
    const foreign: [unknown, RegExp][] = [
      [Readable.from(["x"]), /'a\.b' answered a stream/],
      [{ file: Readable.from(["x"]) }, /a stream at 'file'/],
      [10n, /a bigint/],
      [{ run: () => 1 }, /a function at 'run'/],
      [{ all: new Map() }, /a Map at 'all'/],
      [Buffer.from("x"), /bytes/],
      [{ raw: new Uint8Array(2) }, /bytes at 'raw'/],
      [cycle, /not JSON/],
      ["x".repeat(33_554_432), /more than 33554432 bytes/],
    ];
    for (const [value, message] of foreign) {
      assert.throws(
        () => plainAnswer(value, "a.b"),
        (error: { failure?: { kind: string; retryable: boolean; message: string } }) =>
          error.failure?.kind === "config" &&
          !error.failure.retryable &&
          message.test(error.failure.message),
        String(message),
      );
    }
  });

  it("a refused stream is ended: nobody reads it", () => {
    const stream = Readable.from(["x"]);
    assert.throws(() => plainAnswer(stream, "a.b"));
    assert.ok(stream.destroyed);
  });
});

describe("which actions a playbook may call", () => {
  it("any action of another service, and what asks about executions", () => {
    for (const action of [
      ...["users.create", "v2.users.create", "toolbox.run", "executions.start"],
      ...["executions.wait", "catalog.get"],
    ]) {
      assert.equal(refusalOf(action, []), undefined, action);
    }
  });

  it("none of the runtime's inside, whatever is allowed", () => {
    for (const action of [
      ...["$node.list", "$node.options", "executions.claim", "executions.report", "loops.deliver"],
      ...["executions.deliver", "executions.wake", "executions.release", "keys.create"],
      ...["credentials.resolve", "worker.drain", "tool.http.run", "commands.claim", "catalog.x"],
    ]) {
      for (const allow of [[], ["**"], [action]]) assert.ok(refusalOf(action, allow), action);
    }
  });

  it("with NOETL_ACTION_ALLOW only what a pattern names", () => {
    const allow = ["users.*", "v2.**"];
    const refused = ["users.a.b", "orders.get", "executions.start"].map(
      action => refusalOf(action, allow) !== undefined,
    );
    assert.deepEqual(refused, [true, true, true]);
    const allowed = ["users.create", "v2.orders.lines.get"].map(action => refusalOf(action, allow));
    assert.deepEqual(allowed, [undefined, undefined]);
  });
});

const command: ToolCommand = {
  ...{
    execution_id: "1",
    command_id: "1:s:1:1",
    step: "s",
    activation: 1,
    task: "t",
    attempt: 2,
    delivery: 3,
  },
  idempotency_key: "1:s:1:t:1",
  caller: { requested_by: "ada", request_id: "r-1", meta: { tenant_id: "acme", roles: ["a"] } },
};

describe("tool.action", () => {
  interface Seen {
    params: Record<string, unknown>;
    meta: Record<string, unknown>;
    requestID: string | null;
  }
  let broker: ServiceBroker;
  let seen: Seen[];

  beforeEach(async () => {
    seen = [];
    broker = new ServiceBroker({ logger: false, registry: { stopDelay: 0 } });
    broker.createService(actionTool({ allow: ["users.*"] }));
    broker.createService({
      name: "users",
      actions: {
        create(ctx: Context<Record<string, unknown>, Record<string, unknown>>) {
          const { params, meta, requestID } = ctx;
          seen.push(structuredClone({ params, meta, requestID }));
          // What a careless service does.
          params["name"] = "changed";
          meta["leak"] = "of the callee";
          (meta["roles"] as string[]).push("root");
          return { id: 7 };
        },
        never: () => new Promise(() => undefined),
      },
    });
    await broker.start();
  });

  afterEach(() => broker.stop());

  const run = (config: Record<string, unknown>, more: Partial<ToolRequest> = {}) =>
    callTool(broker, "action", { config, input: {}, command, ...more });

  it("sends params, the step's ids, who asked and what is carried, and the trace", async () => {
    const envelope = await run({ action: "users.create", params: { name: "Ada" } });
    assert.deepEqual(envelope, { status: "ok", data: { id: 7 }, error: null });
    assert.deepEqual(seen, [
      {
        params: { name: "Ada" },
        meta: {
          ...{ tenant_id: "acme", roles: ["a"], caller: { name: "ada" } },
          ...{ execution_id: "1", command_id: "1:s:1:1", step: "s", attempt: 2 },
          idempotency_key: "1:s:1:t:1",
        },
        requestID: "r-1",
      },
    ]);
  });

  it("lets the callee change neither the scope nor the meta of anybody", async () => {
    const params = { name: "Ada" };
    const own = structuredClone(command);
    const meta: Record<string, unknown> = {};
    await broker.call(
      "tool.action.run",
      { config: { action: "users.create", params }, input: {}, command: own },
      { meta },
    );
    assert.deepEqual([params, own, meta], [{ name: "Ada" }, command, {}]);
  });

  it("waits as long as the task says, and no longer", async () => {
    const { error } = await run({ action: "users.never", timeout: "0.05" });
    assert.deepEqual([error?.kind, error?.retryable], ["timeout", true]);
  });

  it("stops waiting when its command is cancelled", async () => {
    const controller = new AbortController();
    const request = { config: { action: "users.never" }, input: {}, command };
    const called = callTool(broker, "action", request, controller.signal);
    controller.abort();
    assert.equal((await called).error?.kind, "cancelled");
  });

  it("refuses a task that cannot be, naming the field", async () => {
    const wrong: [Record<string, unknown>, RegExp][] = [
      [{ action: "users create" }, /^action: /],
      [{ action: "orders.get" }, /'orders.get' is not for playbooks.*users\.\*/],
      [{ action: "credentials.resolve" }, /not for playbooks.*secrets/],
      [{ action: "users.create", params: [1] }, /^params: /],
      [{ action: "users.create", timeout: "soon" }, /^timeout: /],
      [{ action: "users.create", timeout: 90_000 }, /^timeout: at most 86400 seconds/],
    ];
    for (const [config, message] of wrong) {
      const { error } = await run(config);
      assert.equal(error?.kind, "config");
      assert.match(error.message, message);
    }
    assert.deepEqual(seen, []);
  });

  it("calls the node that the task names", async () => {
    const here = await run({ action: "users.create", node: broker.nodeID });
    const elsewhere = await run({ action: "users.create", node: "nowhere" });
    assert.equal(here.status, "ok");
    assert.deepEqual([elsewhere.error?.kind, elsewhere.error?.retryable], ["connection", true]);
  });
});

describe("a visit of a task", () => {
  const visits = (calls: { label: string; visit: number; attempt: number }[]) =>
    calls.map(({ label, visit, attempt }) => `${label}${visit}.${attempt}`).join(" ");

  it("stays the same for its retries, also when the target is busy", async () => {
    const rules = [rule("retry", ON_ERROR, { attempts: 5 })];
    const busy = new Busy("full", { retry_after_ms: 1 });
    const { calls } = await play([task("a", { rules })], { a: [bad(), busy, bad(), ok(1)] });
    assert.equal(visits(calls), "a1.1 a1.2 a1.2 a1.3");
  });

  it("is another one each time a jump comes back, and its retries stay with it", async () => {
    let pages = 3;
    const page = task("page", {
      rules: [
        rule("retry", ON_ERROR, { attempts: 3 }),
        rule("jump", "{{ output.data.left > 0 }}", { to: "page" }),
      ],
    });
    const { calls } = await play([task("begin"), page], {
      page: (_call, nth) => (nth === 1 ? bad() : ok({ left: --pages })),
    });
    assert.equal(visits(calls), "begin1.1 page1.1 page2.1 page2.2 page3.1");
  });
});
