/** Redriving: what failed runs again, what was accepted stays, and the execution goes on. */
import { strict as assert } from "node:assert";
import type { Json } from "../../schemas/json.ts";
import { toRanges } from "../../schemas/ranges.ts";
import { Play } from "../support/execution-play.ts";
import { failed, ok, resultOf, type Answers } from "../support/worker-replies.ts";

const redrive = (play: Play, more: { step?: string; items?: Record<string, string> } = {}) => {
  const { generation } = play.ask({ type: "describe" });
  play.ask({ type: "redrive", generation, ...more });
  play.deliver();
  return play;
};
const loopIds = (play: Play) => play.all("loop.started").map(({ meta }) => meta.loop_id);
const statsOf = (play: Play) => play.all("loop.done").at(-1)?.meta.stats;

const resultsAt = (play: Play, ref: string) => (play.load(ref) as { results: Json[] }).results;

/** Which items ran since, in order. */
function ranWith(play: Play, answers: Answers = {}): number[] {
  const ran: number[] = [];
  play.run({
    each: grant => {
      ran.push(grant.iteration?.index ?? -1);
      const answer = answers[`each/${grant.iteration?.index}`] ?? answers["each"] ?? ok();
      return typeof answer === "function" ? answer(grant) : answer;
    },
  });
  return ran;
}

const STEPS = `
- {step: one, tool: {kind: noop}, next: {arcs: [{step: two}]}}
- {step: two, tool: {kind: noop}, next: {arcs: [{step: three}]}}
- {step: three, tool: {kind: noop, input: {seen: "{{ two.n }}"}}}
`;

