// Actions of another node: what a wire does to answers, errors and messages that are too large.
import { strict as assert } from "node:assert";
import { Readable } from "node:stream";
import { Errors, ServiceBroker } from "moleculer";
import type { BrokerOptions, Context } from "moleculer";
import { callTool } from "../../mixins/tool.ts";
import { actionTool } from "../../services/tool.action/tool.action.service.ts";
import { until } from "../support/actors.ts";
import { natsServerBinary, startNats, type TestNats } from "../support/nats.ts";

const command = {
  ...{
    execution_id: "1",
    command_id: "1:s:1:1",
    step: "s",
    activation: 1,
    task: "t",
    attempt: 1,
    delivery: 1,
  },
  idempotency_key: "1:s:1:t:1",
};

describe("actions of another node", function () {
  this.timeout(30_000);
  let nats: TestNats;
  let worker: ServiceBroker;
  let app: ServiceBroker;
  let held = 0;

  const brokerOptions = (nodeID: string): BrokerOptions => ({
    ...{ logger: false, nodeID, skipProcessEventRegistration: true },
    transporter: { type: "NATS", options: { servers: [nats.url] } },
  });

  before(async function () {
    const binary = natsServerBinary();
    if (binary === undefined) {
      process.stdout.write("      skipped: no nats-server\n");
      return this.skip();
    }
    nats = await startNats(binary);
    worker = new ServiceBroker(brokerOptions("worker"));
    worker.createService(actionTool());
    app = new ServiceBroker(brokerOptions("app"));
    app.createService({
      name: "users",
      actions: {
        echo: (ctx: Context<object, object>) => ({ params: ctx.params, meta: ctx.meta }),
        large: () => "x".repeat(2_000_000),
        stream: () => Readable.from(["a"]),
        refuses: { params: { name: "string" }, handler: () => null },
        fails() {
          throw new Errors.MoleculerClientError("taken", 409, "NAME_TAKEN", { name: "Ada" });
        },
        breaks() {
          throw new TypeError("a bug");
        },
        held: () => (held++, new Promise(() => undefined)),
      },
    });
    await Promise.all([worker.start(), app.start()]);
    await worker.waitForServices("users", 10_000, 20);
  });

  after(async () => {
    await worker?.stop();
    await app?.stop();
    await nats?.stop();
  });

  const run = (config: Record<string, unknown>) =>
    callTool(worker, "action", { config: { timeout: 5, ...config }, input: {}, command });

  it("get params and meta as they are, and answer JSON", async () => {
    const { data } = await run({ action: "users.echo", params: { list: [1, null], text: "ä" } });
    const { params, meta } = data as { params: object; meta: Record<string, unknown> };
    assert.deepEqual(params, { list: [1, null], text: "ä" });
    assert.equal(meta["idempotency_key"], "1:s:1:t:1");
    assert.equal((await run({ action: "users.echo", node: "app" })).status, "ok");
  });

  it("fail with type, code, message and data, as classes do not cross the wire", async () => {
    const failed = async (action: string, params = {}) => {
      const { error, data } = await run({ action, params });
      const { kind, retryable, code, message } = error ?? {};
      return [kind, retryable, code, message, data];
    };
    assert.deepEqual(await failed("users.fails"), [
      ...["client_error", false, "NAME_TAKEN", "taken"],
      { name: "Ada" },
    ]);
    assert.deepEqual(await failed("users.breaks"), [
      ...["server_error", true, "ACTION_500", "a bug", null],
    ]);
    const [kind, retryable, code] = await failed("users.refuses");
    assert.deepEqual([kind, retryable, code], ["client_error", false, "VALIDATION_ERROR"]);
  });

  it("with a stream, or more than NATS carries, are the playbook's fault", async () => {
    const wrong: [object, RegExp][] = [
      [{ action: "users.stream" }, /'users.stream' answered a stream/],
      [{ action: "users.large" }, /larger than the transporter carries/],
      [{ action: "users.echo", params: { x: "x".repeat(1_200_000) } }, /larger than/],
    ];
    for (const [config, message] of wrong) {
      const { error } = await run({ ...config });
      assert.deepEqual([error?.kind, error?.retryable], ["config", false]);
      assert.match(error?.message ?? "", message);
    }
  });

  it("whose node leaves in the middle are away, not slow", async () => {
    const called = run({ action: "users.held", timeout: 20 });
    await until(() => held === 1);
    await app.stop();
    const { error } = await called;
    assert.deepEqual(
      [error?.kind, error?.retryable, error?.code],
      [...["connection", true, "REQUEST_REJECTED"]],
    );
  });
});
