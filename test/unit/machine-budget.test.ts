/** Loops with a retry budget: an outage parks them, and no item fails that could have passed. */
import { strict as assert } from "node:assert";
import type { Grant } from "../../schemas/frozen-scope.ts";
import { fromRanges, toRanges } from "../../schemas/ranges.ts";
import {
  answered,
  gaveBack,
  nextTryAt,
  openThrottle,
  probed,
  startable,
} from "../../schemas/retry-budget.ts";
import { Chaos } from "../support/chaos.ts";
import { Play } from "../support/execution-play.ts";
import { randomOf } from "../support/random-flows.ts";
import { frameReply, ok, type Reply } from "../support/worker-replies.ts";

const ERROR = { kind: "server_error", retryable: true, code: "HTTP_503", message: "down" };

function loopOf(n: number, spec: string): string {
  return `
- step: each
  loop: {in: ${n}, iterator: i, spec: {mode: parallel, max_in_flight: 4, ${spec}}}
  tool: {kind: noop}`;
}

function fanoutOf(n: number, budget: number, retries = 0): string {
  return `
- step: each
  spec: {loop_mode: fanout, fanout: {max_in_flight: 4, max_shard_retries: ${retries}}}
  loop: {in: ${n}, iterator: i, spec: {retry_budget: ${budget}}}
  tool: {kind: noop}`;
}

/** What a worker says whose upstream is down from the item on that `isUp` denies. */
function reply(grant: Grant, isUp: (index: number) => boolean): Reply {
  const { frame, iteration } = grant;
  const back = (index?: number) =>
    grant.gives_back && { give_back: { error: ERROR, ...(index !== undefined && { index }) } };
  if (!frame) {
    if (isUp(iteration?.index ?? 0)) return ok();
    return { result: { status: "error", error: ERROR }, ...back() };
  }
  const left = fromRanges(frame.left, 0, Infinity) ?? [];
  const down = left.findIndex(index => !isUp(index));
  if (down < 0) return frameReply(grant, () => ok());
  const done = left.slice(0, down);
  const result = { status: "ok", context: { ok: done.map(() => null) }, error: ERROR } as const;
  const index = left[down] as number;
  return {
    result,
    frame: { ok: toRanges(done), failed: toRanges([index]), final: !grant.gives_back },
    ...back(index),
  };
}

const down = () => false;
const up = () => true;

/** Claims and reports whatever rings, once; how many that were. */
function round(play: Play, isUp: (index: number) => boolean): number {
  const grants = play.rings().flatMap(ring => play.try(() => play.claimRing(ring)) ?? []);
  for (const grant of grants) play.report(grant, reply(grant, isUp));
  return grants.length;
}

function loopId(play: Play): string {
  return play.all("loop.started")[0]?.stream_id as string;
}

function statsOf(play: Play) {
  return (play.all("loop.done")[0] ?? play.all("loop.fanin.completed")[0])?.meta.stats;
}

