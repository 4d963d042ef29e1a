/** What takes too long: a command in the queue, one attempt of it, and the whole run. */
import { strict as assert } from "node:assert";
import { abandoned } from "../../schemas/command-failures.ts";
import { parsePlaybook } from "../../schemas/playbook/parse.ts";
import { Play, playbookOf } from "../support/execution-play.ts";

const ONE = (limit: string) => `
- {step: start, tool: {kind: noop}, spec: {${limit}}, next: {arcs: [{step: end}]}}
- {step: end, tool: {kind: noop}}`;
const EACH = (limit: string) => `
- step: start
  loop: {in: 40, iterator: i, spec: {mode: parallel, max_in_flight: 2, tolerated_failure_count: 1}}
  tool: {kind: noop}
  spec: {${limit}}`;

/** The errors with which commands ended. */
function codes(play: Play): (string | undefined)[] {
  return play.all("command.failed").map(event => event.result.error?.code);
}

function deadlineOf(play: Play, streamId: string): number | undefined {
  const { machine, state } = play.streams.get(streamId)!;
  return machine.deadline(state, play.context());
}

describe("a queue timeout", () => {
  it("fails a command that no worker takes in time, also of a loop, and names itself", () => {
    for (const workflow of [ONE("queue_timeout: 5s"), EACH("queue_timeout: 5s")]) {
      const play = Play.of(workflow);
      play.deliver();
      const id = [...play.streams.keys()].at(-1)!;
      assert.equal(deadlineOf(play, id), play.now + 5_000);
      play.now += 4_999;
      assert.equal(play.wake(id).changed, false);
      play.now += 1;
      play.wake(id);
      play.deliver();
      assert.ok(codes(play).length > 0 && codes(play).every(code => code === "QUEUE_TIMEOUT"));
      assert.equal(play.all("command.failed")[0]?.result.error?.kind, "timeout");
    }
  });

  it("begins anew when a worker gave it back, and counts no pause", () => {
    const play = Play.of(ONE("queue_timeout: 5s"));
    const grant = play.claim("start");
    play.now += 60_000;
    const { command_id, delivery, stream_id } = grant;
    play.send(stream_id, { type: "release", command_id, delivery, worker_id: "w1" });
    play.now += 4_000;
    assert.equal(play.wake().changed, false);
    play.ask({ type: "pause" });
    play.now += 60_000;
    assert.equal(play.wake().changed, false);
    play.ask({ type: "resume" });
    play.now += 4_000;
    assert.equal(play.wake().changed, false);
    play.now += 1_000;
    play.wake();
    assert.deepEqual(codes(play), ["QUEUE_TIMEOUT"]);
  });
});

describe("an attempt timeout", () => {
  it("fails what its worker holds too long, tells that one to stop, takes nothing late", () => {
    const play = Play.of(ONE("attempt_timeout: 5s"));
    const grant = play.claim("start");
    play.now += 5_000;
    play.wake();
    assert.deepEqual(codes(play), ["ATTEMPT_TIMEOUT"]);
    const [failed] = play.all("command.failed");
    assert.equal(abandoned(failed!)?.worker_id, "w1");
    play.try(() => play.report(grant));
    assert.equal(play.refusals.at(-1), "settled");
    assert.equal(play.status, "FAILED");
  });

  it("ends one item of a loop, never a frame of them", () => {
    const play = Play.of(EACH("attempt_timeout: 5s"));
    play.itemMs = 1;
    const hangs = play.claim("start", { index: 0 });
    for (let turn = 0; turn < 20; turn += 1) {
      const other = play.rings().find(ring => ring.command_id !== hangs.command_id);
      play.report(play.claimRing(other!)!);
    }
    assert.ok(play.all("command.issued").every(one => one.meta.count === undefined));
    play.now += 5_000;
    play.wake(hangs.stream_id);
    assert.deepEqual(codes(play), ["ATTEMPT_TIMEOUT"]);
    assert.equal(play.run().status, "COMPLETED");
    assert.equal(play.all("loop.done")[0]?.meta.stats.failed, 1);
  });
});

describe("the timeout of an execution", () => {
  const LIMIT = "executor: {spec: {timeout: 1m}}";

  it("ends all that is open, and the run FAILED when nothing below it can start", () => {
    const play = Play.of(EACH(""), {}, LIMIT);
    const grant = play.claim("start");
    play.now += 59_999;
    assert.equal(play.wake().changed, false);
    play.now += 1;
    play.wake();
    assert.equal(play.status, "RUNNING");
    play.deliver();
    assert.equal(play.status, "FAILED");
    const { error } = (play.terminal?.result ?? {}) as { error?: Record<string, unknown> };
    assert.deepEqual([error?.["kind"], error?.["code"]], ["timeout", "EXECUTION_TIMEOUT"]);
    assert.equal(play.terminal?.event_type, "playbook.failed");
    play.try(() => play.report(grant));
    assert.equal(play.refusals.at(-1), "settled");
  });

  it("counts the time it was not paused, and is kept by a snapshot", () => {
    const play = Play.of(ONE(""), {}, LIMIT);
    play.now += 30_000;
    play.ask({ type: "pause" });
    play.now += 3_600_000;
    play.ask({ type: "resume" });
    assert.equal(deadlineOf(play, "1000"), play.now + 30_000);
  });

  it("is said by the playbook, or by its start", () => {
    const play = new Play(playbookOf(ONE(""), LIMIT));
    play.start({}, { timeout_ms: 5_000 });
    assert.equal(play.all("playbook.initialized")[0]?.meta.timeout_ms, 5_000);
    assert.throws(
      () => parsePlaybook(playbookOf(ONE(""), "executor: {spec: {timeout: soon}}")),
      /timeout: .*duration/,
    );
  });
});
