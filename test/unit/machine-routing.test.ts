/** The execution machine: routers, guards, failures, joins, admission, and how a run ends. */
import { strict as assert } from "node:assert";
import { Play, playbookOf } from "../support/execution-play.ts";
import { failed, ok, resultOf } from "../support/worker-replies.ts";

const NOOP = "tool: {kind: noop}";
const step = (name: string, rest = "") => `- {step: ${name}, ${NOOP}${rest && `, ${rest}`}}\n`;
const arcs = (list: string, mode = "exclusive", more = "") =>
  `next: {spec: {mode: ${mode}${more}}, arcs: [${list}]}`;
const to = (name: string, when?: string, set?: string) =>
  `{step: ${name}${when ? `, when: "{{ ${when} }}"` : ""}${set ? `, set: {${set}}` : ""}}`;

const counting = (name: string, rest: string) =>
  `set: {ctx.${name}: "{{ (ctx.${name} or 0) + 1 }}"}, ${rest}`;

function outcome(play: Play) {
  return { status: play.status, entered: play.entered.join(" ") };
}

describe("execution: routers", () => {
  const fork = (mode: string) =>
    step("start", arcs([to("a", "n > 1"), to("b", "n > 0"), to("c", "n > 5")].join(), mode)) +
    step("a") +
    step("b") +
    step("c");

  it("an exclusive router takes the first arc that is true", () => {
    assert.deepEqual(outcome(Play.of(fork("exclusive"), { n: 2 }).run()), {
      status: "COMPLETED",
      entered: "start a",
    });
  });

  it("an inclusive router takes every arc that is true, in file order", () => {
    assert.equal(outcome(Play.of(fork("inclusive"), { n: 2 }).run()).entered, "start a b");
  });

  it("a router without a true arc ends its branch and the run completes", () => {
    assert.deepEqual(outcome(Play.of(fork("exclusive"), { n: 0 }).run()), {
      status: "COMPLETED",
      entered: "start",
    });
  });

  it("no_next_is_error makes a dead end fail the run", () => {
    const strict = "executor: {spec: {no_next_is_error: true}}";
    const play = Play.of(fork("exclusive"), { n: 0 }, strict).run();
    assert.equal(play.status, "FAILED");
    assert.equal(resultOf(play.terminal).error?.code, "NO_NEXT");
    assert.equal(Play.of(fork("exclusive"), { n: 2 }, strict).run().status, "COMPLETED");
  });

  it("on_no_match quiet is no dead end, and neither is a leaf", () => {
    const strict = "executor: {spec: {no_next_is_error: true}}";
    const quiet =
      step("start", arcs(to("end", "false"), "exclusive", ", on_no_match: quiet")) + step("end");
    assert.equal(Play.of(quiet, {}, strict).run().status, "COMPLETED");
    assert.equal(Play.of(step("start"), {}, strict).run().status, "COMPLETED");
  });

  it("two arcs to one step put one token on it", () => {
    const twice = step("start", arcs(`${to("a")}, ${to("a", "true")}`, "inclusive")) + step("a");
    assert.equal(Play.of(twice).run().entered.join(" "), "start a");
  });

  it("the result of the last step that exited is the result of the run", () => {
    const play = Play.of(step("start", arcs(to("end"))) + step("end"));
    play.run({ end: ok({ answer: 42 }) });
    assert.partialDeepStrictEqual(play.terminal, {
      result: { status: "ok", step: "end", context: { answer: 42 } },
    });
  });
});

