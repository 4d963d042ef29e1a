/** What a loop over a cursor may say: refused when it is read, or when it is opened. */
import { strict as assert } from "node:assert";
import type { Json, JsonObject } from "../../schemas/json.ts";
import { mayFail } from "../../schemas/playbook/cursor-plan.ts";
import { openLoop, WINDOW_DEFAULT } from "../../schemas/playbook/loop-plan.ts";
import { parsePlaybook, readPlaybook } from "../../schemas/playbook/parse.ts";
import { playbookOf } from "../support/execution-play.ts";
import { turnAt } from "../support/given.ts";

const CURSOR = 'kind: postgres, claim: "update q limit {{ __frame_max_rows }}"';

function loopOf(spec: string, { cursor = CURSOR, more = "" } = {}): string {
  const loop = `{iterator: row, cursor: {${cursor}}, spec: {mode: cursor, ${spec}}}`;
  return playbookOf(`- {step: each, loop: ${loop}, tool: {kind: noop}${more}}`);
}

function open(text: string, workload: JsonObject = {}) {
  const loaded = new Map([["noetl://catalog/t@1#a", parsePlaybook(text) as unknown as Json]]);
  const ids = { execution_id: "1", loop_id: "2", step: "each" };
  const playbook = { path: "t", version: 1, hash: "a" };
  const scope = { execution: { id: "1", path: "t" }, workload, ctx: {}, steps: {} };
  return openLoop({ ...ids, playbook, scope }, turnAt(0, { loaded }));
}

/** What reading it says, with the field. */
function said(text: string): string {
  try {
    readPlaybook(text);
    return "";
  } catch (error) {
    return (error as Error).message;
  }
}

describe("the opening of a loop over a cursor", () => {
  it("has the defaults of the language, and nothing of a collection", () => {
    const { plan, items, kept } = open(loopOf(""));
    assert.deepEqual(plan, {
      ...{ size: 0, window: WINDOW_DEFAULT, tolerance: Number.MAX_SAFE_INTEGER },
      ...{ mode: "cursor", iterator: "row", kind: "postgres" },
      cursor: {
        ...{ max_rows: 1, max_seconds: 30, max_bytes: 67_108_864 },
        ...{ lease_seconds: 120, heartbeat_seconds: 30, row_concurrency: 1 },
        ...{ process: "row", retry_mode: "whole_frame", max_attempts: 3, max_iterations: 100_000 },
      },
    });
    assert.equal(items, undefined);
    assert.deepEqual(Object.keys(kept), ["scope"]);
  });

  it("takes numbers and templates that give numbers, also as text", () => {
    const frame = 'max_rows: "{{ rows }}", lease_seconds: "{{ lease }}", heartbeat_seconds: 0.5';
    const cursor = `${CURSOR}, options: {max_iterations: "{{ most }}", pool_size: 4}`;
    const text = loopOf(`max_in_flight: "{{ slots }}", frame: {${frame}}`, { cursor });
    const { plan } = open(text, { rows: 50, lease: "9", most: 7, slots: "3" });
    const { max_rows, lease_seconds, heartbeat_seconds, max_iterations } = plan.cursor!;
    assert.deepEqual([plan.window, max_rows, lease_seconds], [3, 50, 9]);
    assert.deepEqual([heartbeat_seconds, max_iterations], [0.5, 7]);
  });

  it("keeps of the scope what the claim reads, for the worker that renders it", () => {
    const cursor = 'kind: postgres, auth: "{{ db }}", claim: "select {{ shard }} {{ frame.slot }}"';
    const { scope } = open(loopOf("", { cursor }), { db: "pg", shard: 4, other: 5 });
    assert.deepEqual(scope.workload, { db: "pg", shard: 4 });
  });

  it("fails with the field and what was expected when a template gives nonsense", () => {
    for (const [spec, message] of [
      ['max_in_flight: "{{ 0 }}"', "loop.spec.max_in_flight gave 0, expected a whole number ≥ 1"],
      ['max_in_flight: "{{ none }}"', "loop.spec.max_in_flight gave null, expected a whole"],
      ['max_in_flight: "{{ [] }}"', "loop.spec.max_in_flight gave [], expected a whole number"],
      ["frame: {max_rows: \"{{ '' }}\"}", 'loop.spec.frame.max_rows gave "", expected a whole'],
      ['frame: {max_rows: "{{ 20000 }}"}', "loop.spec.frame.max_rows gave 20000, expected at most"],
      ['frame: {max_seconds: "{{ 0 }}"}', "loop.spec.frame.max_seconds gave 0, expected a number"],
      ["frame: {heartbeat_seconds: 0}", "loop.spec.frame.heartbeat_seconds gave 0, expected"],
      ['frame: {max_bytes: "{{ 1.5 }}"}', "loop.spec.frame.max_bytes gave 1.5, expected a whole"],
      ["frame: {retry_mode: \"{{ 'x' }}\"}", 'retry_mode gave "x", expected whole_frame or none'],
    ] as const) {
      const { error } = open(loopOf(spec));
      assert.ok(error?.message.includes(message), `${spec}: ${error?.message}`);
      assert.deepEqual([error?.kind, error?.code], ["logic", "LOOP"]);
    }
  });

  it("bears all failures, or those that it is told to bear", () => {
    const limits = (spec: string, more = "") => open(loopOf(spec, { more })).plan.cursor!;
    assert.equal(mayFail(limits(""), 10, true), Infinity);
    const both = limits("tolerated_failure_count: 2, tolerated_failure_percent: 29");
    assert.equal(mayFail(both, 100, true), 29);
    assert.equal(mayFail(both, 3, true), 2);
    assert.equal(mayFail(both, 3, false), Infinity, "a share is known in the end");
    assert.equal(mayFail(limits("tolerated_failure_count: 2"), 3, false), 2);
    const best = ", spec: {policy: {failure: {mode: best_effort}}}";
    assert.equal(mayFail(limits("tolerated_failure_count: 2", best), 9, true), Infinity);
  });
});

