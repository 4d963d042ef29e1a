/** How fast a loop goes, from the few marks that its row keeps. */
import { strict as assert } from "node:assert";
import { firstMarks, marked, paceOf, type PaceMark } from "../../schemas/loop-pace.ts";
import { foldNext, emptyRow, type LoopProgress } from "../../services/projection/fold.ts";
import { Play } from "../support/execution-play.ts";

/** A loop whose items end at these times, in milliseconds since its start. */
function run(total: number, times: Iterable<number>) {
  let marks: PaceMark[] = firstMarks(0);
  let done = 0;
  for (const at of times) marks = marked(marks, at, (done += 1));
  return { total, done, failed: 0, started_at: 0, marks };
}

function* every(ms: number, count: number, from = 0): Iterable<number> {
  for (let at = 1; at <= count; at += 1) yield from + at * ms;
}

const UNSAID = { rate_per_second: null, eta_seconds: null };

describe("the pace of a loop", () => {
  it("is not said in its first second, nor before anything has ended", () => {
    assert.deepEqual(paceOf(run(100, every(10, 50)), 900), UNSAID);
    assert.deepEqual(paceOf(run(100, []), 60_000), UNSAID);
    assert.deepEqual(paceOf({ total: 9, done: 3, failed: 0, started_at: 0 }, 60_000), UNSAID);
  });

  it("is said after that, with what is left", () => {
    const pace = paceOf(run(1_000, every(10, 150)), 1_500);
    assert.deepEqual(pace, { rate_per_second: 100, eta_seconds: 9 });
  });

  it("is that of the last seconds: a slow start is forgotten", () => {
    const times = [...every(1_000, 20), ...every(1, 12_000, 20_000)];
    const { rate_per_second: rate } = paceOf(run(1e6, times), 32_000);
    assert.ok(rate !== null && rate > 950, String(rate));
  });

  it("is that of the last few items where each takes long", () => {
    const pace = paceOf(run(100, every(60_000, 50)), 50 * 60_000);
    assert.deepEqual(pace, { rate_per_second: 0.0167, eta_seconds: 3_000 });
  });

  it("slows down while nothing ends", () => {
    const loop = run(1_000, every(10, 900));
    const [soon, later] = [9_100, 90_000].map(now => paceOf(loop, now).rate_per_second ?? 0);
    assert.ok(soon! > 90 && later! < 11, `${soon} ${later}`);
  });

  it("of a loop that is over is that of its whole life, and nothing is left", () => {
    const over = { ...run(500, every(10, 500)), ended_at: 5_000 };
    assert.deepEqual(paceOf(over, 1e9), { rate_per_second: 100, eta_seconds: null });
  });

  it("costs the same at any n: six marks", () => {
    assert.equal(run(1e6, every(1, 1e6)).marks.length, 6);
  });

  it("is kept by the row while the loop runs, and not after", () => {
    const play = Play.of("- {step: each, loop: {in: 3, iterator: i}, tool: {kind: noop}}");
    play.finish("each", undefined, 0);
    const rows = [0, 1].map(ends => {
      if (ends === 1) play.run();
      const [first] = play.log;
      assert.ok(first?.event_type === "playbook.initialized");
      return play.log.reduce((row, event) => {
        const next = foldNext(row, event);
        return typeof next === "string" ? row : next;
      }, emptyRow(first));
    });
    const [running, over] = rows.map(row => (row.state["loop"] as Record<string, object>)["each"]);
    assert.deepEqual((running as LoopProgress).marks, [[play.now, 0]]);
    assert.ok(!("marks" in over!));
  });
});
