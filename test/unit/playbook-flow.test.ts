/** The playbook language: rules, loops, timeouts and routers in all their spellings. */
import { strict as assert } from "node:assert";
import { parse, step } from "../support/playbook-samples.ts";

describe("playbook: policy rules", () => {
  function rules(text: string) {
    return step(`
tool:
  - {name: first, kind: noop}
  - name: second
    kind: noop
    spec: {policy: {rules: ${text}}}`).tasks[1]!.rules;
  }
  const plain = { attempts: 3, backoff: "none", delay: 1, set: {} };

  it("reads when and then, with defaults", () => {
    assert.deepEqual(rules('[{when: "{{ a }}", then: {do: retry}}]'), [
      { ...plain, when: "{{ a }}", do: "retry" },
    ]);
  });

  it("reads a boolean when, and one without braces", () => {
    const [first, second] = rules(
      "[{when: true, then: {do: fail}}, {when: a > 1, then: {do: fail}}]",
    );
    assert.equal(first!.when, true);
    assert.equal(second!.when, "a > 1");
  });

  it("reads else in its three spellings", () => {
    const expected = [{ ...plain, do: "continue", set: { "ctx.a": 1 } }];
    const action = "{do: continue, set: {ctx.a: 1}}";
    assert.deepEqual(rules(`[{else: {then: ${action}}}]`), expected);
    assert.deepEqual(rules(`[{else: ${action}}]`), expected);
    assert.deepEqual(rules(`[{else: , then: ${action}}]`), expected);
  });

  it("reads fixed backoff, attempts and a templated delay", () => {
    const action = '{do: retry, attempts: 5, backoff: fixed, delay: "{{ pause }}"}';
    const expected = { attempts: 5, backoff: "fixed", delay: "{{ pause }}", do: "retry", set: {} };
    assert.deepEqual(rules(`[{else: {then: ${action}}}]`), [expected]);
  });

  it("reads jumps to labels, and previous in all its spellings", () => {
    for (const word of ["previous", "prev", "_previous", "'@previous'"]) {
      assert.equal(rules(`[{else: {do: jump, to: ${word}}}]`)[0]!.to, "previous");
    }
    assert.equal(rules("[{else: {do: jump, to: first}}]")[0]!.to, "first");
  });

  it("reads admission rules, else with and without then", () => {
    const { admit } = step(`
spec:
  policy:
    admit:
      mode: exclusive
      rules: [{when: "{{ on }}", then: {allow: true}}, {else: {then: {allow: false}}}]
tool: {kind: noop}`);
    assert.deepEqual(admit, [{ when: "{{ on }}", allow: true }, { allow: false }]);
  });
});

