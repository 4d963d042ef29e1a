/** Frames: one command that carries several iterations of a loop. */
import { strict as assert } from "node:assert";
import type { Grant } from "../../schemas/frozen-scope.ts";
import { countOf, fromRanges, toRanges } from "../../schemas/ranges.ts";
import { Play } from "../support/execution-play.ts";
import { failed, frameReply, ok, type Reply } from "../support/worker-replies.ts";

function begin(spec: string, { items = "40", itemMs = 1, more = "" } = {}): Play {
  const play = Play.of(
    [
      `- step: each`,
      `  loop: {in: ${items}, iterator: i, spec: {${spec}}}`,
      `  tool: {kind: noop}`,
      `  next: {arcs: [${more}]}`,
      `- {step: last, tool: {kind: noop}}`,
    ].join("\n"),
  );
  play.itemMs = itemMs;
  return play;
}

/** Plays on until a frame is granted. */
function firstFrame(play: Play): Grant {
  for (;;) {
    const grant = play.claim("each");
    if (grant.frame) return grant;
    play.report(grant, ok());
  }
}

const sizes = (play: Play) => play.all("command.issued").map(({ meta }) => meta.count ?? 1);

const part = (frame: object, more: Partial<Reply> = {}): Reply => ({
  result: { status: "ok", context: { ok: [] } },
  frame: { ok: "", failed: "", final: false, ...frame },
  ...more,
});

describe("sets of indexes as text", () => {
  it("come back as they were, and nothing else is taken for one", () => {
    for (const set of [[], [0], [1, 2, 3], [0, 2, 3, 9, 10]]) {
      assert.deepEqual(fromRanges(toRanges(set), 0, 11), set);
      assert.equal(countOf(toRanges(set)), set.length);
    }
    assert.equal(toRanges([0, 2, 3, 9]), "0,2-3,9");
    for (const text of ["1-", "-1", "2,1", "1,1", "3-2", "0-11", "a", "1,,2", " 1"]) {
      assert.equal(fromRanges(text, 0, 11), undefined, text);
    }
    assert.equal(fromRanges("0-99999999999", 0, Infinity), undefined);
  });
});