describe("execution: failures", () => {
  const guarded = (when: string) => step("start", arcs(to("next", when))) + step("next");

  it("a guard sees call.done and the result of a step that succeeded", () => {
    const when = "event.name == 'call.done' and output.data.x == 1 and start.x == 1";
    assert.deepEqual(outcome(Play.of(guarded(when)).run({ start: ok({ x: 1 }) })), {
      status: "COMPLETED",
      entered: "start next",
    });
  });

  it("an error arc goes on after a failure; the run still ends FAILED with it", () => {
    for (const when of [
      "event.name == 'call.error'",
      "event.status == 'failed'",
      "output.status == 'error'",
      "output.error.code == 'HTTP_500'",
      "error.message == 'it broke'",
    ]) {
      const play = Play.of(guarded(when)).run({ start: failed() });
      assert.deepEqual(outcome(play), { status: "FAILED", entered: "start next" }, when);
      assert.equal(resultOf(play.terminal).error?.message, "it broke");
      assert.equal(play.terminal?.node_name, "start");
    }
  });

  it("an arc whose guard does not ask how the step ended is not taken on failure", () => {
    for (const arc of [to("next"), to("next", "true"), to("next", "workload.n == 1")]) {
      const play = Play.of(step("start", arcs(arc)) + step("next"), { n: 1 });
      assert.deepEqual(outcome(play.run({ start: failed() })), {
        status: "FAILED",
        entered: "start",
      });
    }
  });

  it("an unhandled failure enters nothing more; running commands finish first", () => {
    const play = Play.of(
      step("start", arcs(`${to("bad")}, ${to("slow")}`, "inclusive")) +
        step("bad") +
        step("slow", arcs(to("after"))) +
        step("after"),
    );
    play.finish("start");
    const slow = play.claim("slow");
    play.finish("bad", failed());
    assert.equal(play.status, "RUNNING");
    play.report(slow, ok());
    assert.deepEqual(outcome(play), { status: "FAILED", entered: "start bad slow" });
    assert.equal(play.all("command.completed").length, 2, "the slow outcome was accepted");
    assert.deepEqual(play.effects(), []);
  });

  it("a token that waits at a join is dropped by an unhandled failure", () => {
    const play = Play.of(
      step("start", arcs(`${to("a")}, ${to("b")}`, "inclusive")) +
        step("a", arcs(to("join"))) +
        step("b", arcs(to("join"))) +
        step("join"),
    );
    play.run({ b: failed() });
    assert.deepEqual(outcome(play), { status: "FAILED", entered: "start a b" });
  });

  it("a guard that throws fails its step with an evaluation error of kind logic", () => {
    const play = Play.of(guarded("1 // 0")).run();
    assert.deepEqual(outcome(play), { status: "FAILED", entered: "start" });
    assert.partialDeepStrictEqual(resultOf(play.terminal).error, {
      kind: "logic",
      code: "EVALUATION",
    });
    assert.equal(play.all("command.completed")[0]?.meta.step_status, "failed");
  });

  it("a set that throws fails its step and writes nothing", () => {
    const set = 'set: {ctx.a: 1, ctx.b: "{{ 1 // 0 }}"}';
    const play = Play.of(step("start", `${set}, ${arcs(to("next"))}`) + step("next"));
    play.run({ start: ok({}, { kept: 1 }) });
    assert.deepEqual(outcome(play), { status: "FAILED", entered: "start" });
    assert.deepEqual(play.all("command.completed")[0]?.context?.["ctx"], { kept: 1 });
  });

  it("best_effort on a step tolerates its failure: arcs go on and the run completes", () => {
    const lax = "spec: {policy: {failure: {mode: best_effort}}}";
    const play = Play.of(step("start", `${lax}, ${arcs(to("next"))}`) + step("next"));
    assert.deepEqual(outcome(play.run({ start: failed() })), {
      status: "COMPLETED",
      entered: "start next",
    });
  });
});