describe("playbook: loops, timeouts and routers", () => {
  it("reads a loop with its defaults", () => {
    const { loop } = step('loop: {in: "{{ items }}", iterator: item}\ntool: {kind: noop}');
    const expected = { in: "{{ items }}", iterator: "item", mode: "sequential", exec: "local" };
    assert.deepEqual(loop, expected);
  });

  it("reads every field of a loop's spec", () => {
    const { loop } = step(`
loop:
  in: [1, 2]
  iterator: item
  spec:
    mode: parallel
    max_in_flight: "{{ n }}"
    tolerated_failure_count: 2
    tolerated_failure_percent: 12.5
    frame: {max_rows: 10}
    policy: {exec: distributed, results: {preserve_order: true}}
tool: {kind: noop}`);
    assert.deepEqual(loop, {
      in: [1, 2],
      iterator: "item",
      mode: "parallel",
      maxInFlight: "{{ n }}",
      exec: "distributed",
      frame: { max_rows: 10 },
      toleratedFailureCount: 2,
      toleratedFailurePercent: 12.5,
    });
  });

  it("reads a cursor loop, templates in its frame", () => {
    const { loop } = step(`
loop:
  iterator: row
  cursor: {kind: postgres, auth: pg, claim: "update q limit {{ __frame_max_rows }}"}
  spec: {mode: cursor, max_in_flight: 2, frame: {max_rows: 50, lease_seconds: "{{ lease }}"}}
tool: {kind: noop}`);
    assert.equal(loop!.mode, "cursor");
    assert.equal(loop!.cursor!["kind"], "postgres");
    assert.deepEqual(loop!.frame, { max_rows: 50, lease_seconds: "{{ lease }}" });
  });

  it("reads fan-out from the executor or the step, the step's words over the executor's", () => {
    const root =
      "executor: {spec: {loop_mode: fanout, fanout: {max_in_flight: 4, fail_fast: true}}}\n";
    const loop = 'loop: {in: "{{ items }}", iterator: i}\ntool: {kind: noop}';
    assert.deepEqual(step(loop, root).loop!.fanout, { max_in_flight: 4, fail_fast: true });
    const own = "spec: {loop_mode: fanout, fanout: {max_in_flight: 9}}\n";
    assert.deepEqual(step(own + loop, root).loop!.fanout, { max_in_flight: 9, fail_fast: true });
    assert.equal(step(`spec: {loop_mode: local}\n${loop}`, root).loop!.fanout, undefined);
    const ordered = loop.replace("iterator: i", "iterator: i, spec: {mode: sequential}");
    assert.equal(step(ordered, root).loop!.fanout, undefined, "it has an order");
    const older = "spec: {loop_mode: fanout, fanout: {max_job_retries: 5}}\n";
    assert.equal(step(older + loop).loop!.fanout!["max_shard_retries"], 5);
  });

  it("reads durations with units, and numbers as seconds", () => {
    const cases = {
      '"500ms"': 500,
      "30s": 30_000,
      "5m": 300_000,
      "1h": 3_600_000,
      "2": 2000,
      "1.5": 1500,
    };
    for (const [text, ms] of Object.entries(cases)) {
      assert.equal(step(`spec: {timeout: ${text}}\ntool: {kind: noop}`).timeoutMs, ms);
    }
  });

  it("reads failure mode best_effort", () => {
    const { failureMode } = step(
      "spec: {policy: {failure: {mode: best_effort}}}\ntool: {kind: noop}",
    );
    assert.equal(failureMode, "best_effort");
  });

  it("reads next in the canonical form and in every short form", () => {
    const next = (text: string) => step(`tool: {kind: noop}\nnext: ${text}`).next;
    const canonical = { onNoMatch: "complete", mode: "exclusive" };
    const end = { to: "end", set: {} };
    assert.deepEqual(next("end"), { ...canonical, arcs: [end] });
    assert.deepEqual(next("[end]"), { ...canonical, arcs: [end] });
    assert.deepEqual(next("[end, s]"), {
      ...canonical,
      mode: "inclusive",
      arcs: [end, { to: "s", set: {} }],
    });
    const arcs = '[{step: s, when: "{{ x }}", set: {ctx.a: 1}}, {step: end, when: true}]';
    const expected = [
      { to: "s", when: "{{ x }}", set: { "ctx.a": 1 } },
      { ...end, when: true },
    ];
    assert.deepEqual(next(arcs), { ...canonical, arcs: expected });
    assert.deepEqual(next(`{spec: {mode: inclusive, on_no_match: quiet}, arcs: ${arcs}}`), {
      mode: "inclusive",
      onNoMatch: "quiet",
      arcs: expected,
    });
  });

  it("warns of arcs that can never be taken, and of stray keys on arcs", () => {
    const playbook = parse(`  - step: s
    tool: {kind: noop}
    next: {arcs: [{step: s}, {step: s, when: "{{ x }}", cond: y}]}
`);
    assert.match(playbook.warnings.join("\n"), /unknown key 'cond'/);
    assert.match(playbook.warnings.join("\n"), /never taken/);
  });
});
