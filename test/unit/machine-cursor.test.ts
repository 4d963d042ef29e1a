/** Loops over a cursor: slots that claim, run, and claim again until there is nothing. */
import { strict as assert } from "node:assert";
import type { Grant } from "../../schemas/frozen-scope.ts";
import { commandId, parseCommandId } from "../../schemas/ids.ts";
import {
  claimFailure,
  cursorPlay,
  leaving,
  Queue,
  roundReply,
  rowsReply,
} from "../support/cursor-play.ts";
import type { Play } from "../support/execution-play.ts";
import { ok } from "../support/worker-replies.ts";

const PARTIAL = { final: false };

/** Plays on until all slots are drained. */
function drain(play: Play, queue: Queue): Play {
  return play.run({ work: grant => roundReply(grant, queue) });
}

const done = (play: Play) => play.all("loop.done").map(({ meta }) => meta);
const issued = (play: Play) =>
  play.all("command.issued").flatMap(({ meta }) => (meta.slot === undefined ? [] : [meta]));

describe("a loop over a cursor", () => {
  it("claims in each slot until a claim gives nothing, then is done once", () => {
    const play = drain(cursorPlay("max_in_flight: 2"), new Queue(10));
    assert.equal(play.status, "COMPLETED");
    const stats = { total: 10, success: 10, failed: 0, not_run: 0 };
    assert.deepEqual(
      done(play).map(meta => [meta.collection_size, meta.stats, meta.status]),
      [[10, stats, "ok"]],
    );
    const drained = play.all("frame.committed").filter(({ meta }) => meta.drained);
    assert.deepEqual(drained.map(({ meta }) => meta.slot).sort(), [0, 1]);
    assert.deepEqual(play.entered, ["work", "last"]);
  });

  it("names its commands by slot and round, and the names come back as they were", () => {
    const play = drain(cursorPlay("max_in_flight: 2"), new Queue(5));
    assert.deepEqual(
      issued(play)
        .map(meta => meta.command_id)
        .slice(0, 3),
      ["1000:work:1:c0-1:1", "1000:work:1:c1-1:1", "1000:work:1:c0-2:1"],
    );
    const name = {
      ...{ execution_id: "7", step: "a:b", activation: 2, attempt: 3 },
      cursor: { slot: 4, round: 12 },
    };
    assert.deepEqual(parseCommandId(commandId(name)), name);
  });

  it("gives rows their indexes in order of acceptance, across slots and flushes", () => {
    const play = cursorPlay("max_in_flight: 2");
    const [one, two] = [play.claim("work"), play.claim("work")] as [Grant, Grant];
    play.report(one, rowsReply({ ok: [1], failed: [3] }, PARTIAL));
    play.report(two, rowsReply({ ok: [0, 1] }, PARTIAL));
    play.report(one, rowsReply({ ok: [0, 2] }));
    const told = play.all("frame.committed").map(({ meta }) => [meta.first, meta.ok, meta.failed]);
    assert.deepEqual(told, [
      [0, "0", "1"],
      [2, "2-3", ""],
      [4, "4-5", ""],
    ]);
    play.report(two, rowsReply({}, {}));
    drain(play, new Queue(0));
    assert.deepEqual(done(play)[0]?.stats, { total: 6, success: 5, failed: 1, not_run: 0 });
  });

  it("takes the same report once, and refuses one that repeats some rows or makes some up", () => {
    const play = cursorPlay("max_in_flight: 1");
    const grant = play.claim("work");
    const told = rowsReply({ ok: [0, 1] }, PARTIAL);
    play.report(grant, told);
    const before = play.log.length;
    play.report(grant, told);
    assert.equal(play.log.length, before);
    for (const wrong of [
      rowsReply({ ok: [1, 2] }),
      rowsReply({ ok: [2], failed: [2] }),
      rowsReply({ ok: [2] }, { drained: true }),
      { ...ok(), frame: { ok: "x", failed: "", final: true } },
      ok(),
    ]) {
      play.try(() => play.report(grant, wrong));
      assert.equal(play.refusals.pop(), "malformed");
    }
  });

  it("hands the next round over with the answer to the last, and again when that was lost", () => {
    const play = cursorPlay("max_in_flight: 1");
    const grant = play.claim("work");
    const next = { worker_id: "w1", incarnation: "w1", claim_id: "next" };
    const { command_id, delivery, stream_id } = grant;
    const ids = { type: "outcome", command_id, delivery, worker_id: "w1" };
    const report = () => play.send(stream_id, { ...ids, ...rowsReply({ ok: [0] }), next });
    const first = report().grant;
    assert.deepEqual(report().grant, first);
    assert.equal(first?.command_id, "1000:work:1:c0-2:1");
    const rows = issued(play).length + play.all("command.claimed").length;
    assert.equal(rows + play.all("frame.committed").length, 4, "two facts a round after the first");
  });

  it("drains a slot once: the news again is refused, and nothing more is issued", () => {
    const play = cursorPlay("max_in_flight: 2");
    const grant = play.claim("work");
    play.report(grant, rowsReply({}, { drained: true }));
    play.try(() => play.report(grant, rowsReply({}, { drained: true })));
    assert.deepEqual(play.refusals, ["settled"]);
    assert.deepEqual(
      play.rings().map(ring => ring.command_id),
      ["1000:work:1:c1-1:1"],
    );
  });

  it("says that a long frame goes on by a heartbeat, which is no row", () => {
    const play = cursorPlay("max_in_flight: 1");
    const grant = play.claim("work");
    play.report(grant, rowsReply({}, PARTIAL));
    assert.equal(play.all("frame.heartbeat")[0]?.meta.command_id, grant.command_id);
    play.try(() => play.report({ ...grant, delivery: 2 }, rowsReply({}, PARTIAL)));
    assert.deepEqual(play.refusals, ["fenced"]);
    play.report(grant, rowsReply({ ok: [0] }));
    drain(play, new Queue(0));
    assert.equal(done(play)[0]?.collection_size, 1);
  });

  it("bears failed rows: the step is ok, and says partial", () => {
    const play = cursorPlay("max_in_flight: 1");
    play.report(play.claim("work"), rowsReply({ ok: [0], failed: [1, 2] }, { broke: 1 }));
    drain(play, new Queue(0));
    assert.equal(play.status, "COMPLETED");
    const exit = play.all("step.exit")[0]?.result as { reference: { extract: object } };
    assert.deepEqual(exit.reference.extract, {
      ...{ processed: 3, failed: 2, breaks: 1, frame_count: 1, status: "partial" },
      stats: { total: 3, success: 1, failed: 2, not_run: 0 },
    });
  });

  it("fails above a tolerance that is told, at once by count and in the end by share", () => {
    const few = cursorPlay("max_in_flight: 1, tolerated_failure_count: 1");
    const grant = few.claim("work");
    assert.equal(grant.cursor?.tolerance, 1);
    few.report(grant, rowsReply({ failed: [0, 1] }));
    assert.deepEqual([done(few)[0]?.status, few.run().status], ["failed", "FAILED"]);
    for (const [percent, status] of [
      [50, "COMPLETED"],
      [49, "FAILED"],
    ] as const) {
      const share = cursorPlay(`max_in_flight: 1, tolerated_failure_percent: ${percent}`);
      share.report(share.claim("work"), rowsReply({ ok: [1], failed: [0] }));
      assert.equal(drain(share, new Queue(0)).status, status);
    }
  });

  it("begins a frame with the rows that the last one left, also for another worker", () => {
    const play = cursorPlay("max_in_flight: 1");
    const queue = new Queue(4);
    const rows = queue.take(play.claim("work"));
    const first = issued(play)[0]!;
    const place = { command_id: first.command_id, stream_id: first.loop_id!, delivery: 1 };
    play.report(place as Grant, rowsReply({ ok: [0] }, leaving(rows.slice(1))));
    const again = play.claim("work");
    assert.deepEqual(again.cursor?.left?.rows, rows.slice(1));
    play.report(again, rowsReply({ ok: [1] }, PARTIAL));
    play.alive.delete("w1");
    play.wake(again.stream_id);
    play.alive.add("w3");
    const third = play.claim("work", { worker: "w3" });
    assert.deepEqual([third.delivery, third.cursor?.told], [2, "1"]);
    assert.deepEqual(queue.take(third), [rows[1], rows[3]]);
    play.report(third, rowsReply({ ok: [0, 2] }), "w3");
    drain(play, queue);
    assert.equal(done(play)[0]?.collection_size, 4);
  });

  it("lets another worker claim anew when one dies; what it had told stays told", () => {
    const play = cursorPlay("max_in_flight: 1");
    const dead = play.claim("work");
    play.report(dead, rowsReply({ ok: [0, 1] }, PARTIAL));
    play.alive.delete("w1");
    play.wake(dead.stream_id);
    const next = play.claim("work", { worker: "w2" });
    assert.deepEqual([next.delivery, next.cursor?.told, next.cursor?.left], [2, "", undefined]);
    play.try(() => play.report(dead, rowsReply({ ok: [2, 3] })));
    assert.deepEqual(play.refusals, ["fenced"]);
    play.report(next, rowsReply({ ok: [0, 1] }), "w2");
    play.alive.add("w1");
    drain(play, new Queue(0));
    assert.equal(done(play)[0]?.stats.success, 4);
  });

  it("gives a slot up whose workers die again and again; the others finish their frames", () => {
    const play = cursorPlay("max_in_flight: 2");
    const other = play.claim("work", { worker: "w2" });
    for (let death = 0; death < 3; death += 1) {
      play.alive.add("w1");
      const { stream_id } = play.claim("work", { worker: "w1" });
      play.alive.delete("w1");
      play.wake(stream_id);
    }
    assert.deepEqual(done(play), []);
    play.report(other, rowsReply({ ok: [0] }), "w2");
    assert.deepEqual([done(play)[0]?.status, done(play)[0]?.collection_size], ["failed", 1]);
    assert.match(JSON.stringify(play.run().terminal?.result), /WORKER_LOST/);
  });
});

