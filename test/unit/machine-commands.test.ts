/** Commands in both machines: claims, fences, releases, deaths of workers, timeouts. */
import { strict as assert } from "node:assert";
import type { JsonObject } from "../../schemas/json.ts";
import type { StoredEvent } from "../../schemas/events.ts";
import { executionMachine } from "../../services/executions/machine.ts";
import { EXECUTION_ID, Play } from "../support/execution-play.ts";
import { given, turnAt } from "../support/given.ts";
import { failed, ok, resultOf } from "../support/worker-replies.ts";

const STEP = "- {step: work, tool: {kind: noop}, next: {arcs: [{step: end}]}}\n";
const END = "- {step: end, tool: {kind: noop}}\n";
const LOOP = `
- step: work
  loop: {in: 3, iterator: i, spec: {mode: parallel}}
  tool: {kind: noop}
  next: {arcs: [{step: end}]}
`;
const LEASE_MS = 30_000;

const reasonOf = (act: () => unknown): string => {
  try {
    act();
    return "accepted";
  } catch (error) {
    return String((error as { data?: JsonObject }).data?.["reason"] ?? error);
  }
};
const types = (events: StoredEvent[]) => events.map(event => event.event_type).join(" ");
const streamOf = (play: Play) => play.rings()[0]?.stream_id ?? EXECUTION_ID;

