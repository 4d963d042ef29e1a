// Who a command is offered to first, and what becomes of it when that one does not take it.
import { strict as assert } from "node:assert";
import { createCapacityRegistry } from "../../mixins/capacity.ts";
import { createClock } from "../../mixins/clock.ts";
import { createDispatch } from "../../mixins/dispatch.ts";
import { createOffers } from "../../mixins/offers.ts";
import type { WorkerCapacity } from "../../schemas/worker-capacity.ts";
import type { Ring } from "../../schemas/decider.ts";
import type { StoredEvent } from "../../schemas/events.ts";
import { seeded } from "../support/actors.ts";

const PATIENCE_MS = 500;

function worker(worker_id: string, slots: number, more: Partial<WorkerCapacity> = {}) {
  return {
    ...{ worker_id, incarnation: `${worker_id}-1`, status: "ready" as const, slots },
    ...{ available_slots: slots, available_db_slots: slots, active_tasks: 0 },
    ...{ capabilities: [], labels: [], ...more },
  };
}

let rings = 0;
function ring(more: Partial<Ring> = {}): Ring {
  rings += 1;
  const command_id = `1:a:${rings}:1`;
  const ids = { execution_id: "1", stream_id: "1", actor: "loops" as const, command_id };
  return { ...ids, step: "a", kind: "noop", delivery: 0, ...more };
}

const fact = (event_type: string, command_id: string, worker_id: string) =>
  ({ event_type, meta: { command_id, worker_id } }) as unknown as StoredEvent;

/** A server with a clock that is set, and what it rings. */
function server(workers: WorkerCapacity[] = [], isTargeted = true) {
  let now = 0;
  const timers: { at: number; act: () => void }[] = [];
  const clock = {
    ...createClock(),
    now: () => now,
    after(ms: number, act: () => void) {
      timers.push({ at: now + ms, act });
      return () => undefined;
    },
  };
  const heard: { command_id: string; to: string | undefined }[] = [];
  const doorbell = {
    ring: ({ command_id }: Ring, to?: string) => void heard.push({ command_id, to }),
  };
  const offers = createOffers(clock);
  const registry = createCapacityRegistry(clock, seeded(7));
  const ports = { doorbell, offers, registry, clock, isTargeted, patienceMs: PATIENCE_MS };
  const dispatch = createDispatch(ports);
  for (const one of workers) dispatch.hear(one);
  function pass(ms: number): void {
    now += ms;
    for (const due of timers.splice(0).filter(timer => timer.at <= now || !timers.push(timer))) {
      due.act();
    }
  }
  function commit(event: StoredEvent): void {
    offers.settle([event]);
    dispatch.settle([event]);
  }
  return { dispatch, registry, heard, pass, commit, to: () => heard.map(one => one.to) };
}

describe("a command that is rung", () => {
  it("of a loop waits its turn behind what is for all; one of an execution does not", () => {
    const { dispatch, commit, to } = server([worker("w", 1)]);
    const [first, second] = [ring(), ring()];
    dispatch.ring(first, false);
    dispatch.ring(second, false);
    commit(fact("command.claimed", first.command_id, "w"));
    commit(fact("command.completed", first.command_id, "w"));
    // There is room for it, and another one has waited longer.
    dispatch.ring(ring(), false);
    dispatch.ring(ring({ actor: "executions" }), false);
    assert.deepEqual(to(), ["w", undefined, undefined, "w"]);
  });

  it("goes to a worker with room for it, and to all when none is known to have any", () => {
    const { dispatch, to } = server([worker("w", 2)]);
    for (let at = 0; at < 4; at += 1) dispatch.ring(ring(), false);
    assert.deepEqual(to(), ["w", "w", undefined, undefined]);
    assert.deepEqual([dispatch.counters.targeted, dispatch.counters.broadcast], [2, 2]);
  });

  it("is shared out in proportion to what is free", () => {
    const sizes = { small: 100, middle: 200, large: 400 };
    const { dispatch, heard } = server(Object.entries(sizes).map(([id, n]) => worker(id, n)));
    for (let at = 0; at < 420; at += 1) dispatch.ring(ring(), false);
    for (const [id, size] of Object.entries(sizes)) {
      const got = heard.filter(one => one.to === id).length;
      const due = (420 * size) / 700;
      assert.ok(Math.abs(got - due) <= 0.15 * due, `${id} got ${got} of ${due}`);
    }
  });

  it("of the database class goes where a slot of that class is free", () => {
    const { dispatch, to } = server([worker("full", 8, { available_db_slots: 0 }), worker("w", 1)]);
    dispatch.ring(ring({ kind: "postgres" }), false);
    dispatch.ring(ring({ kind: "postgres" }), false);
    assert.deepEqual(to(), ["w", undefined]);
  });

  it("of a step waits for a full worker rather than for all; one of a shard does not", () => {
    const { dispatch, to } = server([worker("w", 1, { available_slots: 0 })]);
    for (const actor of ["executions", "fanout"] as const) dispatch.ring(ring({ actor }), false);
    assert.deepEqual(to(), ["w", undefined]);
  });

  it("that its worker does not take in time is offered to all", () => {
    const { dispatch, to, pass } = server([worker("dead", 4)]);
    dispatch.ring(ring(), false);
    pass(PATIENCE_MS / 2);
    assert.deepEqual(to(), ["dead"]);
    pass(PATIENCE_MS / 2);
    pass(PATIENCE_MS / 2);
    assert.deepEqual(to(), ["dead", undefined]);
    assert.equal(dispatch.counters.reoffered, 1);
  });

  it("is offered to all at once when its worker's node is gone", () => {
    const { dispatch, to } = server([worker("dead", 4)]);
    dispatch.ring(ring(), false);
    dispatch.leave("dead");
    assert.deepEqual(to(), ["dead", undefined]);
  });

  it("is not offered again once somebody has claimed it", () => {
    const { dispatch, to, pass, commit } = server([worker("w", 4)]);
    const one = ring();
    dispatch.ring(one, false);
    commit(fact("command.claimed", one.command_id, "w"));
    pass(PATIENCE_MS);
    pass(PATIENCE_MS);
    dispatch.leave("w");
    assert.deepEqual(to(), ["w"]);
  });

  it("that was rung before goes to all, whoever seems to have room", () => {
    const { dispatch, to } = server([worker("w", 4)]);
    dispatch.ring(ring(), true);
    assert.deepEqual(to(), [undefined]);
  });

  it("goes to all where targets are turned off, or a worker has been silent too long", () => {
    const off = server([worker("w", 4)], false);
    off.dispatch.ring(ring(), false);
    const silent = server([worker("w", 4)]);
    silent.pass(46_000);
    silent.dispatch.ring(ring(), false);
    const draining = server([worker("w", 4, { status: "draining" })]);
    draining.dispatch.ring(ring(), false);
    assert.deepEqual(
      [off.to(), silent.to(), draining.to()],
      [[undefined], [undefined], [undefined]],
    );
  });
});