describe("frames of a loop", () => {
  it("grow from one item while items are quick, and shrink towards the end", () => {
    const play = begin("mode: parallel, max_in_flight: 2", { items: "200", itemMs: 20 }).run();
    const found = sizes(play);
    assert.deepEqual(found.slice(0, 4), [1, 1, 1, 2]);
    assert.ok(Math.max(...found) > 20 && Math.max(...found) <= 50);
    assert.ok((found.at(-1) ?? 0) <= 2);
    assert.equal(
      found.reduce((sum, size) => sum + size, 0),
      200,
    );
    assert.equal(play.status, "COMPLETED");
    assert.equal(play.all("loop.done").length, 1);
  });

  it("do not shrink below what takes no time: 50 ms", () => {
    const quick = sizes(begin("mode: parallel, max_in_flight: 2", { items: "200" }).run());
    assert.deepEqual(quick.slice(-3, -1), [50, 50]);
    const slower = begin("mode: parallel, max_in_flight: 2", { items: "200", itemMs: 5 }).run();
    assert.ok(Math.min(...sizes(slower).slice(10, -1)) >= 10);
  });

  it("stay under a second of items, and under max_rows", () => {
    const slow = begin("mode: parallel, max_in_flight: 2", { items: "200", itemMs: 300 }).run();
    assert.equal(Math.max(...sizes(slow)), 3);
    const few = begin("mode: parallel, max_in_flight: 2, frame: {max_rows: 4}").run();
    assert.equal(Math.max(...sizes(few)), 4);
  });

  it("are not made of short loops, of distributed ones, or with max_rows 1", () => {
    for (const [spec, items] of [
      ["mode: parallel, max_in_flight: 20", "40"],
      ["mode: parallel, max_in_flight: 2, policy: {exec: distributed}", "40"],
      ["mode: parallel, max_in_flight: 2, frame: {max_rows: 1}", "40"],
      ["mode: sequential", "2"],
    ] as const) {
      const play = begin(spec, { items }).run();
      assert.ok(
        sizes(play).every(size => size === 1),
        spec,
      );
      assert.equal(play.status, "COMPLETED");
    }
  });

  it("give all results in input order, and count each item once", () => {
    const guard = "{{ each.results[17].at == 17 and (each.results | length) == 40 }}";
    const more = `{step: last, when: "${guard}"}`;
    const play = begin("mode: parallel, max_in_flight: 3", { more });
    play.run({ each: grant => ok({ at: grant.iteration!.index }) });
    const { stats } = play.all("loop.done")[0]!.meta;
    assert.deepEqual(stats, { total: 40, success: 40, failed: 0, not_run: 0 });
    assert.ok(play.all("frame.committed").length > 3);
    assert.deepEqual(play.entered, ["each", "last"]);
  });

  it("tell what is done on the way; the same report again changes nothing", () => {
    const play = begin("mode: parallel, max_in_flight: 2");
    const grant = firstFrame(play);
    const [first] = fromRanges(grant.frame!.left, 0, 40)!;
    const told = part({ ok: `${first}` });
    play.report(grant, told);
    const before = play.log.length;
    play.report(grant, told);
    assert.equal(play.log.length, before);
    const rest = toRanges(fromRanges(grant.frame!.left, 0, 40)!.slice(1));
    play.report(grant, part({ ok: rest, final: true }));
    assert.equal(play.run().status, "COMPLETED");
    assert.equal(play.all("loop.done")[0]!.meta.stats.success, 40);
  });

  it("give only what is left to who takes one that was given back", () => {
    const play = begin("mode: parallel, max_in_flight: 2", { items: "100" });
    let grant = firstFrame(play);
    while (grant.frame!.count < 4) {
      play.report(
        grant,
        frameReply(grant, () => ok()),
      );
      grant = firstFrame(play);
    }
    const [one, two] = fromRanges(grant.frame!.left, 0, 100)!;
    play.report(grant, part({ ok: toRanges([one!, two!]) }));
    const { command_id, delivery, stream_id } = grant;
    play.send(stream_id, { type: "release", command_id, delivery, worker_id: "w1" });
    const ring = play.rings().find(found => found.command_id === command_id)!;
    const again = play.claimRing(ring)!;
    assert.equal(again.delivery, 2);
    assert.equal(countOf(again.frame!.left), grant.frame!.count - 2);
    assert.equal(again.frame!.values!.length, grant.frame!.count - 2);
    play.report(
      again,
      frameReply(again, () => ok()),
    );
    assert.equal(play.run().status, "COMPLETED");
  });

  it("are split into single items when their worker dies, so that one cannot end all", () => {
    const play = begin("mode: parallel, max_in_flight: 2", { items: "30" });
    let grant = firstFrame(play);
    while (grant.frame!.count < 4) {
      play.report(
        grant,
        frameReply(grant, () => ok()),
      );
      grant = firstFrame(play);
    }
    const [done, ...left] = fromRanges(grant.frame!.left, 0, 30)!;
    play.report(grant, part({ ok: `${done}` }));
    play.alive.delete("w1");
    play.wake(grant.stream_id);
    play.alive.add("w3");
    const again = () =>
      play
        .all("command.issued")
        .filter(({ meta }) => meta.attempt === 2)
        .map(one => one.meta.iter_index);
    assert.equal(play.all("command.cancelled")[0]?.meta.command_id, grant.command_id);
    assert.equal(
      play.try(() => play.report(grant, part({ ok: `${left[0]}` }))),
      undefined,
    );
    assert.deepEqual(play.refusals, ["settled"]);
    play.alive.add("w1");
    assert.equal(play.run().status, "COMPLETED");
    assert.deepEqual(again(), left);
    assert.equal(play.all("loop.done")[0]!.meta.stats.success, 30);
  });

  it("stop where more items have failed than may; what follows did not run", () => {
    const play = begin("mode: parallel, max_in_flight: 2, tolerated_failure_count: 1");
    play.run({ each: grant => (grant.iteration!.index % 7 === 6 ? failed() : ok()) });
    const { stats, status } = play.all("loop.done")[0]!.meta;
    assert.equal(status, "failed");
    assert.equal(play.status, "FAILED");
    assert.ok(stats.failed >= 2 && stats.not_run > 0, JSON.stringify(stats));
    assert.equal(stats.success + stats.failed + stats.not_run, 40);
  });

  it("of a sequential loop carry ctx from item to item, and end at the first failure", () => {
    const play = begin("mode: sequential", { items: "30" });
    play.run({ each: ({ iteration }) => ok({}, { last: iteration!.index }) });
    assert.ok(play.all("frame.committed").length > 0);
    assert.deepEqual(play.all("step.exit")[0]?.context?.["ctx"], { last: 29 });
    const broken = begin("mode: sequential", { items: "30" });
    broken.run({ each: ({ iteration }) => (iteration!.index === 11 ? failed() : ok()) });
    const { stats } = broken.all("loop.done")[0]!.meta;
    assert.deepEqual(stats, { total: 30, success: 11, failed: 1, not_run: 18 });
  });

  it("refuse a report of another time, of other items, or of none", () => {
    const play = begin("mode: parallel, max_in_flight: 2");
    const grant = firstFrame(play);
    const wrong: [Reply, string][] = [
      [part({ ok: "39" }), "malformed"],
      [part({ ok: grant.frame!.left, failed: grant.frame!.left }), "malformed"],
      [part({ ok: "x" }), "malformed"],
      [ok(), "malformed"],
    ];
    for (const [reply, reason] of wrong) {
      play.try(() => play.report(grant, reply));
      assert.equal(play.refusals.pop(), reason);
    }
    play.try(() => play.report({ ...grant, delivery: 9 }, part({ ok: grant.frame!.left })));
    assert.equal(play.refusals.pop(), "fenced");
    play.report(
      grant,
      frameReply(grant, () => ok()),
    );
    play.try(() =>
      play.report(
        grant,
        frameReply(grant, () => ok()),
      ),
    );
    assert.equal(play.refusals.pop(), "settled");
  });
});
