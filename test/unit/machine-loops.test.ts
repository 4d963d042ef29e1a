/** Loops: windows, modes, tolerance, ctx, collections, results, and the one loop.done. */
import { strict as assert } from "node:assert";
import type { JsonObject } from "../../schemas/json.ts";
import { EXECUTION_ID, Play } from "../support/execution-play.ts";
import { failed, ok, resultOf } from "../support/worker-replies.ts";

/** start → each (a loop) → end. */
function flow(loop: string, more = ""): string {
  return `
- {step: start, tool: {kind: noop}, next: {arcs: [{step: each}]}}
- step: each
  loop: ${loop}
  tool: {kind: noop, input: {seen: "{{ ctx.sum }}"}}
  next: {arcs: [{step: end, when: "{{ event.name == 'loop.done' and event.status == 'ok' }}"}]}
${more}
- {step: end, tool: {kind: noop, input: {all: "{{ each.data }}"}}}
`;
}
const over = (items: string, spec = "mode: parallel") =>
  `{in: ${items}, iterator: item, spec: {${spec}}}`;
const begin = (loop: string, payload: JsonObject = {}, more = "") => {
  const play = Play.of(flow(loop, more), payload);
  play.finish("start");
  play.deliver();
  return play;
};
const doneOf = (play: Play) => play.all("loop.done")[0]?.meta;

describe("loop: what it iterates over", () => {
  function items(value: unknown): unknown[] {
    const play = begin(over('"{{ value }}"'), { value } as JsonObject);
    const seen: unknown[] = [];
    play.run({
      each: grant => {
        seen.push(grant.iteration?.value);
        return ok();
      },
    });
    assert.equal(play.status, "COMPLETED");
    return seen;
  }

  it("a list as it is", () => assert.deepEqual(items([1, "b", { c: 3 }]), [1, "b", { c: 3 }]));

  it("a map as its keys and values", () =>
    assert.deepEqual(items({ a: 1, b: 2 }), [
      { key: "a", value: 1 },
      { key: "b", value: 2 },
    ]));

  it("text as a JSON list, else as its parts between commas and lines", () => {
    assert.deepEqual(items("[1, 2]"), [1, 2]);
    assert.deepEqual(items("a, b\nc"), ["a", "b", "c"]);
  });

  it("a count as 0 … n-1", () => assert.deepEqual(items(3), [0, 1, 2]));

  it("nothing at all: no iteration runs and the arcs see loop.done", () => {
    const play = begin(over('"{{ value }}"'), { value: [] }).run();
    assert.deepEqual(play.entered, ["start", "each", "end"]);
    assert.deepEqual(doneOf(play)?.stats, { total: 0, success: 0, failed: 0, not_run: 0 });
  });

  it("what is not iterable fails the step and the run with a typed error", () => {
    for (const value of [null, true, -1, 1.5]) {
      const play = begin(over('"{{ value }}"'), { value }).run();
      assert.equal(play.status, "FAILED");
      assert.deepEqual(play.entered, ["start", "each"]);
      assert.partialDeepStrictEqual(resultOf(play.terminal).error, { kind: "logic", code: "LOOP" });
      assert.match(resultOf(play.terminal).error?.message ?? "", /not evaluate to an iterable/);
    }
  });

  it("a template that throws fails the step, and best_effort tolerates it", () => {
    assert.equal(begin(over('"{{ 1 // 0 }}"')).run().status, "FAILED");
    const lax = "  spec: {policy: {failure: {mode: best_effort}}}";
    assert.equal(begin(over('"{{ 1 // 0 }}"'), {}, lax).run().status, "COMPLETED");
  });
});

describe("loop: windows", () => {
  const open = (play: Play) => play.rings().filter(ring => ring.step === "each").length;

  it("parallel issues max_in_flight iterations and one more for each that ends", () => {
    const play = begin(over("[1, 2, 3, 4, 5]", "mode: parallel, max_in_flight: 2"));
    assert.equal(open(play), 2);
    play.finish("each");
    assert.equal(open(play), 2);
    assert.equal(play.all("command.issued").filter(one => one.meta.loop_id).length, 3);
    assert.deepEqual(play.run().all("loop.done").length, 1);
  });

  it("parallel without max_in_flight has a window of 10, sequential of 1", () => {
    assert.equal(open(begin(over("30"))), 10);
    assert.equal(open(begin(over("30", "mode: sequential"))), 1);
  });

  it("max_in_flight may be a template; a bad value fails the step and names it", () => {
    const templated = over("9", 'mode: parallel, max_in_flight: "{{ n }}"');
    assert.equal(open(begin(templated, { n: 4 })), 4);
    assert.equal(open(begin(templated, { n: "4" })), 4);
    for (const n of [0, -1, 1.5, "many", null, true, [3]] as never[]) {
      const play = begin(templated, { n }).run();
      assert.equal(play.status, "FAILED", JSON.stringify(n));
      assert.match(resultOf(play.terminal).error?.message ?? "", /max_in_flight/);
    }
  });

  it("iterations know their place", () => {
    const play = begin(over("[7, 8]"));
    const { iteration } = play.claim("each", { index: 1 });
    assert.deepEqual(
      { ...iteration, loop_id: "" },
      {
        iterator: "item",
        value: 8,
        index: 1,
        total: 2,
        loop_id: "",
      },
    );
  });
});

