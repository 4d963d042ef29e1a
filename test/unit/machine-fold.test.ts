/** The fold of both machines: total, repeatable from any snapshot, deaf to facts it has folded. */
import { strict as assert } from "node:assert";
import type { Machine } from "../../schemas/decider.ts";
import type { NewEvent, StoredEvent } from "../../schemas/events.ts";
import { EVENT_TYPES, eventSchema } from "../../schemas/events.ts";
import type { Grant } from "../../schemas/frozen-scope.ts";
import type { Json } from "../../schemas/json.ts";
import {
  claimFailure,
  cursorPlay,
  leaving,
  Queue,
  roundReply,
  rowsReply,
} from "../support/cursor-play.ts";
import { EXECUTION_ID, Play } from "../support/execution-play.ts";
import { fanoutPlay, runOut } from "../support/fanout-play.ts";
import { failed, ok } from "../support/worker-replies.ts";

type AnyMachine = Machine<unknown, never, unknown>;

const FLOW = `
- step: start
  tool: {kind: noop}
  next: {spec: {mode: inclusive}, arcs: [{step: each}, {step: side}, {step: gate}]}
- step: each
  spec: {timeout: 9s}
  loop: {in: 4, iterator: i, spec: {mode: parallel, max_in_flight: 2, tolerated_failure_count: 1}}
  tool: {kind: noop}
  next: {arcs: [{step: join}]}
- step: side
  tool: {kind: noop}
  next: {arcs: [{step: join, when: "{{ event.status == 'failed' }}"}]}
- step: gate
  spec: {policy: {admit: {rules: [{else: {then: {allow: false}}}]}}}
  tool: {kind: noop}
- step: join
  tool: {kind: noop}
  set: {ctx.n: "{{ (ctx.n or 0) + 1 }}"}
  next: {arcs: [{step: start, when: "{{ ctx.n < 2 }}"}]}`;

/** Runs that between them meet every fact the machines decide. */
function plays(): Play[] {
  const eventful = Play.of(FLOW);
  eventful.finish("start");
  const lost = eventful.claim("side");
  eventful.alive.delete("w1");
  eventful.wake();
  eventful.alive.add("w1");
  const { command_id, delivery, stream_id } = eventful.claim("each");
  eventful.send(stream_id, { type: "release", command_id, delivery, worker_id: "w1" });
  eventful.run({ side: failed("no", { x: 1 }), "each/2": failed(), each: ok({}, { y: 1 }) });
  assert.equal(
    eventful.try(() => eventful.report(lost)),
    undefined,
  );

  const cancelled = Play.of(FLOW);
  cancelled.finish("start");
  cancelled.claim("each");
  cancelled.ask({ type: "cancel", reason: "enough" });
  cancelled.deliver();

  const late = Play.of(FLOW);
  late.finish("start");
  late.claim("each");
  late.now += 9_000;
  late.wake();
  late.run();

  const stopped = Play.of(FLOW.replace("event.status", "false and event.status"));
  stopped.finish("start");
  const running = stopped.claim("each");
  stopped.finish("side", failed());
  stopped.report(running);
  const fine = Play.of(FLOW).run();
  const framed = Play.of(FLOW.replace("in: 4", "in: 20"));
  framed.itemMs = 1;
  framed.run();
  return [eventful, cancelled, late, stopped, fine, framed, claimed(), ...fannedOut()];
}

/** Fan-outs whose shards are tried again, lost, and stopped. */
function fannedOut(): Play[] {
  const flaky = (one: Grant) => (one.attempt < 2 || one.iteration?.index === 4 ? failed() : ok());
  const single = runOut(fanoutPlay(6, { max_in_flight: 3 }), { each: flaky });
  const batched = runOut(fanoutPlay(7, { batch: 3, max_in_flight: 2 }), { each: flaky });
  const quick = fanoutPlay(9, { fail_fast: true, max_shard_retries: 0, max_in_flight: 4 });
  return [single, batched, runOut(quick, { "each/1": failed() })];
}

/** A loop over a cursor that meets all that its slots can. */
function claimed(): Play {
  const play = cursorPlay("max_in_flight: 2", "max_rows: 2, max_attempts: 2");
  const queue = new Queue(9);
  const dead = play.claim("work");
  play.report(dead, rowsReply({ ok: [0] }, { final: false }));
  play.report(dead, rowsReply({}, { final: false }));
  const broken = play.claim("work");
  play.alive.delete("w1");
  play.wake(dead.stream_id);
  play.alive.add("w1");
  for (const grant of [play.claim("work"), play.claim("work")]) {
    if (grant.command_id !== broken.command_id) {
      play.report(grant, rowsReply({ failed: [1] }, leaving(queue.take(grant))));
    } else play.report(grant, claimFailure(true));
  }
  play.now += 1_000;
  play.wake(dead.stream_id);
  return play.run({ work: grant => roundReply(grant, queue) });
}

function streams(): { machine: AnyMachine; events: StoredEvent[] }[] {
  return plays().flatMap(play =>
    [...play.streams.values()].map(({ machine, events }) => ({
      machine,
      events,
    })),
  );
}

