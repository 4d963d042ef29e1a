/** Pausing an execution: nothing begins, what runs finishes, and all goes on where it was. */
import { strict as assert } from "node:assert";
import type { Effect } from "../../schemas/decider.ts";
import { loopMachine } from "../../services/loops/machine.ts";
import { EXECUTION_ID, Play, playbookOf } from "../support/execution-play.ts";
import { fanoutPlay, faninOf, runOut } from "../support/fanout-play.ts";
import { failed, ok } from "../support/worker-replies.ts";

const BOTH = `
- step: start
  tool: {kind: noop}
  next: {spec: {mode: inclusive}, arcs: [{step: each}, {step: side}]}
- step: each
  loop: {in: 9, iterator: i, spec: {mode: parallel, max_in_flight: 3}}
  tool: {kind: noop}
  next: {arcs: [{step: end}]}
- {step: side, tool: {kind: noop}, spec: {timeout: 10s}, next: {arcs: [{step: end}]}}
- {step: end, tool: {kind: noop}}`;

type Message = Effect & { kind: "message" };

function paused(play: Play): Play {
  play.ask({ type: "pause" });
  play.deliver();
  assert.equal(play.status, "PAUSED");
  return play;
}

function refusal(play: Play, act: () => unknown): string | undefined {
  assert.equal(play.try(act), undefined);
  return play.refusals.at(-1);
}

describe("a paused execution", () => {
  it("is PAUSED when its loops know of it; from the request on nothing rings", () => {
    const play = Play.of(BOTH);
    play.finish("start");
    play.deliver();
    assert.equal(play.rings().length, 4);
    play.ask({ type: "pause", reason: "deploy", asked: { requested_by: "ann" } });
    assert.equal(play.status, "RUNNING");
    const own = play.effects().filter(({ streamId }) => streamId === EXECUTION_ID);
    assert.ok(own.every(({ effect }) => effect.kind === "message"));
    assert.deepEqual(play.all("execution.pause_requested")[0]?.meta, {
      ...{ pause: 1, reason: "deploy", requested_by: "ann" },
    });
    play.deliver();
    assert.equal(play.status, "PAUSED");
    assert.deepEqual(play.rings(), []);
    assert.equal(play.all("execution.paused").length, 2);
  });

  it("takes the outcomes of what runs, and begins nothing on them until it goes on", () => {
    const play = Play.of(BOTH);
    play.finish("start");
    const [side, each] = [play.claim("side"), play.claim("each")];
    paused(play);
    play.report(side);
    play.report(each);
    assert.deepEqual(play.rings(), []);
    assert.equal(play.all("command.issued").filter(one => one.meta.loop_id).length, 3);
    assert.equal(play.status, "PAUSED");
    play.ask({ type: "resume" });
    assert.equal(play.status, "RUNNING");
    play.run();
    assert.equal(play.status, "COMPLETED");
    assert.deepEqual(play.entered, ["start", "each", "side", "end"]);
  });

  it("refuses claims of what was rung before, and answers those made before again", () => {
    const play = Play.of(BOTH);
    play.finish("start");
    const rings = play.rings();
    const [side] = rings.filter(ring => ring.step === "side");
    const items = rings.filter(ring => ring.step === "each");
    const grant = play.claimRing(items[0]!, { claimId: "mine" });
    paused(play);
    assert.equal(
      refusal(play, () => play.claimRing(side!)),
      "paused",
    );
    assert.equal(
      refusal(play, () => play.claimRing(items[1]!)),
      "paused",
    );
    assert.deepEqual(play.claimRing(items[0]!, { claimId: "mine" }), grant);
  });

  it("pauses once however often it is asked, and goes on once", () => {
    const play = Play.of(BOTH);
    paused(play);
    assert.equal(play.ask({ type: "pause" }).changed, false);
    assert.equal(play.ask({ type: "resume" }).changed, true);
    assert.equal(play.ask({ type: "resume" }).changed, false);
    paused(play);
    assert.equal(play.all("execution.pause_requested")[1]?.meta.pause, 2);
    play.ask({ type: "resume" });
    assert.equal(play.run().status, "COMPLETED");
  });

  it("stays PAUSED when all it had is done, and ends when it goes on", () => {
    const play = Play.of("- {step: start, tool: {kind: noop}}");
    const start = play.claim("start");
    paused(play);
    play.report(start);
    assert.equal(play.status, "PAUSED");
    play.ask({ type: "resume" });
    assert.equal(play.status, "COMPLETED");
  });

  it("tells what it started that it goes on, though it ends in the same moment", () => {
    const play = Play.of("- {step: start, tool: {kind: noop}}");
    const start = play.claim("start");
    paused(play);
    play.report(start, failed());
    play.ask({ type: "resume" });
    assert.equal(play.status, "FAILED");
    const own = play.effects().filter(({ streamId }) => streamId === EXECUTION_ID);
    const inputs = own.map(({ effect }) => (effect as Message).input);
    assert.deepEqual(inputs, [{ type: "resume_family", by: `${EXECUTION_ID}:1` }]);
  });

  it("is cancelled at once, and cannot be paused while it is being cancelled or after", () => {
    const play = Play.of(BOTH);
    play.finish("start");
    paused(play);
    play.ask({ type: "cancel", reason: "enough" });
    assert.equal(
      refusal(play, () => play.ask({ type: "pause" })),
      "cancelling",
    );
    assert.equal(play.ask({ type: "resume" }).changed, false);
    play.deliver();
    assert.equal(play.status, "CANCELLED");
    assert.equal(play.all("loop.done")[0]?.meta.stats.not_run, 9);
    assert.throws(() => play.ask({ type: "pause" }), /already CANCELLED/);
    assert.equal(play.ask({ type: "resume" }).changed, false);
  });

  it("ends FAILED when what ran fails, but only when it goes on", () => {
    const play = Play.of(BOTH);
    play.finish("start");
    const side = play.claim("side");
    paused(play);
    play.report(side, failed());
    play.deliver();
    assert.equal(play.status, "PAUSED");
    assert.deepEqual(play.rings(), []);
    play.ask({ type: "resume" });
    play.deliver();
    assert.equal(play.status, "FAILED");
    assert.equal(play.all("loop.done")[0]?.meta.stats.not_run, 9);
  });

  it("does not let its steps grow older: a limit counts the time it was not paused", () => {
    const play = Play.of(BOTH);
    play.finish("start");
    play.now += 6_000;
    paused(play);
    play.now += 3_600_000;
    assert.equal(play.wake().changed, false);
    play.ask({ type: "resume" });
    play.now += 3_000;
    assert.equal(play.wake().changed, false);
    play.now += 1_001;
    assert.equal(play.wake().changed, true);
    assert.equal(play.all("command.failed")[0]?.result.error?.code, "STEP_TIMEOUT");
  });

  it("offers the command of a worker that died when it goes on, charged", () => {
    const play = Play.of("- {step: start, tool: {kind: noop}}");
    play.claim("start");
    paused(play);
    play.alive.delete("w1");
    play.wake();
    assert.equal(play.all("command.expired").length, 1);
    assert.deepEqual(play.rings(), []);
    play.ask({ type: "resume" });
    assert.equal(play.rings().length, 1);
  });
});

