/** Cancelling an execution, and stopping its loops when another branch fails. */
import { strict as assert } from "node:assert";
import { EXECUTION_ID, Play } from "../support/execution-play.ts";
import { failed, ok } from "../support/worker-replies.ts";

const BOTH = `
- step: start
  tool: {kind: noop}
  next: {spec: {mode: inclusive}, arcs: [{step: each}, {step: side}]}
- step: each
  loop: {in: 9, iterator: i, spec: {mode: parallel, max_in_flight: 3}}
  tool: {kind: noop}
  next: {arcs: [{step: end}]}
- {step: side, tool: {kind: noop}, next: {arcs: [{step: end}]}}
- {step: end, tool: {kind: noop}}`;

function refused(act: () => unknown): { code?: number; data?: { reason?: string } } {
  try {
    act();
  } catch (error) {
    return error as { code?: number };
  }
  return assert.fail("accepted");
}

describe("cancel", () => {
  it("ends open commands at once, the run only when its loops and children have answered", () => {
    const play = Play.of(BOTH);
    play.finish("start");
    const [side, each] = [play.claim("side"), play.claim("each")];
    play.ask({ type: "cancel", reason: "enough" });
    assert.equal(play.status, "RUNNING");
    assert.equal(play.all("execution.cancelled").length, 0);
    assert.equal(refused(() => play.report(side)).data?.reason, "settled");
    play.deliver();
    assert.equal(refused(() => play.report(each)).data?.reason, "settled");
    assert.equal(play.status, "CANCELLED");
    assert.equal(play.all("command.cancelled").length, 4);
    assert.deepEqual(play.all("loop.done")[0]?.meta, {
      ...play.all("loop.done")[0]?.meta,
      status: "cancelled",
      stats: { total: 9, success: 0, failed: 0, not_run: 9 },
    });
    assert.equal(play.log.at(-1)?.event_type, "loop.done");
    assert.deepEqual(
      play.effects().filter(({ streamId }) => streamId === EXECUTION_ID),
      [],
    );
    assert.deepEqual(play.entered, ["start", "each", "side"]);
  });

  it("waits for the message to its children to be answered", () => {
    const play = Play.of("- {step: start, tool: {kind: noop}}");
    play.ask({ type: "cancel" });
    const [{ effect }] = play.effects() as [ReturnType<Play["effects"]>[number]];
    assert.equal(effect.kind === "message" && effect.input.type, "cancel_children");
    assert.equal(play.status, "RUNNING");
    play.ask({ type: "children_gone" });
    assert.equal(play.status, "CANCELLED");
  });

  it("children that are gone end nothing that was not cancelled, or still has a loop", () => {
    const play = Play.of(BOTH);
    play.finish("start");
    assert.equal(play.ask({ type: "children_gone" }).changed, false);
    play.ask({ type: "cancel" });
    assert.equal(play.ask({ type: "children_gone" }).changed, false);
  });

  it("asked twice is one request; nothing is claimed after it", () => {
    const play = Play.of(BOTH);
    const ring = play.rings()[0]!;
    play.ask({ type: "cancel" });
    assert.equal(play.ask({ type: "cancel" }).changed, false);
    assert.equal(play.all("execution.cancel_requested").length, 1);
    assert.equal(refused(() => play.claimRing(ring)).code, 409);
    play.deliver();
    assert.equal(play.ask({ type: "cancel" }).changed, false);
  });

  it("keeps who asked for it and in which request, and nothing of it when nobody is known", () => {
    const asked = { requested_by: "night-shift", request_id: "r-1" };
    for (const [input, meta] of [
      [
        { reason: "enough", asked },
        { reason: "enough", ...asked },
      ],
      [{ asked: {} }, {}],
      [{}, {}],
    ] as const) {
      const play = Play.of(BOTH);
      play.ask({ type: "cancel", ...input });
      assert.deepEqual(play.all("execution.cancel_requested")[0]?.meta, meta);
    }
  });

  it("of an execution that has ended is refused with 409", () => {
    for (const reply of [ok(), failed()]) {
      const play = Play.of("- {step: start, tool: {kind: noop}}").run({ start: reply });
      const error = refused(() => play.ask({ type: "cancel" }));
      assert.equal(error.code, 409);
    }
  });

  it("reaches a loop also when it arrives before the loop's start", () => {
    const play = Play.of(BOTH);
    play.thorough = false;
    play.report(play.claim("start"));
    const start = play.effects().find(({ effect }) => effect.kind === "message");
    assert.ok(start?.effect.kind === "message");
    play.ask({ type: "cancel", reason: "early" });
    play.deliver();
    assert.equal(play.status, "CANCELLED");
    play.carry(start.stream, start.effect, true);
    assert.equal(play.all("loop.done").length, 1);
    assert.equal(play.all("loop.done")[0]?.meta.stats.not_run, 9);
    assert.equal(play.all("command.issued").filter(one => one.meta.loop_id).length, 0);
  });

  it("of a run that waits at a join drops the waiting token", () => {
    const play = Play.of(BOTH);
    play.finish("start");
    play.finish("side");
    play.ask({ type: "cancel" });
    play.deliver();
    assert.deepEqual([play.status, play.entered], ["CANCELLED", ["start", "each", "side"]]);
  });
});

describe("a failure beside a loop", () => {
  it("lets running iterations finish, issues no more and ends FAILED", () => {
    const play = Play.of(BOTH);
    play.finish("start");
    const each = play.claim("each", { index: 1 });
    play.finish("side", failed());
    play.deliver();
    assert.equal(play.status, "RUNNING");
    assert.deepEqual(play.rings(), []);
    play.report(each, ok({}, { from: "each" }));
    assert.equal(play.status, "FAILED");
    assert.deepEqual(play.all("loop.done")[0]?.meta.stats, {
      total: 9,
      success: 1,
      failed: 0,
      not_run: 8,
    });
    assert.equal(play.terminal?.node_name, "side");
  });

  it("ends a loop at once of which nothing runs, also before it has started", () => {
    for (const started of [true, false]) {
      const play = Play.of(BOTH);
      play.finish("start");
      const side = play.claim("side");
      play.thorough = started;
      play.report(side, failed());
      play.deliver();
      assert.equal(play.status, "FAILED");
      assert.equal(play.all("loop.done")[0]?.meta.status, "cancelled");
    }
  });

  it("can still be cancelled", () => {
    const play = Play.of(BOTH);
    play.finish("start");
    play.claim("each");
    play.finish("side", failed());
    play.deliver();
    play.ask({ type: "cancel" });
    play.deliver();
    assert.equal(play.status, "CANCELLED");
  });

  it("replaces a worker that dies meanwhile: what was running may finish", () => {
    const play = Play.of(BOTH);
    play.finish("start");
    const each = play.claim("each");
    play.finish("side", failed());
    play.deliver();
    play.alive.delete("w1");
    play.wake(each.stream_id);
    assert.equal(play.rings().length, 1);
    play.finish("each");
    assert.equal(play.status, "FAILED");
  });
});