describe("execution: set and ctx", () => {
  it("the step's set comes before its arcs, the arc's set after, and targets see both", () => {
    const set = 'set: {ctx.n: "{{ output.data.n + 1 }}", total: "{{ n }}"}';
    const play = Play.of(
      step(
        "start",
        `${set}, ${arcs(to("end", "ctx.n == 2 and n == 2", 'ctx.route: "{{ ctx.n }}-way"'))}`,
      ) + `- {step: end, tool: {kind: noop, input: {a: "{{ ctx.n }}", b: "{{ route }}"}}}\n`,
      { n: "workload" },
    );
    play.finish("start", ok({ n: 1 }));
    assert.deepEqual(play.claim("end").scope!.ctx, { n: 2, route: "2-way" });
    assert.deepEqual(play.all("command.completed")[0]?.context?.["ctx"], {
      n: 2,
      total: "workload",
      route: "2-way",
    });
  });

  it("an arc that is not taken writes nothing", () => {
    const play = Play.of(
      step("start", arcs(`${to("end", "false", "ctx.a: 1")}, ${to("end", "true", "ctx.b: 1")}`)) +
        step("end"),
    ).run();
    assert.deepEqual(play.all("command.completed")[0]?.context?.["ctx"], { b: 1 });
  });

  it("ctx writes of a command's policy rules are seen by its set, its arcs and later steps", () => {
    const play = Play.of(
      step("start", `set: {ctx.b: "{{ ctx.a }}"}, ${arcs(to("end", "ctx.b == 7"))}`) +
        step("end", 'input: {x: "{{ ctx.a }}"}'),
    );
    play.finish("start", ok({}, { a: 7 }));
    assert.deepEqual(play.claim("end").scope!.ctx, { a: 7 });
  });

  it("the upstream result travels with a command that reads it", () => {
    const play = Play.of(
      step("start", arcs(to("end"))) + step("end", 'input: {x: "{{ result.v }}"}'),
    );
    play.finish("start", ok({ v: 3 }));
    const { scope } = play.claim("end");
    assert.equal(scope!.upstream, "start");
    assert.deepEqual(scope!.steps["start"]?.context, { v: 3 });
  });

  it("workload defaults are rendered, the payload is data", () => {
    const play = new Play(
      playbookOf(
        step("start", 'input: {w: "{{ workload }}"}'),
        'workload: {a: "{{ execution_id }}", b: 1}',
      ),
    );
    play.start({ b: "{{ 1 + 1 }}" });
    assert.deepEqual(play.claim("start").scope!.workload, { a: "1000", b: "{{ 1 + 1 }}" });
  });

  it("a workload default that cannot be rendered refuses the start", () => {
    const text = playbookOf(step("start"), 'workload: {a: "{{ 1 // 0 }}"}');
    assert.throws(
      () => new Play(text).start(),
      (error: Error & { type?: string; code?: number }) =>
        error.type === "REJECTED" && error.code === 422 && /workload/.test(error.message),
    );
  });
});

describe("execution: admission", () => {
  const gated = (rules: string) =>
    step("start", arcs(to("gate"))) +
    step("gate", `spec: {policy: {admit: {rules: [${rules}]}}}, ${arcs(to("after"))}`) +
    step("after");
  const rule = (when: string, allow: boolean) => `{when: "${when}", then: {allow: ${allow}}}`;

  it("the first rule that matches decides, and none allows", () => {
    const known = [rule("{{ n == 1 }}", false), rule("{{ n > 0 }}", true)].join(", ");
    const rules = `${known}, {else: {then: {allow: false}}}`;
    assert.equal(Play.of(gated(rules), { n: 2 }).run().entered.join(" "), "start gate after");
    assert.equal(
      Play.of(gated(rule("{{ false }}", false)))
        .run()
        .entered.join(" "),
      "start gate after",
    );
  });

  it("a step that is denied is skipped, its branch ends and the run completes", () => {
    const play = Play.of(gated(rule("{{ n == 1 }}", false)), { n: 1 }).run();
    assert.deepEqual(outcome(play), { status: "COMPLETED", entered: "start" });
    assert.equal(play.all("step.skipped").length, 1);
  });

  it("a rule that throws fails the step and the run", () => {
    const play = Play.of(gated(rule("{{ 1 // 0 }}", true))).run();
    assert.deepEqual(outcome(play), { status: "FAILED", entered: "start" });
    assert.equal(resultOf(play.terminal).error?.kind, "logic");
    assert.equal(play.all("step.failed")[0]?.node_name, "gate");
  });

  it("a skipped branch does not hold back a join", () => {
    const play = Play.of(
      step("start", arcs(`${to("a")}, ${to("gate")}`, "inclusive")) +
        step("a", arcs(to("join"))) +
        step(
          "gate",
          `spec: {policy: {admit: {rules: [{else: {then: {allow: false}}}]}}}, ${arcs(to("join"))}`,
        ) +
        step("join"),
    ).run();
    assert.deepEqual(outcome(play), { status: "COMPLETED", entered: "start a join" });
  });
});

