/** The execution machine: values kept elsewhere, and values that are lost. */
import { strict as assert } from "node:assert";
import { Play } from "../support/execution-play.ts";
import { ok, resultOf, type Reply } from "../support/worker-replies.ts";

const NOOP = "tool: {kind: noop}";
const REF = "noetl://execution/1000/result/start/1-1-1";

function kept(extract = {}): Reply {
  return {
    result: { status: "ok", reference: { ref: REF, bytes: 9_000, tier: "local", extract } },
  };
}

const GUARDED =
  `- {step: start, ${NOOP}, ` +
  `next: {arcs: [{step: many, when: "{{ start.rows | length > 2 }}"}]}}\n` +
  `- {step: many, ${NOOP}}\n`;

describe("execution: values kept elsewhere", () => {
  it("a guard that reads into a kept result has it loaded", () => {
    const play = Play.of(GUARDED);
    play.results.set(REF, { rows: [1, 2, 3] });
    assert.deepEqual(play.run({ start: kept() }).entered, ["start", "many"]);
  });

  it("a guard that reads a small scalar needs no load", () => {
    const flow =
      `- {step: start, ${NOOP}, next: {arcs: [{step: more, when: "{{ start.count == 3 }}"}]}}\n` +
      `- {step: more, ${NOOP}}\n`;
    const play = Play.of(flow);
    play.lost.add(REF);
    assert.deepEqual(play.run({ start: kept({ count: 3 }) }).entered, ["start", "more"]);
  });

  it("a lost result fails the step that asks for it, typed, and nothing is invented", () => {
    const play = Play.of(GUARDED);
    play.lost.add(REF);
    play.run({ start: kept() });
    assert.equal(play.status, "FAILED");
    assert.equal(resultOf(play.terminal).error?.kind, "missing_reference");
  });

  it("a loop over a lost result fails as a step, typed", () => {
    const flow =
      `- {step: start, ${NOOP}, next: {arcs: [{step: each}]}}\n` +
      `- {step: each, ${NOOP}, loop: {in: "{{ start.rows }}", iterator: row}}\n`;
    const play = Play.of(flow);
    play.lost.add(REF);
    assert.equal(play.run({ start: kept() }).status, "FAILED");
  });

  it("the older boundary names step.done and step.failed are understood", () => {
    const flow =
      `- {step: start, ${NOOP}, next: {arcs: [` +
      `{step: a, when: "{{ event.name == 'step.failed' }}"}, ` +
      `{step: b, when: "{{ event.name == 'step.done' }}"}]}}\n` +
      `- {step: a, ${NOOP}}\n- {step: b, ${NOOP}}\n`;
    assert.deepEqual(Play.of(flow).run().entered, ["start", "b"]);
  });

  it("a payload's ctx starts the variables", () => {
    const flow =
      `- {step: start, ${NOOP}, next: {arcs: [{step: a, when: "{{ ctx.route == 'a' }}"}]}}\n` +
      `- {step: a, ${NOOP}}\n`;
    const play = Play.of(flow, { ctx: { route: "a" } }).run({ start: ok() });
    assert.deepEqual(play.entered, ["start", "a"]);
  });
});
