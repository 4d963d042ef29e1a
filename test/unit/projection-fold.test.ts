/** The row people read: the same from any order of hints as from the log, with true numbers. */
import { strict as assert } from "node:assert";
import type { StoredEvent } from "../../schemas/events.ts";
import { emptyRow, foldable, foldNext, type LoopProgress } from "../../services/projection/fold.ts";
import { rebuildRow } from "../../services/projection/projector.ts";
import { Chaos } from "../support/chaos.ts";
import { EXECUTION_ID, Play } from "../support/execution-play.ts";
import { answerOf, pick, randomFlow, randomOf } from "../support/random-flows.ts";
import { failed, frameReply, ok } from "../support/worker-replies.ts";

type Row = NonNullable<ReturnType<typeof rebuildRow>>;

/** Folds events in the order given, passing over what is old or comes too early. */
function hint(row: Row, events: StoredEvent[]): { row: Row; gaps: number } {
  let gaps = 0;
  for (const event of events) {
    const next = foldNext(row, event);
    if (next === "gap") gaps += 1;
    else if (next !== "old") row = next;
  }
  return { row, gaps };
}

const byTime = (log: StoredEvent[]) =>
  log.toSorted((a, b) => Number(BigInt(a.event_id) - BigInt(b.event_id)));

function start(log: StoredEvent[]): Row {
  const first = log.find(event => event.event_type === "playbook.initialized");
  assert.ok(first?.event_type === "playbook.initialized");
  return emptyRow(first);
}

function progressOf(row: Row | undefined, step: string): Partial<LoopProgress> {
  return (row?.state["loop"] as Record<string, LoopProgress> | undefined)?.[step] ?? {};
}

const LOOP = `
- {step: start, tool: {kind: noop}, next: {arcs: [{step: each}]}}
- step: each
  loop: {in: 5, iterator: i, spec: {mode: parallel, max_in_flight: 3, tolerated_failure_count: 2}}
  tool: {kind: noop}
  set: {ctx.n: "{{ (ctx.n or 0) + 1 }}"}
  next: {arcs: [{step: each, when: "{{ ctx.n < 2 }}"}]}`;