describe("a loop with a retry budget", () => {
  it("gives back what fails, is parked, and probes with one command at a growing pace", () => {
    const play = Play.of(loopOf(20, "retry_budget: 30, policy: {exec: distributed}"));
    assert.equal(round(play, down), 4);
    assert.deepEqual(play.rings(), []);
    const [first] = play.all("command.released");
    assert.equal(first?.meta.spent, 1);
    assert.equal(first?.meta.next_try_at, play.now + 500);
    assert.equal(play.wake(loopId(play)).changed, false);
    const pauses: number[] = [];
    for (let probe = 0; probe < 5; probe += 1) {
      const begun = play.now;
      while (!play.wake(loopId(play)).changed) play.now += 100;
      pauses.push(play.now - begun);
      assert.equal(round(play, down), 1);
    }
    assert.deepEqual(pauses, [500, 500, 1_000, 2_000, 3_000]);
    assert.equal(play.all("command.failed").length, 0);
    assert.equal(play.all("command.released").at(-1)?.meta.spent, 9);
  });

  it("opens step by step when a probe is answered, and ends with every item done", () => {
    const play = Play.of(loopOf(20, "retry_budget: 30, policy: {exec: distributed}"));
    round(play, down);
    play.now += 500;
    play.wake(loopId(play));
    const widths: number[] = [];
    while (play.status === "RUNNING") widths.push(round(play, up));
    assert.deepEqual(widths.slice(0, 4), [1, 2, 4, 4]);
    assert.equal(play.status, "COMPLETED");
    assert.deepEqual(statsOf(play), { total: 20, success: 20, failed: 0, not_run: 0 });
    assert.equal(play.all("command.issued").length, 20);
  });

  it("keeps what a frame has done before it met the outage", () => {
    const play = Play.of(loopOf(60, "retry_budget: 30"));
    play.itemMs = 1;
    while (play.all("command.issued").every(one => (one.meta.count ?? 1) < 4)) round(play, up);
    const done = () => play.all("frame.committed").length + play.all("command.completed").length;
    const before = done();
    const frames = new Set(play.all("command.issued").filter(one => one.meta.count === 4));
    const ids = [...frames].map(one => one.meta.command_id);
    const ring = play.rings().find(one => ids.includes(one.command_id));
    const grant = play.claimRing(ring!)!;
    const first = grant.frame!.first;
    play.report(
      grant,
      reply(grant, index => index < first + 2),
    );
    assert.equal(done(), before + 1);
    assert.equal(play.all("frame.committed").at(-1)?.meta.final, false);
    assert.equal(play.all("frame.committed").at(-1)?.meta.failed, "");
    while (play.status === "RUNNING") {
      play.now += 3_000;
      play.wake(loopId(play));
      round(play, up);
    }
    assert.deepEqual(statsOf(play), { total: 60, success: 60, failed: 0, not_run: 0 });
    assert.equal(play.all("command.issued").filter(one => one.meta.attempt > 1).length, 0);
  });

  it("fails items as any loop does when its budget is spent, in frames too", () => {
    for (const exec of ["distributed", "local"]) {
      const spec = `retry_budget: 5, tolerated_failure_count: 90, policy: {exec: ${exec}}`;
      const play = Play.of(loopOf(90, spec));
      play.itemMs = 1;
      for (let turn = 0; play.status === "RUNNING"; turn += 1) {
        assert.ok(turn < 500, "it does not end");
        play.now += 3_000;
        play.wake(loopId(play));
        round(play, index => index < 30);
      }
      assert.equal(play.status, "COMPLETED", exec);
      assert.deepEqual(statsOf(play), { total: 90, success: 30, failed: 60, not_run: 0 });
      const spent = play.all("command.released").map(one => one.meta.spent);
      assert.equal(Math.max(...spent.map(Number)), 5);
    }
  });

  it("refuses claims of rings that were on their way, and is stopped and cancelled as ever", () => {
    const play = Play.of(loopOf(20, "retry_budget: 30, policy: {exec: distributed}"));
    const rings = play.rings();
    const grant = play.claimRing(rings[0]!)!;
    play.report(grant, reply(grant, down));
    assert.equal(
      play.try(() => play.claimRing(rings[1]!)),
      undefined,
    );
    assert.equal(play.refusals.at(-1), "parked");
    play.ask({ type: "cancel" });
    play.deliver();
    assert.equal(play.status, "CANCELLED");
    assert.deepEqual(statsOf(play), { total: 20, success: 0, failed: 0, not_run: 20 });
  });

  it("tries another command while a probe hangs, and none while it is paused", () => {
    const play = Play.of(loopOf(20, "retry_budget: 30, policy: {exec: distributed}"));
    round(play, down);
    play.now += 500;
    play.wake(loopId(play));
    const hangs = play.claimRing(play.rings()[0]!)!;
    assert.deepEqual(play.rings(), []);
    play.now += 1_000;
    play.wake(loopId(play));
    assert.equal(play.rings().length, 1);
    play.ask({ type: "pause" });
    play.deliver();
    play.now += 60_000;
    assert.equal(play.wake(loopId(play)).changed, false);
    play.ask({ type: "resume" });
    assert.equal(round(play, up), 1);
    play.report(hangs, ok());
    while (play.status === "RUNNING") round(play, up);
    assert.equal(statsOf(play)?.success, 20);
  });

  it("waits as long as what it calls asks it to", () => {
    const failure = { command_id: "a", now: 1_000, retry_after_ms: 7_000 };
    assert.equal(nextTryAt(openThrottle(4), failure), 8_000);
    const parked = gaveBack(openThrottle(4), { command_id: "a", spent: 1, next_try_at: 8_000 });
    assert.equal(nextTryAt(parked, { command_id: "b", now: 1_200 }), 8_000);
    assert.deepEqual([parked.width, parked.spent], [2, 1]);
    const open = answered(probed(parked, "b", 9_000), 4, 0);
    assert.deepEqual(open, { spent: 1, width: 3, failures: 0, probes: [] });
    assert.equal(
      startable(
        open,
        ["a", "b", "c", "d"].map(id => ({ command_id: id })),
        4,
      ).length,
      3,
    );
  });

  /** A loop of each kind, and a fan-out. */
  function world(seed: number): string {
    if (seed % 3 === 0) return fanoutOf(30, 1_000);
    const exec = seed % 3 === 1 ? "distributed" : "local";
    return loopOf(30, `retry_budget: 1000, policy: {exec: ${exec}}`);
  }

  it("does each item once in 60 random worlds of outages, deaths and pauses", function () {
    this.timeout(60_000);
    let given = 0;
    for (let seed = 1; seed <= 60; seed += 1) {
      const random = randomOf(seed);
      const play = Play.of(world(seed));
      play.thorough = seed % 10 === 0;
      play.itemMs = 1;
      play.settings.max_attempts = 1_000;
      let outage = 0;
      const isUp = () => {
        if (random() < 0.05) outage = 10;
        outage -= 1;
        return outage < 0;
      };
      const chaos = new Chaos(play, {
        ...{ random, turns: 150, mayCancel: false, mayPause: seed % 2 === 0 },
        answer: grant => reply(grant, isUp),
        restMs: 500,
      });
      try {
        chaos.run();
        assert.equal(play.status, "COMPLETED");
        assert.deepEqual(statsOf(play), { total: 30, success: 30, failed: 0, not_run: 0 });
      } catch (error) {
        (error as Error).message = `seed ${seed}: ${(error as Error).message}`;
        throw error;
      }
      given += play.all("command.released").filter(one => one.meta.spent !== undefined).length;
    }
    assert.ok(given > 60, `${given} commands were given back`);
  });
});

