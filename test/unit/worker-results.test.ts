// A result that no tier takes fails its step, or its item, and is not tried again for ever.
import { strict as assert } from "node:assert";
import { ServiceBroker } from "moleculer";
import type { Runtime } from "../../mixins/runtime.ts";
import { Rejected, Unavailable } from "../../schemas/errors.ts";
import type { Grant } from "../../schemas/frozen-scope.ts";
import type { Json } from "../../schemas/json.ts";
import { parsePlaybook } from "../../schemas/playbook/parse.ts";
import type { ToldFrame } from "../../services/worker/batch.ts";
import { runFrame } from "../../services/worker/frame.ts";
import { openCommand, runCommand } from "../../services/worker/run.ts";
import { noopTool } from "../../services/tool.noop/tool.noop.service.ts";

const PLAYBOOK = `
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: large}
workload: {big: [], text: ""}
workflow:
  - step: one
    tool: {kind: noop, result: "{{ big }}"}
  - step: writes
    tool:
      kind: noop
      result: 1
      spec: {policy: {rules: [{else: {then: {do: continue, set: {ctx.copy: "{{ big }}"}}}}]}}
  - step: each
    loop: {in: [0, 1, 2], iterator: n}
    tool: {kind: noop, result: "{{ text if n == 1 else n }}"}
`;

describe("a result that is too large", () => {
  const broker = new ServiceBroker({ logger: false, registry: { stopDelay: 0 } });
  before(async () => {
    broker.createService(noopTool());
    await broker.start();
  });
  after(() => broker.stop());

  async function open(step: string, workload: Record<string, Json>, more: Partial<Grant> = {}) {
    const grant = {
      ...{ command_id: "c", execution_id: "1", stream_id: "1", step, activation: 1 },
      ...{ attempt: 1, delivery: 1, playbook: { path: "large", version: 1, hash: "0" } },
      scope: { execution: { id: "1", path: "large" }, workload, ctx: {}, steps: {} },
      ...more,
    } as Grant;
    const put = () => Promise.reject(new Rejected("the tier takes 128 MB", 413));
    const load = () => Promise.resolve(parsePlaybook(PLAYBOOK) as unknown as Json);
    const runtime = { values: { load }, results: { put } } as unknown as Runtime;
    const options = {
      signal: new AbortController().signal,
      suspended: <T>(wait: Promise<T>) => wait,
      waiting: <T>(wait: Promise<T>) => wait,
      turns: { begin: () => undefined, pass: () => undefined },
    };
    return openCommand(runtime, broker, grant, options);
  }

  const big = Array.from({ length: 3_000 }, (_, id) => ({ id }));

  for (const [step, what] of [
    ["one", "a result"],
    ["writes", "a variable"],
  ] as const) {
    it(`fails the step that gives ${what} no tier takes`, async () => {
      const { result, ctx } = await runCommand(await open(step, { big, text: "" }));
      assert.deepEqual([result.status, result.error?.code], ["error", "RESULT_TOO_LARGE"]);
      assert.equal(result.error?.message, "the tier takes 128 MB");
      assert.equal(ctx, undefined);
    });
  }

  it("but a tier that is away is waited for, and named when the work ends", async () => {
    const command = await open("one", { big, text: "" });
    const controller = new AbortController();
    command.options.signal = controller.signal;
    command.runtime.results.put = () => {
      controller.abort();
      return Promise.reject(new Unavailable("away"));
    };
    await assert.rejects(runCommand(command), /away/);
  });

  it("fails its item of a frame, and none of the others", async () => {
    const text = "x".repeat(33 * 1024 * 1024);
    const iteration = { iterator: "n", index: 0, total: 3, loop_id: "1" };
    const frame = {
      ...{ first: 0, count: 3, left: "0-2", values: [0, 1, 2], tolerance: 1, sequential: false },
    };
    const command = await open("each", { big: [], text }, { iteration, frame });
    const reports: ToldFrame[] = [];
    await runFrame(command, async report => reports.push(report) > 0);
    const { ok, failed, final } = reports.at(-1)!.frame;
    assert.deepEqual({ ok, failed, final }, { ok: "0,2", failed: "1", final: true });
    assert.equal(reports.at(-1)!.result.error?.code, "RESULT_TOO_LARGE");
  });
});
