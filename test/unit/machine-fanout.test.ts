/** Fan-outs: shards, their attempts, and the one fan-in. */
import { strict as assert } from "node:assert";
import type { Grant } from "../../schemas/frozen-scope.ts";
import type { Json } from "../../schemas/json.ts";
import { EXECUTION_ID, Play } from "../support/execution-play.ts";
import { fanoutFlow, fanoutPlay, faninOf, runOut } from "../support/fanout-play.ts";
import { failed, ok, resultOf } from "../support/worker-replies.ts";

const count = (play: Play, ...types: string[]) =>
  play.log.filter(event => types.includes(event.event_type)).length;
const fanoutOf = (play: Play) => play.all("loop.fanout.started")[0]!;
const range = (size: number) => Array.from({ length: size }, (_, at) => at);
/** Fails an item until its attempt of this number. */
const until = (attempt: number, items: number[]) => (grant: Grant) =>
  items.includes(grant.iteration!.index) && grant.attempt < attempt ? failed() : ok(grant.attempt);

describe("a fan-out", () => {
  it("of 100 items is 100 commands, each with a shard, an index and a key of its own", () => {
    const play = fanoutPlay(range(100), { max_in_flight: 200 });
    assert.equal(play.rings().length, 100, "100 notifications");
    const issued = play.all("command.issued").filter(({ meta }) => meta.loop_id);
    assert.equal(issued.length, 100);
    const names = issued.map(({ meta }) => `${meta.loop_id} ${meta.shard_id} ${meta.iter_index}`);
    assert.equal(new Set(names).size, 100);
    assert.equal(new Set(issued.map(({ meta }) => meta.iter_key)).size, 100);
    assert.equal(fanoutOf(play).meta.total_shards, 100);
    assert.deepEqual([...new Set(issued.map(({ meta }) => meta.shard_attempt))], [1]);
  });

  it("of shards that all succeed is complete, in three rows a shard and two more", () => {
    const play = fanoutPlay(range(20), { max_in_flight: 5 }).run();
    const { loop_id } = faninOf(play)!;
    assert.equal(play.eventsOf(loop_id).length, 3 * 20 + 2);
    assert.deepEqual(
      [faninOf(play)?.status, faninOf(play)?.total, faninOf(play)?.done, faninOf(play)?.failed],
      ["complete", 20, 20, 0],
    );
    assert.deepEqual(play.entered, ["each", "aggregate"]);
    assert.equal(play.status, "COMPLETED");
  });

  it("never has more shards open than its window, also with some that wait for a retry", () => {
    const play = fanoutPlay(range(30), { max_in_flight: 6, max_concurrent_shards: 4 });
    for (let rings = play.rings(); rings.length > 0; rings = play.rings()) {
      const state = play.streams.get(fanoutOf(play).stream_id)!.state as {
        open: Map<string, unknown>;
        retries: Map<number, unknown>;
      };
      assert.ok(state.open.size + state.retries.size <= 4);
      play.report(play.claimRing(rings[0]!) as Grant, state.open.size === 2 ? failed() : ok());
    }
    runOut(play);
    assert.equal(faninOf(play)?.status, "complete");
  });

  it("of 50 shards of which 2 fail is partial, and the right arc is taken", () => {
    const broken = { "each/7": failed("no"), "each/31": failed("no") };
    const play = runOut(fanoutPlay(range(50)), broken);
    const { status, total, done, succeeded, failed: lost } = faninOf(play)!;
    assert.deepEqual([status, total, done, succeeded, lost], ["partial", 50, 48, 48, 2]);
    assert.deepEqual(play.entered, ["each", "handler"]);
    assert.equal(play.status, "COMPLETED");
    assert.equal(count(play, "loop.shard.failed"), 2);
    assert.equal(count(play, "command.failed"), 4, "two attempts each before the last one");
  });

  it("of 10 shards of which 3 fail once is complete; an attempt keeps the shard's name", () => {
    const play = runOut(fanoutPlay(range(10)), { each: until(2, [2, 5, 8]) });
    assert.equal(faninOf(play)?.status, "complete");
    assert.equal(count(play, "loop.shard.failed"), 0);
    const [first, second] = play.all("command.issued").filter(({ meta }) => meta.shard_id === "5");
    assert.deepEqual([first?.meta.shard_attempt, second?.meta.shard_attempt], [1, 2]);
    assert.equal(second?.meta.iter_key, first?.meta.iter_key);
    assert.notEqual(second?.meta.command_id, first?.meta.command_id);
  });

  it("tries a shard again only when its pause is over, and pauses differ", () => {
    const play = fanoutPlay([1, 2], { max_shard_retries: 1 }).run({ each: failed() });
    const pauses = play.all("command.failed").map(({ meta }) => meta.retry_at! - play.now);
    assert.equal(new Set(pauses).size, 2, `jitter: ${pauses.join()}`);
    for (const pause of pauses) assert.ok(pause >= 500 && pause <= 1_500);
    const { stream_id } = fanoutOf(play);
    play.now += 499;
    assert.equal(play.wake(stream_id).changed, false);
    play.now += 1_001;
    play.wake(stream_id);
    assert.equal(play.rings().length, 2);
    play.run({ each: failed() });
    assert.equal(faninOf(play)?.status, "failed");
  });

  it("waits as long as the upstream asks for", () => {
    const error = { kind: "rate_limit", retryable: true, code: "HTTP_429", message: "slow" };
    const slow = {
      result: { status: "error" as const, error: { ...error, retry_after_ms: 9_000 } },
    };
    const play = fanoutPlay([1]).run({ each: slow });
    assert.equal(play.all("command.failed")[0]?.meta.retry_at, play.now + 9_000);
  });

  it("fails its step when no shard succeeds, or when none may fail", () => {
    const none = runOut(fanoutPlay([1, 2]), { each: failed("out of order") });
    assert.equal(faninOf(none)?.status, "failed");
    assert.deepEqual(none.entered, ["each", "rescue"], "an arc that asks for it");
    assert.equal(none.status, "FAILED");
    const strict = runOut(fanoutPlay(range(4), { allow_partial: false }), { "each/1": failed() });
    assert.equal(faninOf(strict)?.status, "failed");
    assert.equal(resultOf(strict.all("step.exit")[0]).error?.message, "it broke");
    const told = fanoutFlow(range(8), { max_shard_retries: 0, max_in_flight: 1 });
    const limited = told.replace("iterator: i", "iterator: i, spec: {tolerated_failure_count: 1}");
    const beyond = runOut(Play.of(limited), { "each/0": failed(), "each/2": failed() });
    assert.equal(faninOf(beyond)?.status, "failed");
    assert.equal(faninOf(beyond)?.stats.not_run, 5, "it goes no further");
  });

  it("with fail_fast issues nothing more after the first lost shard", () => {
    const options = { fail_fast: true, max_shard_retries: 0, max_in_flight: 3 };
    const play = fanoutPlay(range(10), options);
    const running = play.claim("each", { index: 1 });
    play.finish("each", failed(), 0);
    assert.equal(play.rings().length, 0, "what waited for a worker is dropped");
    play.report(running, ok());
    assert.deepEqual(faninOf(play)?.stats, { total: 10, success: 1, failed: 1, not_run: 8 });
    assert.equal(faninOf(play)?.status, "partial");
  });

  it("of nothing at all is complete", () => {
    const play = fanoutPlay([]);
    play.deliver();
    assert.deepEqual([faninOf(play)?.status, faninOf(play)?.total], ["complete", 0]);
    assert.equal(play.run().entered[1], "aggregate");
  });

  it("that cannot be opened fails its step, and says which field is wrong", () => {
    const reasons = {
      "spec.fanout.max_shards allows 3": { max_shards: 3 },
      'spec.fanout.max_in_flight gave "many"': { max_in_flight: "{{ 'many' }}" },
      "spec.fanout.batch gave 5000": { batch: 5_000 },
    };
    for (const [reason, options] of Object.entries(reasons)) {
      const play = fanoutPlay(range(4), options).run();
      assert.equal(faninOf(play)?.status, "failed");
      const { error } = resultOf(play.all("loop.fanin.completed")[0]);
      assert.ok(error?.message.includes(reason), error?.message);
    }
  });

  it("gives fanin to guards and to later steps: counts, and references in input order", () => {
    const flow = `${fanoutFlow(range(4), { max_shard_retries: 0 })}`.replace(
      "{step: handler, tool: {kind: noop}}",
      `{step: handler, tool: {kind: noop, input: {seen: "{{ each.fanin.status }} {{ each.refs }}"}},
        set: {ctx.all: "{{ each.fanin.succeeded }}/{{ each.fanin.total }}",
              ctx.results: "{{ each.results }}", ctx.refs: "{{ each.fanin.refs }}",
              ctx.one: "{{ each.refs[2].ref }}", ctx.word: "{{ each.status }}"}}`,
    );
    const play = runOut(Play.of(flow), { each: g => ok(g.iteration!.index), "each/1": failed() });
    const { loop_id } = faninOf(play)!;
    const { ctx } = play.all("command.completed").at(-1)!.context as { ctx: Record<string, Json> };
    const ref = `noetl://execution/${EXECUTION_ID}/loop/${loop_id}/results/item/2`;
    assert.equal(ctx["all"], "3/4");
    assert.equal(ctx["word"], "partial");
    assert.deepEqual(ctx["results"], [0, null, 2, 3]);
    assert.equal(ctx["one"], ref);
    const refs = ctx["refs"] as ({ ref: string } | null)[];
    assert.deepEqual(
      refs.map(one => one && one.ref.split("/").at(-1)),
      ["0", null, "2", "3"],
    );
  });

  it("lets no shard write what the others share", () => {
    const play = fanoutPlay([1, 2]).run({ each: ok({}, { shared: 1 }) });
    assert.equal(JSON.stringify(play.log).includes("shared"), false);
  });
});