describe("reading a loop over a cursor", () => {
  it("refuses what can never be one, with the field and what is expected", () => {
    const least = /expected a whole number of at least 1, or a template/;
    for (const [text, field, expected] of [
      [loopOf("", { cursor: "kind: mysql, claim: x" }), "loop.cursor.kind", /expected postgres/],
      [loopOf("", { cursor: "kind: postgres" }), "loop.cursor.claim", /is required/],
      [loopOf("", { cursor: 'kind: postgres, claim: " "' }), "loop.cursor.claim", /not empty/],
      [
        loopOf("", { cursor: 'kind: postgres, claim: "{{ x"' }),
        "loop.cursor.claim",
        /template|'}}'/,
      ],
      [loopOf("max_in_flight: 0"), "loop.spec.max_in_flight", least],
      [loopOf("max_in_flight: 1.5"), "loop.spec.max_in_flight", least],
      [loopOf("max_in_flight: .nan"), "", /not a JSON value/],
      [loopOf("frame: {max_rows: 0}"), "loop.spec.frame.max_rows", least],
      [loopOf("frame: {max_seconds: -1}"), "loop.spec.frame.max_seconds", /at least 0/],
      [loopOf("frame: {process: all}"), "loop.spec.frame.process", /row \| frame/],
      [loopOf("frame: {retry_mode: x}"), "loop.spec.frame.retry_mode", /whole_frame or none/],
      [
        loopOf("", { cursor: `${CURSOR}, options: {max_iterations: 0}` }),
        "loop.cursor.options.max_iterations",
        least,
      ],
    ] as const) {
      const words = said(text);
      assert.ok(words.includes(field), `${field}: ${words}`);
      assert.match(words, expected);
    }
  });

  it("refuses to fan one out", () => {
    const text = loopOf("", { more: ", spec: {loop_mode: fanout}" });
    assert.match(said(text), /a cursor loop cannot be fanned out/);
  });
});