describe("loop: failures", () => {
  it("sequential stops at the first failure and the rest is not run", () => {
    const play = begin(over("4", "mode: sequential")).run({ "each/1": failed() });
    assert.deepEqual(doneOf(play)?.stats, { total: 4, success: 1, failed: 1, not_run: 2 });
    assert.equal(play.status, "FAILED");
    assert.equal(resultOf(play.terminal).error?.message, "it broke");
  });

  it("parallel lets those in flight finish and issues no more", () => {
    const play = begin(over("6", "mode: parallel, max_in_flight: 3"));
    const other = play.claim("each", { index: 0 });
    play.finish("each", failed(), 1);
    play.report(other);
    play.run();
    assert.deepEqual(doneOf(play)?.stats, { total: 6, success: 2, failed: 1, not_run: 3 });
    assert.equal(play.status, "FAILED");
  });

  it("tolerated_failure_count and _percent let a loop succeed up to their number", () => {
    const some = { "each/0": failed(), "each/2": failed() };
    for (const [spec, status] of [
      ["mode: parallel, tolerated_failure_count: 2", "COMPLETED"],
      ["mode: parallel, tolerated_failure_count: 1", "FAILED"],
      ["mode: parallel, tolerated_failure_percent: 20", "COMPLETED"],
      ["mode: parallel, tolerated_failure_percent: 19", "FAILED"],
      ["mode: sequential, tolerated_failure_count: 2", "COMPLETED"],
    ]) {
      const play = begin(over("10", spec)).run(some);
      assert.equal(play.status, status, spec);
      if (status === "COMPLETED") assert.equal(doneOf(play)?.stats.failed, 2);
    }
  });

  it("best_effort tolerates every failure", () => {
    const lax = "  spec: {policy: {failure: {mode: best_effort}}}";
    const play = begin(over("3", "mode: sequential"), {}, lax).run({ each: failed() });
    assert.deepEqual(doneOf(play)?.stats, { total: 3, success: 0, failed: 3, not_run: 0 });
    assert.equal(play.status, "COMPLETED");
  });

  it("a failed loop takes an arc that asks for its status; the run ends FAILED", () => {
    const play = Play.of(`
- step: each
  loop: ${over("2")}
  tool: {kind: noop}
  next:
    arcs:
      - {step: never}
      - step: report
        when: "{{ event.status == 'failed' and output.stats.failed == 1 }}"
        set: {ctx.lost: "{{ each.stats.failed }}"}
- {step: never, tool: {kind: noop}}
- {step: report, tool: {kind: noop}}`);
    play.run({ "each/1": failed() });
    assert.deepEqual(play.entered, ["each", "report"]);
    assert.deepEqual(play.all("step.exit")[0]?.context?.["ctx"], { lost: 1 });
    assert.equal(play.status, "FAILED");
  });
});

describe("loop: ctx", () => {
  it("a sequential iteration sees what those before it wrote, the run at the end", () => {
    const play = begin(over("[1, 2, 3]", "mode: sequential"));
    const seen: unknown[] = [];
    play.run({
      each: ({ scope, iteration }) => {
        seen.push(scope!.ctx["sum"] ?? null);
        const sum = Number(scope!.ctx["sum"] ?? 0) + Number(iteration?.value);
        return ok({}, { sum });
      },
    });
    assert.deepEqual(seen, [null, 1, 3]);
    assert.deepEqual(play.all("step.exit")[0]?.context?.["ctx"], { sum: 6 });
  });

  it("parallel iterations see the ctx of the loop's start; the last accepted write wins", () => {
    const play = begin(over("3"));
    play.finish("each", ok({}, { sum: "two", only: 2 }), 2);
    const first = play.claim("each", { index: 0 });
    assert.equal(first.scope!.ctx["sum"], undefined);
    play.report(first, ok({}, { sum: "zero" }));
    play.run();
    assert.deepEqual(play.all("step.exit")[0]?.context?.["ctx"], { sum: "zero", only: 2 });
  });

  it("a loop does not see what other branches write after it was entered", () => {
    const play = Play.of(`
- step: start
  tool: {kind: noop}
  next: {spec: {mode: inclusive}, arcs: [{step: each}, {step: side}]}
- {step: each, loop: ${over("1")}, tool: {kind: noop, input: {x: "{{ ctx.late }}"}}}
- {step: side, tool: {kind: noop}}`);
    play.finish("start");
    play.finish("side", ok({}, { late: 1 }));
    const grant = play.claim("each");
    assert.deepEqual(grant.scope!.ctx, {});
    play.report(grant);
    assert.equal(play.run().status, "COMPLETED");
  });
});

