// The playbook tool over servers that are killed, frozen or not there yet: its child does not mind.
import { strict as assert } from "node:assert";
import { Errors, ServiceBroker } from "moleculer";
import { createClock } from "../../mixins/clock.ts";
import { createLocalDoorbell } from "../../mixins/notifications.ts";
import type { Runtime } from "../../mixins/runtime.ts";
import { callTool } from "../../mixins/tool.ts";
import { Rejected, Unavailable } from "../../schemas/errors.ts";
import playbookTool from "../../services/tool.playbook/tool.playbook.service.ts";
import { until } from "../support/actors.ts";
import { TOOL_COMMAND } from "../support/tool-command.ts";

const GONE = { action: "executions.start", nodeID: "server-1" };
/** What a caller hears of a server that is killed, frozen, away, or without its database. */
const LOST = [
  new Errors.RequestRejectedError(GONE),
  new Errors.RequestTimeoutError(GONE),
  new Errors.ServiceNotAvailableError(GONE),
  new Unavailable("the database is away"),
];
const CHILD = { execution_id: "7", path: "test/child", status: "COMPLETED" };

describe("the playbook tool", () => {
  let broker: ServiceBroker;
  let asked: string[];
  /** What the next questions meet, before they are answered. */
  let losses: (Error | "silence")[];
  let lost: AbortController;
  let isThere: boolean;

  beforeEach(async () => {
    asked = [];
    losses = [];
    lost = new AbortController();
    isThere = true;
    const answer = (name: string, value: object) => () => {
      asked.push(name);
      const loss = losses.shift();
      if (loss === "silence") return new Promise(() => undefined);
      if (loss) throw loss;
      return value;
    };
    broker = new ServiceBroker({ logger: false, registry: { stopDelay: 0 } });
    broker.createService({
      name: "executions",
      actions: {
        start: answer("start", CHILD),
        wait: answer("wait", CHILD),
        result: answer("result", { found: true, value: { n: 42 } }),
      },
    });
    const runtime = {
      settings: { http: {} },
      doorbell: { ...createLocalDoorbell(), lost: () => lost.signal, connected: () => isThere },
      clock: createClock(),
    };
    broker.createService(playbookTool(runtime as unknown as Runtime));
    await broker.start();
  });
  afterEach(() => broker.stop());

  const run = (config: object = {}) => {
    const task = { path: "test/child", return_step: "end", ...config };
    return callTool(broker, "playbook", { config: task, input: {}, command: TOOL_COMMAND });
  };

  for (const [place, question] of ["start", "wait", "result"].entries()) {
    it(`asks another server when the one it asked to ${question} is lost`, async () => {
      // The questions before this one are answered.
      losses = [...Array.from({ length: place }), ...LOST] as Error[];
      const { status, data } = await run();
      assert.equal(status, "ok");
      assert.equal((data as { n: number }).n, 42);
      assert.equal(asked.filter(name => name === question).length, LOST.length + 1);
    });
  }

  it("asks again at once when the connection is lost over which it waits", async () => {
    losses = [undefined, "silence"] as never;
    const running = run();
    await until(() => asked.length === 2);
    lost.abort();
    lost = new AbortController();
    assert.equal((await running).status, "ok");
    assert.deepEqual(asked, ["start", "wait", "wait", "result"]);
  });

  it("asks again soon what it asked while there was no connection", async () => {
    losses = [undefined, "silence"] as never;
    isThere = false;
    assert.equal((await run()).status, "ok");
    assert.deepEqual(asked, ["start", "wait", "wait", "result"]);
  });

  it("gives up when the servers are away for longer than it may take", async () => {
    losses = Array.from({ length: 1_000 }, () => new Unavailable("the database is away"));
    const answered = run({ timeout: 0.3 });
    await assert.rejects(answered, { type: "UNAVAILABLE" });
  });

  it("fails at once for a playbook that is not there", async () => {
    losses = [new Rejected("no playbook test/child", 404)];
    const { error } = await run();
    assert.deepEqual([error?.kind, asked.length], ["config", 1]);
  });
});