describe("a shard", () => {
  it("counts once, however often it is told: twice, late, and after another attempt", () => {
    const play = fanoutPlay([1, 2], { max_shard_retries: 1 });
    const first = play.claim("each", { index: 0 });
    play.report(first, failed());
    play.try(() => play.report(first, ok()));
    play.now += 2_000;
    play.wake(first.stream_id);
    runOut(play);
    play.try(() => play.report(first, ok()));
    assert.deepEqual(play.refusals, ["settled", "settled"]);
    assert.deepEqual([faninOf(play)?.succeeded, faninOf(play)?.status], [2, "complete"]);
    assert.equal(count(play, "loop.fanin.completed"), 1);
  });

  it("of a dead worker is offered again; a zombie's outcome is fenced out", () => {
    const play = fanoutPlay([1]);
    const zombie = play.claim("each");
    play.alive.delete("w1");
    play.wake(zombie.stream_id);
    const next = play.claimRing(play.rings()[0]!, { worker: "w2" }) as Grant;
    assert.deepEqual([next.command_id, next.delivery], [zombie.command_id, 2]);
    play.try(() => play.report(zombie, ok()));
    assert.deepEqual(play.refusals, ["fenced"]);
    play.report(next, ok(), "w2");
    assert.equal(faninOf(play)?.status, "complete");
  });

  it("that kills its workers is given up, and not tried again; the others go on", () => {
    const play = fanoutPlay([1, 2]);
    for (const worker of ["a", "b", "c"]) {
      play.alive.add(worker);
      const ring = play.rings().find(one => one.command_id.endsWith(":0:1"))!;
      play.claimRing(ring, { worker });
      play.alive.delete(worker);
      play.wake(ring.stream_id);
    }
    const [lost] = play.all("loop.shard.failed");
    assert.equal(lost?.result.error?.code, "WORKER_LOST");
    assert.equal(
      runOut(play)
        .all("command.issued")
        .filter(one => one.meta.shard_id).length,
      2,
    );
    assert.equal(faninOf(play)?.status, "partial");
  });

  it("that no worker takes in its time has failed in this attempt", () => {
    const play = fanoutPlay([1], { queue_ttl: "5s", max_shard_retries: 1 });
    const { stream_id } = play.rings()[0]!;
    play.now += 4_999;
    assert.equal(play.wake(stream_id).changed, false);
    play.now += 1;
    play.wake(stream_id);
    assert.equal(play.all("command.failed")[0]?.result.error?.code, "QUEUE_TIMEOUT");
    play.now += 2_000;
    play.wake(stream_id);
    const taken = play.claim("each");
    play.now += 60_000;
    play.wake(stream_id);
    assert.equal(taken.attempt, 2, "what is taken is late for nothing");
    play.alive.delete("w1");
    play.wake(stream_id);
    assert.equal(play.rings().length, 1);
    play.now += 5_000;
    play.wake(stream_id);
    assert.equal(play.all("loop.shard.failed")[0]?.result.error?.code, "QUEUE_TIMEOUT");
  });

  it("says in every attempt what its step needs of a worker", () => {
    const play = fanoutPlay([1], { max_shard_retries: 1 }, ", requires: [gpu]");
    assert.deepEqual(play.rings()[0]?.requires, ["gpu"]);
    runOut(play, { each: failed() });
    const issued = play.all("command.issued").filter(({ meta }) => meta.shard_id);
    assert.deepEqual(
      issued.map(({ meta }) => meta.requires),
      [["gpu"], ["gpu"]],
    );
  });

  it("may be held for longer than other commands, where its fan-out says so", () => {
    const play = fanoutPlay([1], { lease_timeout: "90s" });
    const { stream_id } = play.claim("each");
    play.lastSeen.set("w1", play.now);
    play.now += 89_000;
    assert.equal(play.wake(stream_id).changed, false);
    play.now += 2_000;
    play.wake(stream_id);
    assert.equal(play.all("command.expired").length, 1);
  });
});

