/** How a pipeline meets failures: busy tools, refusals, bad expressions, empty fields. */
import { strict as assert } from "node:assert";
import { Busy, Rejected, Unavailable } from "../../schemas/errors.ts";
import type { Rule, Task } from "../../schemas/playbook/model.ts";
import { firstRule } from "../../schemas/playbook/policy.ts";
import { createScope } from "../../schemas/playbook/scope.ts";
import { ON_ERROR, bad, ok, partsOf, play, rule, task } from "../support/pipeline-play.ts";

describe("pipeline failures", () => {
  it("waits out Busy without burning an attempt", async () => {
    const { calls, sleeps, outcome } = await play([task("a")], {
      a: [
        new Busy("full", { retry_after_ms: 700 }),
        new Busy("full", { retry_after_ms: 0 }),
        ok(1),
      ],
    });
    assert.deepEqual(
      calls.map(call => call.attempt),
      [1, 1, 1],
    );
    assert.deepEqual(sleeps, [700, 50]);
    assert.deepEqual([outcome.status, outcome.retries, outcome.task_runs], ["ok", 0, 1]);
  });

  it("a refusal is a config failure that rules see, an outage is thrown", async () => {
    const rules = [rule("continue", "{{ output.error.kind == 'config' }}")];
    const refused = await play([task("a", { rules })], {
      a: [new Rejected("no credential 'x'", 404)],
    });
    assert.equal(refused.outcome.status, "ok");
    await assert.rejects(play([task("a")], { a: [new Unavailable("gone")] }), {
      type: "UNAVAILABLE",
    });
  });

  it("a config that cannot be rendered fails by logic, through the rules", async () => {
    const broken = { kind: "http" as const, config: { url: "/{{ 1 + 'a' }}" } };
    const { outcome, calls } = await play([task("a", broken)], {});
    assert.equal(calls.length, 0);
    assert.deepEqual(
      [outcome.error?.kind, outcome.error?.retryable, outcome.failed_task],
      ["logic", false, "a"],
    );
    assert.match(outcome.error?.message ?? "", /cannot add .* \{\{ 1 \+ 'a' \}\}/);
    const handled = await play([task("a", { ...broken, rules: [rule("continue", ON_ERROR)] })], {});
    assert.equal(handled.outcome.status, "ok");
  });

  it("a rule, set or delay that cannot be evaluated fails the pipeline by logic", async () => {
    const tables: Partial<Task>[] = [
      { rules: [rule("continue", "{{ 1 + 'a' }}"), rule("continue")] },
      { rules: [rule("continue", undefined, { set: { "ctx.a": "{{ 1 / 0 }}" } })] },
      { rules: [rule("retry", true, { backoff: "fixed", delay: "{{ 'x' }}" })] },
      { set: { a: "{{ output.x + 1 }}" } },
    ];
    for (const table of tables) {
      const { outcome } = await play([task("a", table)], { a: () => ok({}) });
      assert.deepEqual(
        [outcome.status, outcome.error?.kind, outcome.failed_task],
        ["error", "logic", "a"],
      );
    }
  });

  it("a required field that comes out empty is a config failure naming the template", async () => {
    const url = await play([task("a", { kind: "http", config: { url: "{{ nowhere }}" } })], {});
    assert.equal(url.calls.length, 0);
    assert.equal(url.outcome.error?.kind, "config");
    assert.equal(url.outcome.error?.message, "url is empty: template {{ nowhere }} gave nothing");
    const query = await play(
      [task("a", { kind: "postgres", config: { query: "{% if no %}select 1{% endif %}" } })],
      {},
    );
    assert.match(query.outcome.error?.message ?? "", /^query is empty/);
    const path = await play([task("a", { kind: "playbook", config: {} })], {});
    assert.equal(path.outcome.error?.message, "path is missing");
  });

  it("a result with status error is data, and an http failure keeps its http object", async () => {
    const data = await play([task("a")], { a: [ok({ status: "error" })] }, { pipeline: false });
    assert.deepEqual([data.outcome.status, data.outcome.result], ["ok", { status: "error" }]);
    const http = { status_code: 500, body: "no", data: "no" };
    const answer = bad({}, { data: http, http: { status: 500, headers: {} } });
    const rules = [
      rule("continue", "{{ output.http.status == 500 and output.data.status_code == 500 }}"),
    ];
    const failed = await play([task("a", { rules })], { a: [answer] }, { pipeline: false });
    assert.equal(failed.outcome.status, "ok");
    assert.deepEqual(failed.outcome.result, http);
    assert.deepEqual(failed.outcome.envelope, { http: { status: 500, headers: {} } });
  });

  it("picks the first rule by reference and nothing when none holds", () => {
    const scope = createScope(partsOf({ output: { status: "ok", data: null, error: null } }));
    const rules = [rule("fail", ON_ERROR), rule("continue", "output.status == 'ok'")];
    assert.equal(firstRule(rules, scope), rules[1]);
    assert.equal(firstRule([rules[0] as Rule], scope), undefined);
  });
});