for (const [name, flow] of [
  ["a step's command", STEP + END],
  ["an iteration's command", LOOP + END],
] as const) {
  describe(`${name}: claims`, () => {
    it("is granted to the first that claims it, with delivery 1", () => {
      const play = Play.of(flow);
      const grant = play.claim("work");
      assert.equal(grant.delivery, 1);
      assert.equal(grant.step, "work");
    });

    it("is granted again to the same claim_id without a new fact, and the same grant", () => {
      const play = Play.of(flow);
      const ring = play.rings()[0]!;
      const first = play.claimRing(ring, { claimId: "x" });
      const count = play.log.length;
      assert.deepEqual(play.claimRing(ring, { claimId: "x" }), first);
      assert.equal(play.log.length, count);
    });

    it("refuses a rival, and the same worker with another claim", () => {
      const play = Play.of(flow);
      const ring = play.rings()[0]!;
      play.claimRing(ring, { worker: "w1", claimId: "x" });
      assert.equal(
        reasonOf(() => play.claimRing(ring, { worker: "w2", claimId: "y" })),
        "held",
      );
      assert.equal(
        reasonOf(() => play.claimRing(ring, { worker: "w1", claimId: "z" })),
        "held",
      );
      assert.equal(
        reasonOf(() => play.claimRing(ring, { worker: "w2", claimId: "x" })),
        "held",
      );
    });

    it("refuses a claim and a second outcome once it is settled", () => {
      const play = Play.of(flow);
      const ring = play.rings()[0]!;
      const grant = play.claimRing(ring)!;
      play.report(grant);
      assert.equal(
        reasonOf(() => play.claimRing(ring)),
        "settled",
      );
      assert.equal(
        reasonOf(() => play.report(grant)),
        "settled",
      );
      assert.equal(
        reasonOf(() => play.report(grant, failed())),
        "settled",
      );
    });

    it("refuses an outcome that nobody's claim is behind", () => {
      const play = Play.of(flow);
      const ring = play.rings()[0]!;
      const grant = { ...ring, activation: 1, attempt: 1 } as never;
      assert.equal(
        reasonOf(() => play.report(grant)),
        "fenced",
      );
    });

    it("refuses ids that name no command, whatever they look like", () => {
      const play = Play.of(flow);
      const stream_id = streamOf(play);
      for (const command_id of ["", "x", "1000:%zz:1:1", "1000:%zz:1:0:1", "1000:work:9:9:9"]) {
        const claim = () => play.claimRing({ command_id, stream_id });
        assert.equal(reasonOf(claim), "settled", command_id);
        const report = () => play.report({ stream_id, command_id, delivery: 1 } as never);
        assert.equal(reasonOf(report), "settled", command_id);
      }
    });

    it("given back by a release it rings again, uncharged, and the old fence is closed", () => {
      const play = Play.of(flow);
      for (let round = 1; round <= 5; round += 1) {
        const grant = play.claim("work", { worker: "w1" });
        assert.equal(grant.delivery, round);
        const { command_id, delivery, stream_id } = grant;
        play.send(stream_id, { type: "release", command_id, delivery, worker_id: "w1" });
        assert.equal(
          reasonOf(() => play.report(grant)),
          "fenced",
        );
        const again = () =>
          play.send(stream_id, { type: "release", command_id, delivery, worker_id: "w1" });
        assert.equal(reasonOf(again), "fenced");
      }
      assert.equal(play.run().status, "COMPLETED");
    });

    it("an outcome that asks for the next command gets it, also when it is repeated", () => {
      const chain = flow.replace("in: 3", "in: 30");
      const play = Play.of(chain);
      const grant = play.claim("work");
      const { command_id, delivery, stream_id } = grant;
      const next = { worker_id: "w1", incarnation: "w1", claim_id: "next" };
      const outcome = { type: "outcome", command_id, delivery, worker_id: "w1", ...ok(), next };
      const answer = play.send(stream_id, outcome).grant;
      assert.ok(answer && answer.command_id !== command_id && answer.delivery === 1);
      const count = play.log.length;
      assert.deepEqual(play.send(stream_id, outcome).grant, answer);
      assert.equal(play.log.length, count);
    });
  });

  describe(`${name}: deaths of workers`, () => {
    it("is not expired while its lease runs, nor while its worker lives", () => {
      const play = Play.of(flow);
      play.claim("work");
      const stream = streamOf(play);
      play.wake(stream);
      play.now += 10 * LEASE_MS;
      play.wake(stream);
      assert.equal(play.all("command.expired").length, 0);
    });

    it("expires when its worker is gone and rings again; the zombie is fenced out", () => {
      const play = Play.of(flow);
      const zombie = play.claim("work", { worker: "w1" });
      play.alive.delete("w1");
      play.wake(zombie.stream_id);
      assert.equal(play.all("command.expired").length, 1);
      assert.equal(
        reasonOf(() => play.report(zombie)),
        "fenced",
      );
      const ring = play.rings().find(one => one.command_id === zombie.command_id)!;
      assert.equal(ring.delivery, 1);
      const grant = play.claimRing(ring, { worker: "w2" })!;
      assert.equal(grant.delivery, 2);
      assert.equal(
        reasonOf(() => play.report(zombie)),
        "fenced",
      );
      play.report(grant);
      assert.equal(play.run().status, "COMPLETED");
    });

    it("expires when the lease has passed and the worker's row is as old", () => {
      const play = Play.of(flow);
      const grant = play.claim("work");
      const stream = play.streams.get(grant.stream_id)!;
      const claimedAt = play.now;
      play.lastSeen.set("w1", claimedAt + 5_000);
      const due = claimedAt + 5_000 + LEASE_MS;
      assert.equal(stream.machine.deadline(stream.state, play.context()), due);
      play.now = due;
      play.wake(grant.stream_id);
      assert.equal(play.all("command.expired").length, 0);
      play.now = due + 1;
      play.wake(grant.stream_id);
      assert.equal(play.all("command.expired").length, 1);
    });

    it("waits heartbeat_timeout_ms from its claim for a worker that sends no beats", () => {
      const play = Play.of(flow);
      play.silent.add("w1");
      const grant = play.claim("work", { worker: "w1" });
      const stream = play.streams.get(grant.stream_id)!;
      const due = play.now + play.settings.heartbeat_timeout_ms;
      assert.equal(stream.machine.deadline(stream.state, play.context()), due);
      for (const now of [play.now, play.now + LEASE_MS + 1, due]) {
        play.now = now;
        play.wake(grant.stream_id);
        assert.equal(play.all("command.expired").length, 0, `after ${now}`);
      }
      play.now = due + 1;
      play.wake(grant.stream_id);
      assert.equal(play.all("command.expired").length, 1);
      assert.equal(
        reasonOf(() => play.report(grant)),
        "fenced",
      );
    });

    it("is not expired, however old, when nobody looked for its worker's row", () => {
      const play = Play.of(flow);
      const grant = play.claim("work", { worker: "w1" });
      const stream = play.streams.get(grant.stream_id)!;
      const claimedAt = play.now;
      play.alive.delete("w1");
      play.now += 100 * LEASE_MS;
      const unasked = { ...play.context(), seen: new Map() };
      assert.deepEqual(stream.machine.decide({ type: "wake" }, stream.state, unasked), []);
      // As soon as somebody could know: the row may say that the worker is dead.
      assert.equal(stream.machine.deadline(stream.state, unasked), claimedAt + LEASE_MS);
    });

    it("is offered again, uncharged, when its living worker does not know of it", () => {
      const play = Play.of(flow);
      const grant = play.claim("work");
      play.disowned.add(grant.command_id);
      play.wake(grant.stream_id);
      play.wake(grant.stream_id);
      assert.equal(play.all("command.released").length, 1);
      play.disowned.clear();
      assert.equal(play.run().status, "COMPLETED");
    });

    it("fails with WORKER_LOST after max_attempts deaths, and routing goes on", () => {
      const play = Play.of(
        flow.replace(
          "{step: end}",
          `{step: end, when: "{{ output.error.code == 'WORKER_LOST' }}"}`,
        ),
      );
      for (let death = 0; death < 3; death += 1) {
        const grant = play.claim("work", flow === LOOP + END ? { index: 0 } : {});
        play.alive.delete("w1");
        play.wake(grant.stream_id);
        play.alive.add("w1");
      }
      play.run();
      const [lost] = play.all("command.failed");
      assert.equal(lost?.result.error?.code, "WORKER_LOST");
      assert.deepEqual([play.entered, play.status], [["work", "end"], "FAILED"]);
    });
  });
}

