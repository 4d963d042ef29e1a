/** The opening of a loop: what is iterated over, how wide, and how many failures it bears. */
import { strict as assert } from "node:assert";
import type { JsonObject, Json } from "../../schemas/json.ts";
import { Needs } from "../../schemas/decider.ts";
import { ITEMS_MAX, openLoop, WINDOW_MAX } from "../../schemas/playbook/loop-plan.ts";
import { parsePlaybook } from "../../schemas/playbook/parse.ts";
import { playbookOf } from "../support/execution-play.ts";
import { turnAt } from "../support/given.ts";

const PIN = { path: "t", version: 1, hash: "a" };

function open(loop: string, workload: JsonObject = {}, more = "") {
  const text = playbookOf(`- {step: each, loop: ${loop}, tool: {kind: noop}${more}}`);
  const playbook = parsePlaybook(text) as unknown as Json;
  const stored = new Map<string, { ref: string; bytes: number; tier: string }>();
  const loaded = new Map([["noetl://catalog/t@1#a", playbook]]);
  const context = turnAt(0, { loaded, stored });
  const scope = { execution: { id: "1", path: "t" }, workload, ctx: {}, steps: {} };
  for (;;) {
    try {
      const ids = { execution_id: "1", loop_id: "2", step: "each", playbook: PIN };
      return { ...openLoop({ ...ids, scope }, context), stored };
    } catch (error) {
      if (!(error instanceof Needs) || error.store.length === 0) throw error;
      for (const { name } of error.store) stored.set(name, { ref: name, bytes: 1, tier: "x" });
    }
  }
}
const over = (spec: string, items = '"{{ items }}"') =>
  `{in: ${items}, iterator: i, spec: {${spec}}}`;
const list = (length: number) => Array.from({ length }, (_, index) => index);

describe("the opening of a loop", () => {
  it("asks for the playbook before anything else", () => {
    const scope = { execution: { id: "1", path: "t" }, workload: {}, ctx: {}, steps: {} };
    const ids = { execution_id: "1", loop_id: "2", step: "each", playbook: PIN };
    assert.throws(() => openLoop({ ...ids, scope }, turnAt(0)), Needs);
  });

  it("keeps by reference 1,001 items, a list over 64 KB or a scope over 16 KB", () => {
    const keys = (items: Json, other = "") =>
      Object.keys(
        open(over("mode: parallel"), { items, other }, ', input: {o: "{{ other }}"}').kept,
      );
    assert.deepEqual(keys(list(1_000)), ["scope", "collection"]);
    assert.deepEqual(keys(list(1_001)), ["scope", "collection_ref"]);
    assert.deepEqual(keys(["x".repeat(66_000)]), ["scope_ref", "collection_ref"]);
    assert.deepEqual(keys([1], "x".repeat(20_000)), ["scope_ref", "collection"]);
  });

  it("stores under names of its own loop", () => {
    const { stored } = open(over("mode: parallel"), { items: list(2_000) });
    assert.deepEqual(
      [...stored.keys()],
      ["1/loop/2/collection/0", "1/loop/2/collection/1000", "1/loop/2/collection"],
    );
  });

  it("tolerates the larger of count and percent, without losing one to rounding", () => {
    const tolerance = (spec: string, size: number) =>
      open(over(`mode: parallel, ${spec}`), { items: list(size) }).plan.tolerance;
    assert.equal(tolerance("tolerated_failure_percent: 29", 100), 29);
    assert.equal(tolerance("tolerated_failure_percent: 57", 100), 57);
    assert.equal(tolerance("tolerated_failure_percent: 10", 19), 1);
    assert.equal(tolerance("tolerated_failure_count: 3, tolerated_failure_percent: 10", 19), 3);
    assert.equal(tolerance("max_in_flight: 1", 19), 0);
  });

  it("is as wide as it says, at most, and says so when it cannot be", () => {
    const templated = over('mode: parallel, max_in_flight: "{{ n }}"');
    assert.equal(open(templated, { items: [1], n: 10 ** 9 }).plan.window, WINDOW_MAX);
    assert.match(open(templated, { items: [1], n: "x" }).error?.message ?? "", /gave "x"/);
    assert.match(open(templated, { items: [1] }).error?.message ?? "", /gave null/);
  });

  it("refuses more items than a loop may have, before they are made", () => {
    for (const items of [ITEMS_MAX + 1, 10 ** 12]) {
      const { error, plan } = open(over("mode: parallel"), { items });
      assert.match(error?.message ?? "", /expected at most 1000000/);
      assert.equal(plan.size, 0);
    }
    assert.equal(open(over("mode: parallel"), { items: ITEMS_MAX }).plan.size, ITEMS_MAX);
  });

  it("reads braces in a program as text: code is never a template", () => {
    assert.deepEqual(workloadFor("x = f'{{ not a template'"), {});
  });

  it("gives a program every variable where it mentions context", () => {
    assert.deepEqual(workloadFor("x = context['a']"), { a: 1 });
  });

  /** What of a workload goes with the commands of a loop over this program. */
  function workloadFor(program: string): JsonObject {
    const code = `
- step: each
  loop: {in: [1], iterator: i}
  tool: {kind: python, code: "${program}"}`;
    const loaded = new Map([
      ["noetl://catalog/t@1#a", parsePlaybook(playbookOf(code)) as unknown as Json],
    ]);
    const scope = { execution: { id: "1", path: "t" }, workload: { a: 1 }, ctx: {}, steps: {} };
    const ids = { execution_id: "1", loop_id: "2", step: "each", playbook: PIN };
    return openLoop({ ...ids, scope }, turnAt(0, { loaded })).scope.workload;
  }
});