describe("a command that is given to a worker as it is issued", () => {
  const takes = { takes: true };
  const everybody = () => true;
  const issue = (one: Ring, worker_id: string) => {
    const event = fact("command.issued", one.command_id, worker_id);
    return { ...event, meta: { ...event.meta, claim_id: "c" } } as unknown as StoredEvent;
  };

  it("goes to one that takes it and has more slots than may wait with a pull", () => {
    const { dispatch } = server([worker("older", 99), worker("w", 4, takes)]);
    const given = Array.from({ length: 3 }, () => dispatch.assign(ring(), everybody)?.worker_id);
    assert.deepEqual(given, ["w", "w", undefined]);
    const near = server([worker("far", 9, takes), worker("w", 3, takes)]);
    assert.equal(near.dispatch.assign(ring(), id => id !== "far")?.worker_id, "w");
    assert.equal(
      server([worker("w", 4, takes)], false).dispatch.assign(ring(), everybody),
      undefined,
    );
  });

  it("takes one slot, whether the worker speaks before its commit or after", () => {
    const { dispatch, commit } = server([worker("w", 4, takes)]);
    const one = ring();
    dispatch.assign(one, everybody);
    dispatch.hear(worker("w", 4, takes));
    commit(issue(one, "w"));
    assert.equal(dispatch.counters.assigned, 1);
    assert.equal(dispatch.assign(ring(), everybody)?.worker_id, "w");
    assert.equal(dispatch.assign(ring(), everybody), undefined);
    commit(fact("command.completed", one.command_id, "w"));
    assert.equal(dispatch.assign(ring(), everybody)?.worker_id, "w");
  });

  it("gives the slot back when it is not issued like that", () => {
    const { dispatch } = server([worker("w", 3, takes)]);
    const one = ring();
    assert.deepEqual(dispatch.assign(one, everybody), { worker_id: "w", incarnation: "w-1" });
    assert.equal(dispatch.assign(ring(), everybody), undefined);
    dispatch.unassign(one.command_id);
    dispatch.unassign(one.command_id);
    assert.equal(dispatch.assign(ring(), everybody)?.worker_id, "w");
    assert.equal(dispatch.assign(ring(), everybody), undefined);
    assert.equal(dispatch.counters.assigned, 0);
  });
});

describe("slots of a worker, as a server counts them", () => {
  for (const end of ["command.completed", "loop.shard.failed", "command.released"]) {
    it(`are taken by a ring once, and free again after ${end}`, () => {
      const { dispatch, to, commit } = server([worker("w", 1)]);
      const one = ring();
      dispatch.ring(one, false);
      commit(fact("command.claimed", one.command_id, "w"));
      commit(fact(end, one.command_id, "w"));
      dispatch.ring(ring(), false);
      dispatch.ring(ring(), false);
      assert.deepEqual(to(), ["w", "w", undefined]);
    });
  }

  it("are taken by what others gave it, and by what is on its way when it speaks", () => {
    const { dispatch, to, commit } = server([worker("w", 2)]);
    commit(fact("command.claimed", "1:b:1:1", "w"));
    dispatch.ring(ring(), false);
    // It does not know of the ring yet: that slot is as good as taken.
    dispatch.hear(worker("w", 2, { available_slots: 1 }));
    dispatch.ring(ring(), false);
    assert.deepEqual(to(), ["w", undefined]);
  });
});

describe("a command that needs something", () => {
  const gpu = { capabilities: ["gpu"], labels: ["zone=eu"] };

  it("goes only to a worker that offers it, even one without room", () => {
    const full = worker("gpu", 1, { ...gpu, available_slots: 0 });
    const { dispatch, to } = server([worker("plain", 8), full]);
    dispatch.ring(ring({ requires: ["gpu"] }), false);
    dispatch.ring(ring({ requires: ["gpu", "zone=eu"] }), true);
    assert.deepEqual(to(), ["gpu", "gpu"]);
    assert.deepEqual(dispatch.unserved(), []);
  });

  it("is rung and named where nobody known offers it, until somebody does", () => {
    const { dispatch, to } = server([worker("plain", 8)]);
    const one = ring({ requires: ["gpu"] });
    dispatch.ring(one, false);
    assert.deepEqual(to(), [undefined]);
    assert.deepEqual(dispatch.unserved(), [one]);
    dispatch.hear(worker("new", 1, gpu));
    dispatch.ring(one, true);
    assert.deepEqual(to(), [undefined, "new"]);
    assert.deepEqual(dispatch.unserved(), []);
  });
});