describe("a loop of a paused execution", () => {
  /** The messages that an execution has for its loop, without carrying them. */
  function toLoop(play: Play): { stream: never; effect: Message }[] {
    return play
      .effects()
      .filter(({ effect }) => effect.kind === "message" && effect.to.actor === "loops") as never;
  }

  it("paused before its start begins without issuing anything", () => {
    const play = Play.of(BOTH);
    play.thorough = false;
    play.report(play.claim("start"));
    play.ask({ type: "pause" });
    play.deliver();
    assert.deepEqual(
      play.eventsOf(play.all("loop.started")[0]!.stream_id).map(event => event.event_type),
      ["loop.started", "execution.paused"],
    );
    play.ask({ type: "resume" });
    assert.equal(play.run().status, "COMPLETED");
  });

  it("hears late of a pause that is over, and goes on", () => {
    const play = Play.of(BOTH);
    play.thorough = false;
    play.report(play.claim("start"));
    play.ask({ type: "pause" });
    const { pause } = play.ask({ type: "describe" });
    play.ask({ type: "resume" });
    const [resume] = toLoop(play);
    assert.equal(resume?.effect.input.type, "resume");
    play.carry(resume.stream, resume.effect);
    const { to, input } = pause!.loops[0]!;
    assert.equal(play.send(to.stream_id, input, loopMachine as never).changed, false);
    play.thorough = true;
    assert.equal(play.run().status, "COMPLETED");
  });

  it("keeps its frames, and ends only when it goes on", () => {
    const play = Play.of("- {step: start, loop: {in: 2, iterator: i}, tool: {kind: noop}}");
    const first = play.claim("start");
    play.report(first);
    const last = play.claim("start");
    paused(play);
    play.report(last, ok());
    assert.equal(play.all("loop.done").length, 0);
    play.ask({ type: "resume" });
    play.deliver();
    assert.equal(play.status, "COMPLETED");
  });
});