function frozen(machine: AnyMachine, state: unknown): string {
  return JSON.stringify(machine.freeze(state));
}

function evolve(machine: AnyMachine, state: unknown, event: StoredEvent): unknown {
  return machine.evolve(state, event, event.at, event.version);
}

/** One event of each type, as plain as its schema allows. */
function anyEvents(): NewEvent[] {
  const meta = {
    ...{ step: "start", activation: 1, command_id: "1000:start:1:1", attempt: 1, iter_index: 0 },
    ...{ delivery: 1, worker_id: "w", incarnation: "w", claim_id: "c", reason: "r", kind: "noop" },
    ...{ loop_id: "7", collection_size: 2, mode: "parallel", max_in_flight: 1, generation: 0 },
    ...{ stats: { total: 0, success: 0, failed: 0, not_run: 0 }, status: "ok" },
    ...{ path: "t", playbook_version: 1, hash: "abc", shard_id: "s", total_shards: 1 },
    ...{ first: 0, count: 2, final: true, ok: "0", failed: "1" },
    ...{ pause: 1, spent: 1, next_try_at: 5, code: "c" },
    ...{ chunk_index: 0, next: ["start", "nowhere"], step_status: "failed" },
  };
  const context = { workload: {}, execution_id: EXECUTION_ID };
  const fanin = {
    ...meta,
    status: "complete",
    total: 1,
    done: 1,
    succeeded: 1,
    failed: 0,
    batch: 1,
  };
  return [...EVENT_TYPES].flatMap(event_type =>
    [{}, { context }, { context, node_name: "start" }].flatMap(more => {
      const isFanout = /^loop\.fan/.test(event_type);
      const event = {
        event_type,
        meta: isFanout ? fanin : meta,
        result: { status: "error" },
        ...more,
      };
      const parsed = eventSchema.safeParse(event);
      return parsed.success ? [parsed.data] : [];
    }),
  );
}

describe("the fold", () => {
  it("is met with every fact the machines decide", () => {
    const met = new Set(streams().flatMap(({ events }) => events.map(one => one.event_type)));
    for (const type of [
      ...["playbook.initialized", "step.enter", "step.exit", "step.skipped", "step.failed"],
      ...["playbook.completed", "playbook.failed", "execution.cancel_requested"],
      ...["execution.cancelled", "command.issued", "command.claimed", "command.completed"],
      ...["command.failed", "command.expired", "command.released", "command.cancelled"],
      ...["loop.started", "loop.done", "frame.committed", "frame.heartbeat"],
      ...["loop.fanout.started", "loop.shard.done", "loop.shard.failed", "loop.fanin.completed"],
    ]) {
      assert.ok(met.has(type as never), type);
    }
  });

  it("equals a fold that was frozen and thawed after any of its events", () => {
    for (const { machine, events } of streams()) {
      const whole = frozen(
        machine,
        events.reduce((s, e) => evolve(machine, s, e), machine.initial()),
      );
      let state = machine.initial();
      for (const [index, event] of events.entries()) {
        state = evolve(machine, state, event);
        const text = frozen(machine, state);
        let rest = machine.thaw(JSON.parse(text) as Json);
        assert.equal(frozen(machine, rest), text);
        for (const later of events.slice(index + 1)) rest = evolve(machine, rest, later);
        assert.equal(frozen(machine, rest), whole, `frozen after ${index + 1} ${event.event_type}`);
      }
    }
  });

  it("takes every type of event in every state without throwing", () => {
    const events = anyEvents();
    const types = new Set(events.map(event => event.event_type));
    assert.equal(types.size, EVENT_TYPES.size);
    for (const { machine, events: log } of streams()) {
      let state = machine.initial();
      for (const next of [undefined, ...log]) {
        if (next) state = evolve(machine, state, next);
        for (const event of events) {
          const after = machine.evolve(machine.fork(state), event, 1, 99);
          assert.ok(after);
          machine.freeze(after);
        }
      }
    }
  });

  it("does not change by any fact that it has folded before", () => {
    for (const { machine, events } of streams()) {
      let state = machine.initial();
      for (const [index, event] of events.entries()) {
        state = evolve(machine, state, event);
        const text = frozen(machine, state);
        for (const past of events.slice(0, index + 1)) {
          const again = evolve(machine, machine.fork(state), past);
          assert.equal(
            frozen(machine, again),
            text,
            `${past.event_type} after ${event.event_type}`,
          );
        }
      }
    }
  });

  it("of a fork leaves the state it was forked from as it was", () => {
    for (const { machine, events } of streams()) {
      let state = machine.initial();
      for (const event of events) {
        const before = frozen(machine, state);
        const fork = evolve(machine, machine.fork(state), event);
        for (const further of events) evolve(machine, fork, further);
        assert.equal(frozen(machine, state), before, event.event_type);
        state = evolve(machine, state, event);
      }
    }
  });

  it("has only facts to fold that the schema of events knows", () => {
    for (const { events } of streams()) {
      for (const event of events) eventSchema.parse(event);
    }
  });
});
