/** The program counter of a step's tasks: order, rules, retries, jumps and sets. */
import { strict as assert } from "node:assert";
import type { Json } from "../../schemas/json.ts";
import type { Rule, Task } from "../../schemas/playbook/model.ts";
import { MAX_BACKOFF_MS, backoffDelayMs } from "../../schemas/playbook/policy.ts";
import { createScope } from "../../schemas/playbook/scope.ts";
import { dataOf } from "../../schemas/playbook/stored-result.ts";
import { runPipeline } from "../../services/worker/pipeline.ts";
import type { PipelinePorts } from "../../services/worker/pipeline.ts";
import { ON_ERROR, bad, labels, ok, partsOf, play, rule, task } from "../support/pipeline-play.ts";

describe("pipeline", () => {
  it("runs tasks in order, each seeing the labels, _prev and output of those before", async () => {
    const second = task("put", {
      kind: "postgres",
      config: {
        query:
          "{{ get.id }} {{ get.data.id }} {{ results.get.id }} {{ _prev.id }} " +
          "{{ output.data.id }} {{ _task }}",
      },
    });
    const { outcome, calls } = await play([task("get"), second], {
      get: [ok({ id: 5, a: 1 })],
      put: [ok({ rows: [], a: 2 })],
    });
    assert.equal(calls[1]?.request.config["query"], "5 5 5 5 5 put");
    assert.deepEqual(outcome.result, {
      id: 5,
      a: 2,
      rows: [],
      get: { id: 5, a: 1 },
      put: { rows: [], a: 2 },
      results: { get: { id: 5, a: 1 }, put: { rows: [], a: 2 } },
      _prev: { rows: [], a: 2 },
      status: "ok",
    });
    assert.deepEqual(
      [outcome.status, outcome.broke, outcome.task_runs, outcome.retries],
      ["ok", false, 2, 0],
    );
  });

  it("gives a single tool's own result, whatever its type", async () => {
    for (const data of [{ rows: [1] }, [1, 2], 42, "text", null]) {
      const { outcome } = await play([task("t")], { t: [ok(data)] }, { pipeline: false });
      assert.deepEqual(outcome.result, data);
    }
  });

  it("fails on an error no rule matches, naming the task, with the results so far", async () => {
    const { outcome, calls } = await play([task("a"), task("b"), task("c")], {
      a: [ok({ x: 1 })],
      b: [bad()],
    });
    assert.equal(labels(calls), "a b");
    assert.equal(outcome.status, "error");
    assert.equal(outcome.failed_task, "b");
    assert.equal(outcome.error?.code, "HTTP_503");
    assert.equal((outcome.result as { a: { x: number } }).a.x, 1);
    assert.equal((outcome.result as { status: string }).status, "error");
  });

  it("takes the first rule that holds; a rule without when is else", async () => {
    const rules = [rule("fail", "{{ output.data.n > 1 }}"), rule("break", true), rule("fail")];
    const { outcome } = await play([task("a", { rules }), task("b")], { a: [ok({ n: 1 })] });
    assert.deepEqual([outcome.status, outcome.broke], ["ok", true]);
    assert.equal((outcome.result as { status: string }).status, "break");
  });

  it("continue after an error leaves results and _prev as they were", async () => {
    const tasks = [task("a"), task("b", { rules: [rule("continue", ON_ERROR)] }), task("c")];
    const { outcome } = await play(tasks, { a: [ok({ n: 1 })], b: [bad()], c: [ok({ m: 2 })] });
    assert.deepEqual(outcome.result, {
      n: 1,
      m: 2,
      a: { n: 1 },
      c: { m: 2 },
      results: { a: { n: 1 }, c: { m: 2 } },
      _prev: { m: 2 },
      status: "ok",
    });
  });

  it("a rule may fail a task that succeeded", async () => {
    const { outcome } = await play(
      [task("a", { rules: [rule("fail", "{{ output.data.bad }}")] })],
      { a: [ok({ bad: true })] },
    );
    assert.deepEqual(
      [outcome.status, outcome.failed_task, outcome.error?.kind],
      ["error", "a", "logic"],
    );
  });

  it("retries up to the total of attempts, then fails with the last error", async () => {
    const rules = [
      rule("retry", "{{ output.error.retryable }}", {
        attempts: 3,
        backoff: "exponential",
        delay: 0.5,
      }),
    ];
    const { outcome, calls, sleeps } = await play([task("a", { rules })], { a: () => bad() });
    assert.deepEqual(
      calls.map(call => call.attempt),
      [1, 2, 3],
    );
    assert.deepEqual(sleeps, [500, 1000]);
    assert.deepEqual(
      [outcome.status, outcome.retries, outcome.task_runs, outcome.error?.code],
      ["error", 2, 3, "HTTP_503"],
    );
  });

  it("retries on success too, and fails by logic when it never holds", async () => {
    const rules = [rule("retry", "{{ not output.data.ready }}", { attempts: 2 })];
    const { outcome } = await play([task("a", { rules })], { a: () => ok({ ready: false }) });
    assert.deepEqual([outcome.error?.kind, outcome.error?.code], ["logic", "ATTEMPTS_EXHAUSTED"]);
  });

  it("counts retries anew when a task ended with anything else", async () => {
    const drain = task("drain", {
      rules: [
        rule("retry", ON_ERROR, { attempts: 2 }),
        rule("jump", "{{ output.data.left > 0 }}", { to: "drain" }),
      ],
    });
    let left = 6;
    const { outcome } = await play([drain], {
      drain: (_call, nth) => (nth % 2 === 0 ? bad() : ok({ left: --left })),
    });
    assert.deepEqual([outcome.status, outcome.retries, outcome.task_runs], ["ok", 6, 12]);
  });

  it("waits none, fixed, linear or exponential, and at most an hour", () => {
    const scope = createScope(partsOf({ ctx: { d: 2 } }));
    const delays = (backoff: Rule["backoff"], delay: number | string) =>
      [1, 2, 3].map(count => backoffDelayMs(rule("retry", true, { backoff, delay }), count, scope));
    assert.deepEqual(delays("none", 5), [0, 0, 0]);
    assert.deepEqual(delays("fixed", 1.5), [1500, 1500, 1500]);
    assert.deepEqual(delays("linear", 1), [1000, 2000, 3000]);
    assert.deepEqual(delays("exponential", 0.5), [500, 1000, 2000]);
    assert.deepEqual(delays("fixed", "{{ ctx.d }}"), [2000, 2000, 2000]);
    assert.equal(
      backoffDelayMs(rule("retry", true, { backoff: "exponential" }), 60, scope),
      MAX_BACKOFF_MS,
    );
    assert.throws(() => delays("fixed", "{{ ctx.none }}"), { type: "TEMPLATE" });
  });

  it("lets Retry-After win over a shorter delay and not over a longer one", async () => {
    const rules = [rule("retry", ON_ERROR, { attempts: 3, backoff: "fixed", delay: 2 })];
    const limited = [bad({ retry_after_ms: 5000 }), bad({ retry_after_ms: 100 }), ok(1)];
    const { sleeps } = await play([task("a", { rules })], { a: limited });
    assert.deepEqual(sleeps, [5000, 2000]);
  });

  it("jumps to a label and to the previous task", async () => {
    const tasks = [
      task("a"),
      task("b", {
        rules: [
          rule("jump", "{{ output.data.n == 1 }}", { to: "previous" }),
          rule("jump", "{{ output.data.n == 2 }}", { to: "d" }),
        ],
      }),
      task("c"),
      task("d"),
    ];
    const { calls, outcome } = await play(tasks, { b: (_call, nth) => ok({ n: nth + 1 }) });
    assert.equal(labels(calls), "a b a b d");
    assert.equal(outcome.status, "ok");
    const lost = await play([task("a", { rules: [rule("jump", true, { to: "nowhere" })] })], {});
    assert.equal(lost.outcome.error?.code, "UNKNOWN_LABEL");
    const first = await play([task("a", { rules: [rule("jump", true, { to: "previous" })] })], {});
    assert.equal(first.outcome.error?.code, "UNKNOWN_LABEL");
  });

  it("applies a rule's set at once and together, before its action", async () => {
    const page = task("get", {
      kind: "http",
      config: { url: "/{{ iter.page | default(1) }}" },
      rules: [
        rule("jump", "{{ output.data.more }}", {
          to: "get",
          set: {
            "iter.page": "{{ (iter.page | d(1)) + 1 }}",
            "iter.before": "{{ iter.page | d(1) }}",
            "ctx.sum": "{{ (ctx.sum | d(0)) + output.data.n }}",
          },
        }),
        rule("continue", undefined, {
          set: { "ctx.attempt": "{{ _attempt }}", seen: "{{ ctx.sum }}" },
        }),
      ],
    });
    const { calls, outcome, parts } = await play([page], {
      get: (_call, nth) => ok({ more: nth < 2, n: 10 }),
    });
    assert.deepEqual(
      calls.map(call => call.request.config["url"]),
      ["/1", "/2", "/3"],
    );
    assert.deepEqual(outcome.iter, { page: 3, before: 2 });
    assert.deepEqual(outcome.ctx, { sum: 20, attempt: 1 });
    assert.equal((outcome.result as { seen: number }).seen, 20);
    assert.deepEqual(parts.ctx, { sum: 20, attempt: 1 });
  });

  it("keeps iter of an iteration in the iteration", async () => {
    const parts = partsOf({
      iteration: { iterator: "item", value: { id: 9 }, index: 0, total: 1, vars: {} },
    });
    const first = task("a", {
      rules: [rule("continue", undefined, { set: { "iter.x": "{{ item.id }}" } })],
    });
    const { outcome } = await play([first], {}, { parts });
    assert.deepEqual(parts.iteration?.vars, { x: 9 });
    assert.deepEqual(outcome.iter, { x: 9 });
  });

  it("a task's set sees its result as output and names things for later tasks", async () => {
    const tasks = [
      task("a", {
        set: { id: "{{ output.id }}", same: "{{ output.data.id }}", "ctx.k": "{{ output.id }}" },
      }),
      task("b", { kind: "http", config: { url: "/{{ id }}/{{ ctx.k }}/{{ output.status }}" } }),
    ];
    const { calls, outcome } = await play(tasks, { a: [ok({ id: 3 })] });
    assert.equal(calls[1]?.request.config["url"], "/3/3/ok");
    assert.equal((outcome.result as { same: number }).same, 3);
    const single = await play([tasks[0] as Task], { a: [ok({ id: 3 })] }, { pipeline: false });
    assert.deepEqual(single.outcome.result, { id: 3, same: 3 });
    const failing = await play([tasks[0] as Task], { a: [bad()] });
    assert.deepEqual(failing.outcome.ctx, {});
  });

  it("merges step input under task input", async () => {
    const first = task("a", {
      kind: "http",
      input: { y: "{{ start.y }}" },
      config: { url: "/{{ x }}{{ y }}" },
      rules: [rule("continue", "{{ w.ok }}")],
    });
    const parts = partsOf({ steps: { start: { x: 1, y: 2 } } });
    const { calls } = await play([first], {}, { parts, input: { x: "{{ start.x }}", y: "no" } });
    assert.equal(calls[0]?.request.config["url"], "/12");
    assert.deepEqual(calls[0]?.request.input, { x: 1, y: 2 });
  });

  it("loads what is kept elsewhere when a template meets it, whichever that is", async () => {
    const loaded = new Map<string, Json>();
    const big = dataOf({ status: "ok", reference: { ref: "r:big", bytes: 9, tier: "t" } }, loaded);
    const loop = { ref: "r:loop", bytes: 0, tier: "log", extract: { stats: { total: 2_500 } } };
    const parts = partsOf({
      steps: { big, each: dataOf({ status: "ok", reference: loop }, loaded) },
    });
    const items = (first: number) => Array.from({ length: 1_000 }, (_, at) => ({ n: first + at }));
    const kept = new Map<string, Json>([
      ["r:big", { at: 2_017 }],
      ["r:loop/1", items(1_000)],
      ["r:loop/2", items(2_000)],
    ]);
    const first = task("a", {
      kind: "http",
      config: { url: "/{{ each.results | length }}/{{ each.results[big.at].n }}" },
      set: { "ctx.seen": "{{ each.data[-1500].n }}" },
      rules: [rule("fail", "{{ each.results[1001].n != 1001 }}"), rule("continue", "true")],
    });
    const { calls, asked, outcome } = await play([first], {}, { parts, kept, loaded });
    assert.equal(calls[0]?.request.config["url"], "/2500/2017");
    assert.deepEqual([outcome.status, outcome.ctx], ["ok", { seen: 1_000 }]);
    assert.deepEqual(
      asked,
      ["r:big", "r:loop/2", "r:loop/1"],
      "each once, and no more of the loop",
    );
  });

  it("fails the task, typed, when what a template asks for is lost", async () => {
    const reference = { ref: "r:gone", bytes: 9, tier: "t" };
    const steps = { gone: dataOf({ status: "ok", reference }, new Map()) };
    for (const more of [
      { config: { url: "{{ gone.x }}" } },
      { rules: [rule("continue", "{{ gone.x }}")] },
      { set: { "ctx.x": "{{ gone.x }}" } },
    ]) {
      const { outcome } = await play([task("a", more)], {}, { parts: partsOf({ steps }) });
      assert.deepEqual([outcome.status, outcome.error?.kind], ["error", "missing_reference"]);
    }
  });

  it("jumps twenty thousand rounds without keeping anything of them", async () => {
    const rounds = 20_000;
    const drain = task("drain", {
      input: { at: "{{ iter.at | d(0) }}" },
      rules: [
        rule("jump", "{{ output.data.n < 19999 }}", {
          to: "drain",
          set: { "iter.at": "{{ output.data.n }}", "ctx.last": "{{ output.data.blob }}" },
        }),
      ],
    });
    let calls = 0;
    let turns = 0;
    const ports: PipelinePorts = {
      call: () => Promise.resolve(ok({ n: calls++, blob: "x".repeat(1000) + calls })),
      sleep: () => Promise.resolve(void turns++),
      now: () => 0,
      load: () => Promise.resolve(),
    };
    const parts = partsOf();
    const before = process.memoryUsage().heapUsed;
    const outcome = await runPipeline(
      { name: "s", tasks: [drain], pipeline: true, input: {} },
      parts,
      ports,
    );
    assert.equal(outcome.task_runs, rounds);
    assert.equal(turns, rounds / 100);
    assert.ok(process.memoryUsage().heapUsed - before < 64 * 1024 * 1024);
    assert.deepEqual(Object.keys(parts.ctx), ["last"]);
  }).timeout(10_000);
});