describe("a child of a paused execution", () => {
  const CHILD = "- {step: start, tool: {kind: noop}}";

  it("begins paused, and enters its first step when that pause ends, not another one", () => {
    const play = new Play(playbookOf(CHILD));
    play.start({}, { paused_by: "7:1" });
    play.deliver();
    assert.deepEqual([play.status, play.entered], ["PAUSED", []]);
    assert.equal(play.ask({ type: "resume", by: "7:2" }).changed, false);
    assert.equal(play.ask({ type: "resume", by: "8:1" }).changed, false);
    play.ask({ type: "resume", by: "7:1" });
    assert.equal(play.run().status, "COMPLETED");
  });

  it("looks up when it has begun and while it is held, not when a user has brought it back", () => {
    const play = new Play(playbookOf(CHILD));
    play.start({}, { parent_execution_id: "7" });
    const own = () => play.effects().filter(({ effect }) => effect.kind === "message");
    const looks = () => own().map(({ effect }) => (effect as Message).input);
    assert.deepEqual(looks(), [{ type: "follow", above: "7" }]);
    play.ask({ type: "pause", by: "7:1" });
    play.ask({ type: "family_paused", pause: 1 });
    assert.deepEqual(looks(), [{ type: "follow", above: "7", by: "7:1" }]);
    play.ask({ type: "resume", by: "7:1" });
    assert.deepEqual(looks(), [{ type: "resume_family", by: `${EXECUTION_ID}:1` }]);

    const redriven = new Play(playbookOf(CHILD));
    redriven.start({}, { parent_execution_id: "7" });
    redriven.report(redriven.claim("start"), failed());
    assert.equal(redriven.status, "FAILED");
    redriven.ask({ type: "redrive", generation: 0 });
    assert.ok(redriven.effects().every(({ effect }) => effect.kind === "ring"));
  });

  it("that a user has paused stays so when its parent goes on", () => {
    const play = Play.of(CHILD);
    paused(play);
    assert.equal(play.ask({ type: "pause", by: "7:1" }).changed, false);
    assert.equal(play.ask({ type: "resume", by: "7:1" }).changed, false);
    assert.equal(play.status, "PAUSED");
  });
});

describe("a paused fan-out", () => {
  it("takes what runs, hands out nothing and tries nothing again until it goes on", () => {
    const play = fanoutPlay([1, 2, 3, 4], { max_in_flight: 2 });
    const [broken, good] = [play.claim("each"), play.claim("each")];
    paused(play);
    play.report(broken, failed("no"));
    play.report(good, ok());
    assert.equal(play.all("command.failed").length, 1);
    play.now += 100_000;
    assert.equal(play.wake(broken.stream_id).changed, false, "the retry waits");
    assert.deepEqual(play.rings(), []);
    play.ask({ type: "resume" });
    play.deliver();
    play.now += 100_000;
    play.wake(broken.stream_id);
    assert.equal(play.rings().length, 2);
    runOut(play);
    assert.equal(faninOf(play)?.status, "complete");
    assert.equal(play.status, "COMPLETED");
  });

  it("does not let shards grow old that nobody may take", () => {
    const play = fanoutPlay([1], { queue_ttl: "5s", max_shard_retries: 0 });
    const { stream_id, command_id } = play.rings()[0]!;
    paused(play);
    play.now += 60_000;
    assert.equal(play.wake(stream_id).changed, false);
    const claim = { type: "claim", command_id, worker_id: "w1", incarnation: "w1", claim_id: "x" };
    assert.equal(
      refusal(play, () => play.send(stream_id, claim)),
      "paused",
    );
    play.ask({ type: "resume" });
    play.deliver();
    play.now += 4_999;
    assert.equal(play.wake(stream_id).changed, false, "its time begins anew");
    runOut(play);
    assert.equal(faninOf(play)?.status, "complete");
  });

  it("is paused from its beginning when the execution was paused before", () => {
    const play = fanoutPlay([1, 2]);
    assert.equal(paused(play).status, "PAUSED");
    assert.deepEqual(play.rings(), []);
    play.ask({ type: "resume" });
    play.deliver();
    assert.equal(play.rings().length, 2);
  });
});