describe("a claim that fails", () => {
  it("is made again after a while, each time a longer one, as a command of its own", () => {
    const play = cursorPlay("max_in_flight: 1");
    const began = play.now;
    const claimIds: string[] = [];
    for (const pause of [1_000, 2_000]) {
      const grant = play.claim("work");
      claimIds.push(grant.command_id);
      play.report(grant, claimFailure(true));
      assert.deepEqual(play.rings(), []);
      play.now += pause - 1;
      play.wake(grant.stream_id);
      assert.deepEqual(play.rings(), []);
      play.now += 1;
      play.wake(grant.stream_id);
    }
    assert.equal(play.now - began, 3_000);
    drain(play, new Queue(3));
    assert.deepEqual(claimIds, ["1000:work:1:c0-1:1", "1000:work:1:c0-1:2"]);
    assert.deepEqual([play.status, done(play)[0]?.collection_size], ["COMPLETED", 3]);
  });

  it("fails the loop with its error when it may not be made again", () => {
    for (const [frame, retryable, tries] of [
      ["max_rows: 4", false, 1],
      ["max_rows: 4", true, 3],
      ["max_rows: 4, max_attempts: 2", true, 2],
      ["max_rows: 4, retry_mode: none", true, 1],
    ] as const) {
      const play = cursorPlay("max_in_flight: 2", frame);
      const other = play.claim("work");
      for (let count = 0; count < tries; count += 1) {
        const grant = play.claim("work");
        play.report(grant, claimFailure(retryable));
        play.now += 60_000;
        play.wake(grant.stream_id);
      }
      assert.deepEqual(play.rings(), [], "the other slot finishes, and claims no more");
      play.report(other, rowsReply({ ok: [0] }));
      assert.deepEqual([done(play)[0]?.status, done(play)[0]?.stats.total], ["failed", 1]);
      assert.match(JSON.stringify(play.run().terminal?.result), /57P01/);
    }
  });

  it("names when the stream must be woken for it", () => {
    const play = cursorPlay("max_in_flight: 1");
    const grant = play.claim("work");
    play.report(grant, claimFailure(true));
    const { machine, state } = play.streams.get(grant.stream_id)!;
    assert.equal(machine.deadline(state, play.context()), play.now + 1_000);
  });

  it("that never runs dry ends the loop at max_iterations, with what to do about it", () => {
    const play = cursorPlay("max_in_flight: 2", "max_rows: 4", "max_iterations: 3");
    play.run({ work: rowsReply({ ok: [0] }) });
    assert.equal(issued(play).length, 6);
    assert.deepEqual([done(play)[0]?.status, done(play)[0]?.collection_size], ["failed", 6]);
    assert.match(JSON.stringify(play.terminal?.result), /claimed 3 times.*max_iterations/);
  });
});