describe("many commands at once", () => {
  const wide = `
- step: start
  tool: {kind: noop}
  next: {spec: {mode: inclusive}, arcs: [{step: a}, {step: b}, {step: c}]}
- step: a
  tool: {kind: noop}
  next: {arcs: [{step: join, when: "{{ event.name == 'call.error' }}"}]}
- step: b
  tool: {kind: noop}
  next: {arcs: [{step: join, when: "{{ event.name == 'call.error' }}"}]}
- step: c
  tool: {kind: noop}
  next: {arcs: [{step: join, when: "{{ event.name == 'call.error' }}"}]}
- {step: join, tool: {kind: noop}}`;

  it("of one execution expire in one wake, and the last one's exit enters the join once", () => {
    const play = Play.of(wide);
    play.settings.max_attempts = 1;
    play.finish("start");
    for (const step of ["a", "b", "c"]) play.claim(step);
    play.alive.delete("w1");
    const before = play.log.length;
    play.wake();
    const facts = types(play.log.slice(before));
    assert.equal(facts, `${"command.expired command.failed ".repeat(3)}command.issued`);
    play.alive.add("w1");
    assert.deepEqual(play.run().entered, ["start", "a", "b", "c", "join"]);
    assert.equal(play.status, "FAILED");
  });

  it("of one execution expire in one wake also when the first failure is not handled", () => {
    const play = Play.of(wide.replaceAll("call.error", "call.done"));
    play.settings.max_attempts = 1;
    play.finish("start");
    for (const step of ["a", "b", "c"]) play.claim(step);
    play.alive.delete("w1");
    play.wake();
    assert.equal(play.all("command.failed").length, 3);
    assert.equal(play.all("playbook.failed").length, 1);
    assert.equal(resultOf(play.terminal).error?.code, "WORKER_LOST");
  });

  it("of one loop expire in one wake; the window is filled as if they had come one by one", () => {
    const play = Play.of(
      `- step: work
  loop:
    in: 5
    iterator: i
    spec: {mode: parallel, max_in_flight: 3, tolerated_failure_count: 5}
  tool: {kind: noop}`,
    );
    play.settings.max_attempts = 1;
    const grants = [0, 1, 2].map(index => play.claim("work", { index }));
    play.alive.delete("w1");
    play.wake(grants[0]!.stream_id);
    play.alive.add("w1");
    assert.equal(play.rings().length, 2);
    play.run();
    assert.deepEqual(play.all("loop.done")[0]?.meta.stats, {
      total: 5,
      success: 2,
      failed: 3,
      not_run: 0,
    });
    assert.equal(play.status, "COMPLETED");
  });
});