describe("loop: results and the end", () => {
  it("results come in input order, however they were accepted; what failed is null", () => {
    const more = `
  set:
    ctx.all: "{{ each.results }}"
    ctx.second: "{{ output.results[1].v }}"
    ctx.n: "{{ each.data | length }}"`;
    const play = begin(over("3", "mode: parallel, tolerated_failure_count: 1"), {}, more);
    play.finish("each", ok({ v: "c" }), 2);
    play.finish("each", failed(), 0);
    play.finish("each", ok({ v: "b" }), 1);
    play.run();
    assert.deepEqual(play.all("step.exit")[0]?.context?.["ctx"], {
      all: [null, { v: "b" }, { v: "c" }],
      second: "b",
      n: 3,
    });
  });

  it("stats are read without loading the results", () => {
    const play = begin(over("2"), {}, '  set: {ctx.n: "{{ output.stats.total }}"}').run();
    assert.deepEqual(play.all("step.exit")[0]?.context?.["ctx"], { n: 2 });
  });

  it("loop.done is said once, and its report is taken once however often it comes", () => {
    const play = begin(over("2"));
    const report = () =>
      play
        .effects()
        .find(({ effect }) => effect.kind === "message" && effect.to.actor === "executions");
    play.thorough = false;
    for (const index of [0, 1]) {
      play.report(play.claim("each", { index }));
    }
    const message = report();
    assert.ok(message && message.effect.kind === "message");
    play.carry(message.stream, message.effect, true);
    play.carry(message.stream, message.effect, true);
    play.carry(message.stream, message.effect);
    assert.equal(play.all("step.exit").length, 1);
    assert.equal(play.run().status, "COMPLETED");
    play.carry(message.stream, message.effect, true);
    assert.equal(play.all("loop.done").length, 1);
  });

  it("each activation has a loop of its own", () => {
    const play = Play.of(`
- step: each
  loop: ${over("2")}
  tool: {kind: noop}
  set: {ctx.n: "{{ (ctx.n or 0) + 1 }}"}
  next: {arcs: [{step: each, when: "{{ ctx.n < 3 }}"}]}`);
    play.run();
    const ids = play.all("loop.done").map(event => event.meta.loop_id);
    assert.equal(new Set(ids).size, 3);
    const commands = play.all("command.issued").map(event => event.meta.command_id);
    assert.equal(new Set(commands).size, 6);
    assert.ok(commands.includes(`${EXECUTION_ID}:each:3:1:1`));
  });

  it("a start that is repeated begins nothing twice", () => {
    const play = begin(over("2"));
    const start = [...play.streams].find(([id]) => id !== EXECUTION_ID);
    const [id, stream] = start as NonNullable<typeof start>;
    play.streams.get(EXECUTION_ID)?.acked.clear();
    const count = stream.events.length;
    play.deliver();
    assert.equal(play.eventsOf(id).length, count);
  });
});

describe("loop: what it keeps", () => {
  it("a collection over 1,000 items or 64 KB is frozen by reference, else by value", () => {
    const kept = (value: unknown) =>
      Object.keys(
        begin(over('"{{ value }}"'), { value } as JsonObject).all("loop.started")[0]?.context ?? {},
      );
    assert.ok(kept([1, 2]).includes("collection"));
    assert.ok(kept(Array.from({ length: 1_000 }, () => 1)).includes("collection"));
    assert.ok(kept(Array.from({ length: 1_001 }, () => 1)).includes("collection_ref"));
    const wide = kept(["x".repeat(70_000)]);
    assert.ok(wide.includes("collection_ref") && !wide.includes("collection"));
  });

  it("what is kept by reference is loaded again for a claim after everything was forgotten", () => {
    const play = begin(over('"{{ value }}"'), { value: [{ big: "x".repeat(70_000) }] });
    assert.ok(play.all("loop.started")[0]?.context?.["collection_ref"]);
    const loop = [...play.streams].find(([id]) => id !== EXECUTION_ID)?.[1];
    assert.ok(loop);
    loop.state = loop.events.reduce(
      (state, event) => loop.machine.evolve(state, event, event.at, event.version),
      loop.machine.initial(),
    );
    const grant = play.claim("each");
    // The worker loads its item: the owner need not have the collection.
    assert.equal(grant.iteration?.value, undefined);
    assert.ok(grant.iteration?.collection_ref);
    play.report(grant);
    assert.equal(play.run().status, "COMPLETED");
  });

  it("a loop of 100,000 iterations keeps a bit for each that is over", () => {
    const play = begin(over("100000", "mode: parallel, max_in_flight: 100"));
    play.thorough = false;
    for (let turn = 0; turn < 300; turn += 1) play.finish("each");
    const loop = [...play.streams].find(([id]) => id !== EXECUTION_ID)?.[1];
    const text = JSON.stringify({
      ...(loop?.machine.freeze(loop.state) as JsonObject),
      collection: null,
    });
    assert.ok(text.length < 80_000, `${text.length} bytes`);
  });
});