describe("a loop over a cursor that is ended", () => {
  it("by a cancel drops its frames, and counts the rows that were told", () => {
    const play = cursorPlay("max_in_flight: 2");
    const grant = play.claim("work");
    play.report(grant, rowsReply({ ok: [0, 1] }, PARTIAL));
    play.ask({ type: "cancel", reason: "enough" });
    play.deliver();
    play.try(() => play.report(grant, rowsReply({ ok: [2] })));
    assert.deepEqual(play.refusals, ["settled"]);
    assert.equal(play.status, "CANCELLED");
    assert.deepEqual(done(play)[0]?.stats, { total: 2, success: 2, failed: 0, not_run: 0 });
    assert.equal(play.all("command.cancelled").length, 2);
  });

  it("by a stop finishes the frames that run, with the rows they leave, and claims no more", () => {
    const play = cursorPlay("max_in_flight: 3");
    const queue = new Queue(8);
    const [one, two] = [play.claim("work"), play.claim("work")] as [Grant, Grant];
    const rows = queue.take(one);
    queue.take(two);
    const start = { ...one, type: "start", loop_id: one.stream_id } as never;
    play.send(one.stream_id, { type: "stop", reason: "no use", start });
    assert.equal(play.all("command.cancelled").length, 1, "what nobody has begun");
    play.report(two, rowsReply({ ok: [0, 1, 2, 3] }));
    play.report(one, rowsReply({ ok: [0] }, leaving(rows.slice(1))));
    assert.deepEqual(done(play), []);
    play.send(one.stream_id, { type: "stop", reason: "again", start });
    const last = play.claim("work");
    assert.deepEqual(queue.take(last), rows.slice(1));
    play.report(last, rowsReply({ ok: [0, 1, 2] }));
    assert.deepEqual([done(play)[0]?.status, done(play)[0]?.collection_size], ["cancelled", 8]);
    assert.deepEqual(
      play.rings().filter(ring => ring.step === "work"),
      [],
    );
  });

  it("by a stop keeps rows that wait for a worker: they are claimed", () => {
    const play = cursorPlay("max_in_flight: 2");
    const queue = new Queue(4);
    const grant = play.claim("work");
    const rows = queue.take(grant);
    play.report(grant, rowsReply({ ok: [0] }, leaving(rows.slice(1))));
    const start = { ...grant, type: "start", loop_id: grant.stream_id } as never;
    play.send(grant.stream_id, { type: "stop", reason: "no use", start });
    assert.equal(play.all("command.cancelled").length, 1, "the slot that has claimed nothing");
    assert.deepEqual(queue.take(play.claim("work")), rows.slice(1));
  });
});