describe("a shard of several items", () => {
  it("is one command; results are still one an item, in input order", () => {
    const play = fanoutPlay(range(10), { batch: 4 });
    play.deliver();
    const issued = play.all("command.issued");
    assert.deepEqual(
      issued.map(({ meta }) => [meta.shard_id, meta.iter_key, meta.first, meta.count]),
      [
        ["0", "0-3", 0, 4],
        ["1", "4-7", 4, 4],
        ["2", "8-9", 8, 2],
      ],
    );
    runOut(play, { each: grant => ok(grant.iteration!.index * 10) });
    assert.deepEqual([faninOf(play)?.total, faninOf(play)?.stats.total], [3, 10]);
    assert.equal(count(play, "loop.shard.done"), 3);
    const ref = `noetl://execution/${EXECUTION_ID}/loop/${faninOf(play)!.loop_id}/results`;
    const { results } = play.load(ref) as { results: Json[] };
    assert.deepEqual(
      results,
      range(10).map(index => index * 10),
    );
  });

  it("runs again only what failed of it, and fails with what fails to the end", () => {
    const seen: string[] = [];
    const play = runOut(fanoutPlay(range(6), { batch: 3, max_shard_retries: 1 }), {
      each: grant => {
        seen.push(`${grant.iteration!.index}:${grant.attempt}`);
        return until(grant.iteration!.index === 1 ? 2 : 9, [1, 4])(grant);
      },
    });
    assert.deepEqual(seen.toSorted(), ["0:1", "1:1", "1:2", "2:1", "3:1", "4:1", "4:2", "5:1"]);
    assert.deepEqual(faninOf(play)?.stats, { total: 6, success: 5, failed: 1, not_run: 0 });
    assert.deepEqual([faninOf(play)?.succeeded, faninOf(play)?.failed], [1, 1]);
    assert.deepEqual(play.all("loop.shard.failed")[0]?.meta.failed, "4");
  });

  it("that tells a part of it keeps that part, whoever goes on", () => {
    const play = fanoutPlay(range(3), { batch: 3 });
    const part = play.claim("each");
    play.report(part, {
      result: { status: "ok", context: { ok: ["a"] } },
      frame: { ok: "0", failed: "", final: false },
    });
    play.alive.delete("w1");
    play.wake(part.stream_id);
    const rest = play.claimRing(play.rings()[0]!, { worker: "w2" }) as Grant;
    assert.equal(rest.frame?.left, "1-2");
    play.report(
      rest,
      {
        result: { status: "ok", context: { ok: ["b", "c"] } },
        frame: { ok: "1-2", failed: "", final: true },
      },
      "w2",
    );
    const ref = `noetl://execution/${EXECUTION_ID}/loop/${part.stream_id}/results`;
    assert.deepEqual((play.load(ref) as { results: Json }).results, ["a", "b", "c"]);
  });

  it("is refused what is not its own", () => {
    const play = fanoutPlay(range(4), { batch: 2 });
    const grant = play.claim("each");
    const report = (ok: string, failed: string) =>
      play.try(() =>
        play.report(grant, {
          result: { status: "ok", context: { ok: [] } },
          frame: { ok, failed, final: true },
        }),
      );
    report("2", "");
    report("0", "0");
    play.try(() => play.report(grant, ok()));
    assert.deepEqual(play.refusals, ["malformed", "malformed", "malformed"]);
  });
});