describe("redrive of steps", () => {
  it("runs the failed step again, not those before it, and goes on from there", () => {
    const play = Play.of(STEPS).run({ two: failed() });
    assert.equal(play.status, "FAILED");
    redrive(play);
    assert.equal(play.status, "RUNNING");
    play.run({ two: ok({ n: 7 }) });
    assert.equal(play.status, "COMPLETED");
    assert.deepEqual(play.entered, ["one", "two", "two", "three"]);
    const generations = play.log.flatMap(({ event_type, meta }) =>
      /^playbook\.(failed|completed)$|redriven/.test(event_type)
        ? [[event_type, (meta as { generation: number }).generation]]
        : [],
    );
    assert.deepEqual(generations, [
      ["playbook.failed", 0],
      ["execution.redriven", 1],
      ["playbook.completed", 1],
    ]);
  });

  it("gives it a new command under the idempotency keys of the first try", () => {
    const play = Play.of(STEPS);
    play.finish("one");
    const first = play.claim("two");
    play.report(first, failed());
    const second = redrive(play).claim("two");
    assert.notEqual(second.command_id, first.command_id);
    assert.deepEqual([first.keyed, second.activation, second.keyed], [undefined, 2, 1]);
    play.report(second, failed());
    const third = redrive(play).claim("two");
    assert.deepEqual([third.activation, third.keyed], [3, 1]);
  });

  it("ends FAILED again when it fails again, once a generation", () => {
    const play = Play.of(STEPS).run({ two: failed() });
    redrive(play).run({ two: failed() });
    redrive(play).run({ two: failed() });
    assert.deepEqual(
      play.all("playbook.failed").map(({ meta }) => meta.generation),
      [0, 1, 2],
    );
  });

  it("is refused while it runs, when nothing failed or it was cancelled, for another step", () => {
    const refusal = (play: Play, more = {}) => {
      try {
        redrive(play, more);
      } catch (error) {
        return (error as Error).message;
      }
      return "";
    };
    assert.match(refusal(Play.of(STEPS)), /has not ended/);
    assert.match(refusal(Play.of(STEPS).run()), /nothing of the execution failed/);
    const broken = Play.of(STEPS).run({ two: failed() });
    assert.match(refusal(broken, { step: "one" }), /'one' has nothing to run again; .*two/);
    const cancelled = Play.of(STEPS);
    cancelled.ask({ type: "cancel" });
    cancelled.deliver();
    assert.match(refusal(cancelled), /was cancelled/);
  });

  it("asked twice, brings it back once", () => {
    const play = Play.of(STEPS).run({ two: failed() });
    redrive(play);
    assert.equal(play.ask({ type: "redrive", generation: 0 }).changed, false);
    assert.throws(() => play.ask({ type: "redrive", generation: 1 }), /has not ended/);
    play.run({ two: failed() });
    assert.throws(() => play.ask({ type: "redrive", generation: 0 }), /has ended again since/);
    assert.equal(play.all("execution.redriven").length, 1);
  });

  it("takes up what the failure had cut off: tokens that waited, and exits without arcs", () => {
    const play = Play.of(`
- step: fork
  tool: {kind: noop}
  next: {spec: {mode: inclusive}, arcs: [{step: bad}, {step: good}]}
- {step: bad, tool: {kind: noop}, next: {arcs: [{step: join}]}}
- {step: good, tool: {kind: noop}, next: {arcs: [{step: after, set: {ctx.seen: "{{ good.n }}"}}]}}
- step: after
  tool: {kind: noop, input: {n: "{{ ctx.seen }}"}}
  next: {arcs: [{step: join}]}
- {step: join, tool: {kind: noop}}
`);
    play.finish("fork");
    const good = play.claim("good");
    play.finish("bad", failed());
    play.report(good, ok({ n: 3 }));
    assert.equal(play.status, "FAILED");
    redrive(play);
    assert.deepEqual(
      play.rings().map(({ step }) => step),
      ["bad", "after"],
    );
    const after = play.claim("after");
    assert.deepEqual(after.scope?.ctx, { seen: 3 });
    play.report(after);
    play.run();
    assert.equal(play.status, "COMPLETED");
    assert.deepEqual(play.entered, ["fork", "bad", "good", "bad", "after", "join"]);
  });

  it("enters a step whose turn never came, from where it would have come", () => {
    const play = Play.of(`
- step: fork
  tool: {kind: noop}
  next: {spec: {mode: inclusive}, arcs: [{step: slow}, {step: bad}, {step: quick}]}
- {step: slow, tool: {kind: noop}, next: {arcs: [{step: join}]}}
- {step: bad, tool: {kind: noop}}
- {step: quick, tool: {kind: noop}, next: {arcs: [{step: join}]}}
- {step: join, tool: {kind: noop, input: {from: "{{ result.n }}"}}}
`);
    play.finish("fork");
    play.finish("quick", ok({ n: 5 }));
    play.finish("bad", failed());
    play.finish("slow", ok({ n: 6 }));
    assert.equal(play.status, "FAILED");
    redrive(play).run();
    assert.equal(play.status, "COMPLETED");
    assert.deepEqual(play.entered, ["fork", "slow", "bad", "quick", "bad", "join"]);
  });

  it("of one step leaves the failures of others as they are: the end is FAILED", () => {
    const play = Play.of(`
- {step: fork, tool: {kind: noop}, next: {spec: {mode: inclusive}, arcs: [{step: a}, {step: b}]}}
- {step: a, tool: {kind: noop}}
- {step: b, tool: {kind: noop}}
`);
    play.finish("fork");
    const b = play.claim("b");
    play.finish("a", failed("a broke"));
    play.report(b, failed("b broke"));
    redrive(play, { step: "a" }).run();
    assert.deepEqual(play.entered, ["fork", "a", "b", "a"]);
    assert.equal(play.status, "FAILED");
    assert.match(resultOf(play.terminal).error?.message ?? "", /b broke/);
    redrive(play).run();
    assert.equal(play.status, "COMPLETED");
    assert.deepEqual(play.entered, ["fork", "a", "b", "a", "b"]);
  });

  it("runs the final step again", () => {
    const more = "executor: {spec: {final_step: tidy}}";
    const workflow = `
- step: one
  tool: {kind: noop}
  next: {arcs: [{step: two, when: "{{ event.status == 'failed' }}"}]}
- {step: two, tool: {kind: noop}}
- {step: tidy, tool: {kind: noop}}
`;
    const play = Play.of(workflow, {}, more).run({ one: failed() });
    assert.deepEqual(play.entered, ["one", "two", "tidy"]);
    assert.equal(play.status, "FAILED");
    redrive(play).run();
    assert.deepEqual(play.entered, ["one", "two", "tidy", "one", "tidy"]);
    assert.equal(play.status, "COMPLETED");
  });
});

/** each (a loop over 0 … n-1) → end. */
const looped = (spec: string, items: Json = 5, more = "") =>
  Play.of(
    `
- step: each
  loop: {in: "{{ items }}", iterator: item, spec: {${spec}}}
  tool: {kind: noop, input: {sum: "{{ ctx.sum }}"}}
${more}
  next: {arcs: [{step: end, when: "{{ event.name == 'loop.done' }}"}]}
- {step: end, tool: {kind: noop, input: {all: "{{ each.results }}"}}}
`,
    { items },
  );