describe("execution: joins and loop-backs", () => {
  const diamond =
    step("start", arcs(`${to("a")}, ${to("b")}`, "inclusive")) +
    step("a", arcs(to("join"))) +
    step("b", arcs(to("b2"))) +
    step("b2", arcs(to("join"))) +
    step("join");

  it("a join waits for the slower branch and runs once", () => {
    const play = Play.of(diamond);
    play.finish("start");
    play.finish("a");
    assert.ok(!play.entered.includes("join"));
    play.finish("b");
    assert.ok(!play.entered.includes("join"));
    play.run();
    assert.deepEqual(outcome(play), { status: "COMPLETED", entered: "start a b b2 join" });
  });

  const paging =
    step(
      "start",
      arcs(`${to("odd", "ctx.round is undefined or ctx.round % 2 == 1")}, ${to("even")}`),
    ) +
    step("odd", arcs(to("merge"))) +
    step("even", arcs(to("merge"))) +
    step("merge", counting("round", arcs(`${to("start", "ctx.round < 4")}, ${to("end")}`))) +
    step("end");

  it("a loop-back enters a step as a new command; a merge of alternatives never waits", () => {
    const play = Play.of(paging).run();
    assert.deepEqual(outcome(play), {
      status: "COMPLETED",
      entered: "start odd merge start odd merge start even merge start odd merge end",
    });
    const ids = play.all("command.issued").map(event => event.meta.command_id);
    assert.equal(new Set(ids).size, ids.length);
    assert.ok(ids.includes("1000:merge:4:1"));
  });

  it("two tokens in one cycle do not wait for each other's next round", () => {
    const play = Play.of(
      step("start", arcs(`${to("ping")}, ${to("pong")}`, "inclusive")) +
        step("ping", counting("n", arcs(`${to("pong", "ctx.n < 5")}, ${to("end")}`))) +
        step("pong", arcs(to("ping"))) +
        step("end"),
    ).run();
    assert.equal(play.status, "COMPLETED");
    assert.equal(play.entered.filter(name => name === "end").length, 1);
  });

  it("a step that loops back to itself runs until its guard says so", () => {
    const play = Play.of(
      step("start", `set: {ctx.n: "{{ (ctx.n or 0) + 1 }}"}, ${arcs(to("start", "ctx.n < 3"))}`),
    ).run();
    assert.equal(play.entered.join(" "), "start start start");
  });
});

describe("execution: the final step", () => {
  const final = "executor: {spec: {final_step: last}}";

  it("runs once, after everything else", () => {
    const flow = step("start", arcs(`${to("a")}, ${to("b")}`, "inclusive")) + step("a") + step("b");
    const play = Play.of(flow + step("last", 'input: {x: "{{ result.v }}"}'), {}, final);
    play.finish("start");
    play.finish("b");
    play.finish("a", ok({ v: "a" }));
    assert.deepEqual(play.claim("last").scope!.steps["a"]?.context, { v: "a" });
    play.wake();
    play.alive.clear();
    play.wake();
    play.alive.add("w1");
    play.run();
    assert.deepEqual(outcome(play), { status: "COMPLETED", entered: "start a b last" });
  });

  it("fails the run when it fails", () => {
    const play = Play.of(step("start") + step("last"), {}, final).run({ last: failed() });
    assert.deepEqual(outcome(play), { status: "FAILED", entered: "start last" });
  });

  it("runs after a handled failure, not after an unhandled one", () => {
    const flow = step("start", arcs(to("next", "event.name == 'call.error'"))) + step("next");
    const handled = Play.of(flow + step("last"), {}, final).run({ start: failed() });
    assert.deepEqual(outcome(handled), { status: "FAILED", entered: "start next last" });
    const unhandled = Play.of(step("start") + step("last"), {}, final).run({ start: failed() });
    assert.deepEqual(outcome(unhandled), { status: "FAILED", entered: "start" });
  });

  it("ends the run also when it is not admitted", () => {
    const denied = "spec: {policy: {admit: {rules: [{else: {then: {allow: false}}}]}}}";
    const play = Play.of(step("start") + step("last", denied), {}, final).run();
    assert.deepEqual(outcome(play), { status: "COMPLETED", entered: "start" });
    assert.equal(play.all("step.skipped").length, 1);
  });
});