describe("a fan-out with a retry budget", () => {
  it("burns no attempt during an outage, and is complete after it", () => {
    const play = Play.of(fanoutOf(12, 30));
    play.deliver();
    const id = play.all("loop.fanout.started")[0]!.stream_id;
    assert.equal(round(play, down), 4);
    assert.deepEqual(play.rings(), []);
    for (let probe = 0; probe < 5; probe += 1) {
      play.now += 3_000;
      play.wake(id);
      assert.equal(round(play, down), 1);
    }
    for (let turn = 0; play.status === "RUNNING"; turn += 1) {
      assert.ok(turn < 50, "it does not end");
      play.now += 3_000;
      play.wake(id);
      round(play, up);
    }
    assert.deepEqual(statsOf(play), { total: 12, success: 12, failed: 0, not_run: 0 });
    assert.equal(play.all("command.issued").length, 12);
    assert.equal(play.all("command.failed").length, 0);
  });

  it("tries its shards as often as it may when the budget is spent", () => {
    const play = Play.of(fanoutOf(4, 3, 1));
    play.deliver();
    const id = play.all("loop.fanout.started")[0]!.stream_id;
    for (let turn = 0; play.status === "RUNNING"; turn += 1) {
      assert.ok(turn < 100, "it does not end");
      play.now += 10_000;
      play.wake(id);
      round(play, down);
    }
    assert.equal(play.all("command.released").length, 3);
    assert.equal(play.all("command.failed").length, 4);
    assert.equal(play.all("loop.shard.failed").length, 4);
  });

  it("has shards of one item", () => {
    const batched = fanoutOf(4, 3).replace("max_in_flight: 4", "max_in_flight: 4, batch: 2");
    const play = Play.of(batched);
    play.deliver();
    assert.equal(play.status, "FAILED");
    assert.match(JSON.stringify(play.all("loop.fanin.completed")[0]?.result), /shards of one item/);
  });
});