describe("the projection's fold", () => {
  it("gives the same row from the log by stream as from events as they were made", () => {
    for (let seed = 1; seed <= 60; seed += 1) {
      const random = randomOf(seed);
      const flow = randomFlow(random);
      const play = Play.of(flow.yaml, {}, flow.more);
      play.thorough = false;
      const answer: ConstructorParameters<typeof Chaos>[1]["answer"] = grant =>
        frameReply(grant, one => answerOf(flow, one));
      new Chaos(play, { random, answer, turns: 80, mayCancel: seed % 3 === 0 }).run();
      const { row } = hint(start(play.log), byTime(play.log));
      assert.deepEqual(rebuildRow(play.log), row, `seed ${seed}`);
      const told = JSON.parse(JSON.stringify(byTime(play.log).map(foldable))) as StoredEvent[];
      assert.deepEqual(hint(start(play.log), told).row, row, `as another node is told, ${seed}`);
      assert.equal(row.status, play.status, `seed ${seed}`);
    }
  });

  it("comes to the same row from lost, doubled and disordered hints once the log follows", () => {
    const play = Play.of(LOOP).run({ "each/1": failed() });
    const log = byTime(play.log);
    const rebuilt = rebuildRow(log);
    for (let seed = 1; seed <= 50; seed += 1) {
      const random = randomOf(seed);
      const noise = Array.from({ length: 60 }, () => pick(random, log));
      const hinted = hint(start(log), noise);
      assert.ok(hinted.gaps > 0);
      assert.deepEqual(hint(hinted.row, log), { row: rebuilt, gaps: 0 }, `seed ${seed}`);
    }
  });

  it("never goes back: an event that was folded changes nothing", () => {
    const log = byTime(Play.of(LOOP).run().log);
    const { row } = hint(start(log), log);
    for (const event of log) assert.equal(foldNext(row, event), "old", event.event_type);
  });

  it("counts a loop's iterations while it runs: done, failed and in flight", () => {
    const play = Play.of(LOOP);
    play.finish("start");
    play.finish("each", failed(), 0);
    const [one] = [play.claim("each"), play.claim("each")];
    play.finish("each", ok());
    const now = () => progressOf(rebuildRow(byTime(play.log)), "each");
    assert.partialDeepStrictEqual(now(), {
      total: 5,
      done: 1,
      failed: 1,
      in_flight: 2,
      completed: false,
    });
    const { command_id, delivery, stream_id } = one;
    play.send(stream_id, { type: "release", command_id, delivery, worker_id: "w1" });
    assert.equal(now().in_flight, 1);
    play.run();
    // One claim is still out.
    assert.equal(play.status, "RUNNING");
  });

  it("counts a command once that is given up after its workers died", () => {
    const play = Play.of(LOOP);
    play.settings.max_attempts = 1;
    play.finish("start");
    const grants = [play.claim("each", { worker: "w1" }), play.claim("each", { worker: "w2" })];
    play.alive.delete("w1");
    play.wake(grants[0]?.stream_id);
    assert.partialDeepStrictEqual(progressOf(rebuildRow(byTime(play.log)), "each"), {
      failed: 1,
      in_flight: 1,
      done: 0,
    });
  });

  it("shows the newest activation of a loop, also when its id is lower than the one before", () => {
    const play = Play.of(LOOP).run({ "each/1": failed() });
    const [first, second] = play.all("loop.started").map(event => event.stream_id);
    assert.ok(first && second);
    const low = (id: string) => (id === second ? "17" : id);
    const log = byTime(play.log).map(event => ({ ...event, stream_id: low(event.stream_id) }));
    const { row, gaps } = hint(start(log), log);
    assert.equal(gaps, 0);
    const shown = progressOf(row, "each");
    assert.partialDeepStrictEqual(shown, {
      loop_id: "17",
      activation: 2,
      total: 5,
      done: 4,
      failed: 1,
      in_flight: 0,
      completed: true,
      status: "ok",
    });
    assert.deepEqual(rebuildRow(log), row);
    // Without the start of the newer one its facts are early, not old: the start can be found.
    const headless = log.filter(
      event => event.event_type !== "loop.started" || event.stream_id !== "17",
    );
    const missed = hint(start(headless), headless);
    assert.ok(missed.gaps > 0);
    assert.deepEqual(hint(missed.row, log), { row, gaps: 0 });
  });

  it("adds up retries, of steps and of iterations", () => {
    const stats = { task_runs: 3, retries: 2, duration_ms: 1 };
    const play = Play.of(LOOP);
    play.report(play.claim("start"), { ...ok(), stats } as never);
    play.report(play.claim("each"), { ...ok(), stats } as never);
    const row = rebuildRow(byTime(play.log));
    assert.deepEqual(row?.state["counts"], { steps: 2, retries: 2 });
    assert.equal(progressOf(row, "each").retries, 2);
  });

  it("shows the error of a failed run with its step, and that a cancel was asked for", () => {
    const flow = "- {step: start, tool: {kind: noop}}";
    const broken = rebuildRow(Play.of(flow).run({ start: failed("no luck") }).log);
    assert.partialDeepStrictEqual(broken, {
      status: "FAILED",
      error: { step: "start", message: "no luck" },
    });
    const play = Play.of(flow);
    play.ask({ type: "cancel" });
    const asked = rebuildRow(play.log);
    assert.deepEqual([asked?.status, asked?.state["cancel_requested"]], ["RUNNING", true]);
    play.deliver();
    assert.equal(rebuildRow(play.log)?.status, "CANCELLED");
    assert.equal(rebuildRow(play.eventsOf(EXECUTION_ID).slice(1)), undefined);
  });
});