describe("a fan-out that is ended", () => {
  it("by a cancel drops what runs, says what had been done, and frees the execution", () => {
    const play = fanoutPlay(range(10), { max_in_flight: 3 });
    play.finish("each", ok(), 0);
    play.claim("each", { index: 1 });
    play.ask({ type: "cancel", reason: "enough" });
    play.deliver();
    assert.deepEqual(faninOf(play)?.stats, { total: 10, success: 1, failed: 0, not_run: 9 });
    assert.equal(faninOf(play)?.status, "cancelled");
    assert.equal(play.status, "CANCELLED");
    assert.equal(count(play, "command.cancelled"), 3);
    assert.ok(play.all("command.cancelled").some(({ meta }) => meta.worker_id === "w1"));
  });

  it("by a failure elsewhere lets what runs finish, and tries nothing again", () => {
    const both = `
- step: start
  tool: {kind: noop}
  next: {spec: {mode: inclusive}, arcs: [{step: each}, {step: side}]}
- {step: side, tool: {kind: noop}}${fanoutFlow(range(10), { max_in_flight: 3 })}`;
    const play = Play.of(both);
    play.finish("start");
    const [one, two] = [play.claim("each", { index: 0 }), play.claim("each", { index: 1 })];
    play.finish("side", failed());
    play.report(one, ok());
    play.report(two, failed());
    assert.deepEqual(faninOf(play)?.stats, { total: 10, success: 1, failed: 1, not_run: 8 });
    assert.deepEqual([faninOf(play)?.status, play.status], ["cancelled", "FAILED"]);
  });

  it("before it began opens only to say that nothing ran", () => {
    const play = Play.of(fanoutFlow(range(3)));
    play.ask({ type: "cancel" });
    play.deliver();
    assert.equal(faninOf(play)?.stats.not_run, 3);
    assert.equal(play.status, "CANCELLED");
  });

  it("by the limit of its step fails with that limit", () => {
    const play = fanoutPlay(range(5), { max_in_flight: 2 }, ", timeout: 9s");
    play.claim("each");
    play.now += 9_000;
    play.wake();
    play.deliver();
    assert.equal(resultOf(play.all("step.exit")[0]).error?.code, "STEP_TIMEOUT");
    assert.equal(faninOf(play)?.status, "cancelled");
  });
});