describe("redrive of a loop", () => {
  const odd: Answers = {
    each: grant =>
      (grant.iteration?.index ?? 0) % 2 === 1 ? failed() : ok(grant.iteration?.index),
  };

  it("runs its failed items only, and has the results of all", () => {
    const play = looped("mode: parallel, max_in_flight: 5, tolerated_failure_count: 2");
    ranWith(play, odd);
    assert.equal(play.status, "COMPLETED");
    assert.deepEqual(statsOf(play), { total: 5, success: 3, failed: 2, not_run: 0 });
    redrive(play);
    assert.deepEqual(play.all("loop.started")[1]?.meta.inherited, { ok: 3, failed: 0 });
    assert.deepEqual(ranWith(play, { each: ok("again") }), [1, 3]);
    assert.deepEqual(statsOf(play), { total: 5, success: 5, failed: 0, not_run: 0 });
    const end = play.all("command.issued").filter(({ meta }) => meta.step === "end");
    assert.equal(end.length, 2, "its arcs are taken again");
    const [, second] = loopIds(play);
    const results = resultOf(play.all("step.exit").at(-1)).reference?.ref;
    assert.match(results ?? "", new RegExp(`${second}/results`));
    assert.deepEqual(resultsAt(play, results ?? ""), [0, "again", 2, "again", 4]);
  });

  it("runs what its failure had kept from running, too", () => {
    const play = looped("mode: sequential");
    assert.deepEqual(ranWith(play, { "each/2": failed(), each: ok() }), [0, 1, 2]);
    assert.deepEqual(statsOf(play), { total: 5, success: 2, failed: 1, not_run: 2 });
    assert.deepEqual(ranWith(redrive(play)), [2, 3, 4]);
    assert.equal(play.status, "COMPLETED");
  });

  it("goes on with the variables that its accepted items wrote", () => {
    const play = looped("mode: sequential");
    play.run({
      each: ({ iteration }) =>
        iteration?.index === 2 ? failed() : ok({}, { sum: iteration?.index as Json }),
    });
    const seen = redrive(play).claim("each");
    assert.deepEqual([seen.scope?.ctx, seen.iteration?.index], [{ sum: 1 }, 2]);
  });

  it("of chosen items leaves the others failed; too many of them still fail the loop", () => {
    const play = looped("mode: parallel, max_in_flight: 5, tolerated_failure_count: 1");
    play.run({ each: grant => ((grant.iteration?.index ?? 0) < 3 ? failed() : ok()) });
    assert.equal(play.status, "FAILED");
    const [first = ""] = loopIds(play);
    redrive(play, { items: { [first]: "2" } });
    assert.deepEqual(ranWith(play), [2]);
    assert.equal(play.status, "FAILED");
    assert.deepEqual(statsOf(play), { total: 5, success: 3, failed: 2, not_run: 0 });
    assert.match(
      resultOf(play.all("loop.done")[1]).error?.message ?? "",
      /2 items .* not run again/,
    );
    const [, second = ""] = loopIds(play);
    assert.deepEqual(ranWith(redrive(play, { items: { [second]: "0-1" } })), [0, 1]);
    assert.equal(play.status, "COMPLETED");
    assert.deepEqual(
      resultsAt(play, `noetl://execution/1000/loop/${loopIds(play)[2]}/results`).length,
      5,
    );
  });

  it("never evaluates its collection again", () => {
    const play = looped("mode: parallel, max_in_flight: 9", ["a", "b", "c"]);
    play.run({ each: failed() });
    const grant = redrive(play).claim("each", { index: 1 });
    assert.deepEqual(grant.iteration?.value, "b");
    assert.deepEqual(play.all("loop.started")[1]?.context?.["collection"], ["a", "b", "c"]);
  });

  it("begins anew where it never came to have a collection", () => {
    const play = looped("mode: parallel", null);
    play.run();
    assert.equal(play.status, "FAILED");
    redrive(play).run();
    assert.equal(play.all("loop.started").length, 2);
    assert.equal(play.status, "FAILED");
  });

  it("fails the step, typed, when the log of the first one is kept no longer", () => {
    const play = looped("mode: parallel");
    play.run({ each: failed() });
    play.lost.add(`noetl://execution/1000/loop/${loopIds(play)[0]}/origin`);
    redrive(play).run();
    assert.equal(play.status, "FAILED");
    assert.equal(resultOf(play.terminal).error?.kind, "missing_reference");
  });

  it("in frames covers what is left, however it lies, and never an item twice", () => {
    for (const broken of [3, 7, 40, 100]) {
      const play = looped("mode: parallel, max_in_flight: 4, tolerated_failure_count: 400", 400);
      play.thorough = false;
      play.itemMs = 1;
      const ran = new Map<number, number>();
      const run = (isBroken: (index: number) => boolean) =>
        play.run({
          each: ({ iteration }) => {
            const index = iteration?.index ?? 0;
            ran.set(index, (ran.get(index) ?? 0) + 1);
            return isBroken(index) ? failed() : ok(index);
          },
        });
      run(index => index % broken === 1);
      const expected = Array.from({ length: 400 }, (_, index) => index).filter(
        index => index % broken === 1,
      );
      redrive(play);
      run(() => false);
      assert.deepEqual(statsOf(play), { total: 400, success: 400, failed: 0, not_run: 0 });
      const twice = [...ran].filter(([, times]) => times > 1).map(([index]) => index);
      assert.equal(toRanges(twice.sort((a, b) => a - b)), toRanges(expected), `every ${broken}th`);
      const last = loopIds(play)[1] ?? "";
      assert.deepEqual(resultsAt(play, `noetl://execution/1000/loop/${last}/results`), [
        ...Array(400).keys(),
      ]);
    }
  });
});