describe("step timeouts", () => {
  const slow = (more = "") =>
    `
- step: work
  spec: {timeout: 5s}
  ${more}
  tool: {kind: noop}
  next: {arcs: [{step: end, when: "{{ output.error.kind == 'timeout' }}"}]}
${END}`;

  it("end a command that takes too long, claimed or not, and an error arc may go on", () => {
    for (const claimed of [true, false]) {
      const play = Play.of(slow());
      const grant = claimed ? play.claim("work") : undefined;
      play.now += 4_999;
      play.wake();
      assert.deepEqual(play.entered, ["work"]);
      play.now += 1;
      play.wake();
      assert.equal(play.all("command.failed")[0]?.result.error?.code, "STEP_TIMEOUT");
      if (grant)
        assert.equal(
          reasonOf(() => play.report(grant)),
          "settled",
        );
      play.run();
      assert.deepEqual([play.entered, play.status], [["work", "end"], "FAILED"]);
    }
  });

  it("end a loop that takes too long: it is cancelled, and its step failed by the timeout", () => {
    const play = Play.of(slow("loop: {in: 3, iterator: i, spec: {mode: parallel}}"));
    const grant = play.claim("work", { index: 0 });
    play.finish("work", ok(), 1);
    play.now += 5_000;
    play.wake();
    play.wake();
    assert.equal(play.all("step.failed").length, 1);
    play.deliver();
    assert.equal(
      reasonOf(() => play.report(grant)),
      "settled",
    );
    const { stats, status } = play.all("loop.done")[0]!.meta;
    assert.deepEqual([stats.success, stats.not_run, status], [1, 2, "cancelled"]);
    assert.equal(resultOf(play.all("step.exit")[0]).error?.code, "STEP_TIMEOUT");
    play.run();
    assert.deepEqual([play.entered, play.status], [["work", "end"], "FAILED"]);
  });

  it("of several steps are all found in one wake, and name the deadline before", () => {
    const play = Play.of(`
- {step: start, tool: {kind: noop}, next: {spec: {mode: inclusive}, arcs: [{step: a}, {step: b}]}}
- {step: a, spec: {timeout: 5s}, tool: {kind: noop}}
- {step: b, spec: {timeout: 3s}, tool: {kind: noop}}`);
    play.finish("start");
    play.wake();
    assert.equal(executionMachine.deadline(play.state, play.context()), play.now + 3_000);
    play.now += 5_000;
    play.wake();
    assert.equal(play.all("command.failed").length, 2);
    assert.equal(play.status, "FAILED");
    assert.equal(executionMachine.deadline(play.state, play.context()), undefined);
  });
});

describe("given(machine, past)", () => {
  it("an execution that nobody started knows no command and cannot be cancelled", () => {
    const nothing = given(executionMachine, []);
    nothing.when({ type: "cancel" }).refused("unknown");
    nothing.when({ type: "describe" }).refused("unknown");
    const claim = { worker_id: "w", incarnation: "w", claim_id: "c", command_id: "1:a:1:1" };
    nothing.when({ type: "claim", ...claim }).refused("unknown");
  });

  it("a start asks for the playbook before it decides anything", () => {
    const start = {
      type: "start" as const,
      execution_id: "1",
      playbook: { path: "p", version: 1, hash: "a" },
      payload: {},
    };
    const { when } = given(executionMachine, [], turnAt(5));
    assert.throws(() => when(start).then(), { name: "Needs" });
  });
});

describe("a command that is handed over", () => {
  const FLOW = `
- step: start
  tool: {kind: noop}
  next: {spec: {mode: inclusive}, arcs: [{step: store}, {step: fetch}]}
- {step: store, tool: [{name: get, kind: http, url: u}, {name: put, kind: postgres, query: q}]}
- {step: fetch, tool: {kind: http, url: u}}
`;
  const handed = (only?: "general") => {
    const play = Play.of(FLOW);
    const { command_id, delivery } = play.claim("start");
    const next = { worker_id: "w1", incarnation: "w1", claim_id: "n", ...(only && { only }) };
    const outcome = { type: "outcome", command_id, delivery, worker_id: "w1", next } as const;
    play.send(EXECUTION_ID, { ...outcome, ...ok() });
    const issued = play.log.filter(event => event.event_type === "command.issued").slice(1);
    return issued.map(({ meta }) => `${meta["step"]} ${meta["kind"]} ${meta["claim_id"]}`);
  };

  it("is the first one, and a pipeline with a database task is of that kind", () => {
    assert.deepEqual(handed(), ["store postgres n", "fetch http undefined"]);
  });

  it("is the first one of the class that the worker still has room for", () => {
    assert.deepEqual(handed("general"), ["store postgres undefined", "fetch http n"]);
  });
});