describe("a redriven fan-out", () => {
  const again = (play: Play, items?: Record<string, string>) =>
    play.ask({ type: "redrive", generation: 0, ...(items && { items }) });

  it("runs only the shards that failed, under their old keys, and is complete", () => {
    const play = runOut(fanoutPlay(range(8), { max_shard_retries: 0 }), {
      "each/2": failed(),
      "each/5": failed(),
    });
    const before = faninOf(play)!;
    again(play);
    const seen: string[] = [];
    runOut(play, { each: g => ok(seen.push(`${g.iteration!.index}, keyed ${g.keyed}`)) });
    assert.deepEqual(seen, ["2, keyed 1", "5, keyed 1"]);
    const fanin = faninOf(play)!;
    assert.notEqual(fanin.loop_id, before.loop_id);
    assert.deepEqual([fanin.status, fanin.succeeded, fanin.total], ["complete", 8, 8]);
    assert.equal(play.all("loop.fanout.started").at(-1)?.meta.redrive_of, before.loop_id);
  });

  it("counts what does not run again as it was", () => {
    const play = runOut(fanoutPlay(range(4), { max_shard_retries: 0, batch: 2 }), {
      "each/0": failed(),
      "each/3": failed(),
    });
    again(play, { [faninOf(play)!.loop_id]: "3" });
    runOut(play);
    const { status, succeeded, failed: lost, stats } = faninOf(play)!;
    assert.deepEqual([status, succeeded, lost], ["partial", 1, 1]);
    assert.deepEqual(stats, { total: 4, success: 3, failed: 1, not_run: 0 });
  });
});
