/** Loops so small that every state can be visited, and ones so large that only counting helps. */
import { strict as assert } from "node:assert";
import type { NewEvent } from "../../schemas/events.ts";
import { fromRanges, toRanges } from "../../schemas/ranges.ts";
import { loopMachine } from "../../services/loops/machine.ts";
import type { LoopInput } from "../../schemas/loop-turns.ts";
import type { LoopState } from "../../services/loops/state.ts";
import { explore, startOf, turnOf, type World } from "../support/loop-states.ts";
import { randomOf, type Random } from "../support/random-flows.ts";

const WIDE = "mode: parallel, max_in_flight: 2";
const WORLDS: World[] = [
  { n: 0, spec: "mode: parallel", deliveries: 2 },
  { n: 1, spec: "mode: sequential", deliveries: 3 },
  { n: 3, spec: "mode: parallel, max_in_flight: 3", deliveries: 1 },
  { n: 8, spec: "mode: sequential", deliveries: 2 },
  { n: 8, spec: `${WIDE}, policy: {exec: distributed}`, deliveries: 1 },
  {
    n: 5,
    spec: `${WIDE}, tolerated_failure_count: 1, policy: {exec: distributed}`,
    deliveries: 1,
  },
  { n: 6, spec: `${WIDE}, frame: {max_rows: 3}`, deliveries: 1 },
  { n: 8, spec: "mode: sequential, frame: {max_rows: 4}", deliveries: 1 },
];

describe("every state of a small loop", function () {
  this.timeout(60_000);

  for (const world of WORLDS) {
    it(`keeps the rules: ${world.n} items, ${world.spec}`, () => {
      const { states, moves, refusals, ends } = explore(world);
      const met = [...ends].map(([status, count]) => `${status} ${count}`).join(", ");
      process.stdout.write(`      ${states} states, ${moves} moves, ${refusals} refused; ${met}\n`);
      if (world.n > 0) assert.deepEqual([...ends.keys()].sort(), ["cancelled", "failed", "ok"]);
      if (world.n > 0) assert.ok(refusals > 0);
    });
  }
});

/** A loop driven at random in one process; what it must have accepted is counted beside it. */
class Driven {
  readonly world: World;
  readonly random: Random;
  readonly log: NewEvent[] = [];
  readonly accepted = new Map<number, boolean>();
  state: LoopState = loopMachine.initial();
  dones = 0;
  refused = 0;

  constructor(world: World, random: Random) {
    this.world = world;
    this.random = random;
    this.send(startOf(world));
  }

  /** False when it is refused. */
  send(input: LoopInput, more: Parameters<typeof turnOf>[1] = {}): boolean {
    let facts: NewEvent[];
    try {
      facts = loopMachine.decide(input, this.state, { ...this.#turn, ...more });
    } catch {
      this.refused += 1;
      return false;
    }
    this.state = loopMachine.fork(this.state);
    for (const fact of facts) {
      this.log.push(fact);
      this.state = loopMachine.evolve(this.state, fact, 0, this.log.length);
      if (fact.event_type === "loop.done") this.dones += 1;
    }
    return true;
  }

  get #turn() {
    return (this.turn ??= turnOf(this.world));
  }
  turn: ReturnType<typeof turnOf> | undefined;

  /** The owner dies: the state is what the log says. */
  crash(): void {
    let state = loopMachine.initial();
    for (const [at, fact] of this.log.entries()) {
      state = loopMachine.evolve(state, fact, 0, at + 1);
    }
    assert.deepEqual(loopMachine.freeze(state), loopMachine.freeze(this.state));
    this.state = loopMachine.thaw(loopMachine.freeze(state));
  }

  /** Claims, runs and reports one command; sometimes twice, late, or not at all. */
  step(turn: number): void {
    if (this.state.status !== "running") return;
    const open = [...this.state.open.values()];
    const command = open[Math.floor(this.random() * open.length)];
    if (!command) return;
    const { command_id, frame, iter_index = 0 } = command;
    const who = { worker_id: "w", incarnation: "w", claim_id: `c${turn}` };
    if (!command.holder) this.send({ type: "claim", command_id, ...who });
    const held = this.state.open.get(command_id);
    if (!held?.holder) return;
    if (this.random() < 0.01) {
      this.send({ type: "wake" }, { seen: new Map([["w", "gone"]]) });
      return;
    }
    const items = frame
      ? Array.from({ length: frame.count }, (_, at) => frame.first + at)
      : [iter_index];
    const left = items.filter(index => !this.accepted.has(index));
    const failed = left.filter(() => this.random() < 0.001);
    const ok = left.filter(index => !failed.includes(index));
    const error = { kind: "logic", retryable: false, code: "X", message: "broke" };
    const isBroken = !frame && failed.length > 0;
    const input: LoopInput = {
      ...{ type: "outcome", command_id, delivery: held.delivery, worker_id: "w" },
      result: isBroken ? { status: "error", error } : { status: "ok", context: null },
      ...(frame && { frame: { ok: toRanges(ok), failed: toRanges(failed), final: true } }),
      stats: { task_runs: 1, retries: 0, duration_ms: 0 },
    };
    if (!this.send(input)) return;
    for (const index of ok) this.accepted.set(index, true);
    for (const index of failed) this.accepted.set(index, false);
    // The answer was lost: the same report again changes nothing.
    if (this.random() < 0.1) assert.equal(this.send(input), false);
  }
}

/** The per-item fold: one entry an item, from the log alone. */
function itemFold(log: readonly NewEvent[]): Map<number, boolean> {
  const items = new Map<number, boolean>();
  for (const fact of log) {
    if (fact.event_type === "command.completed" || fact.event_type === "command.failed") {
      const { iter_index = -1 } = fact.meta;
      if (!items.has(iter_index)) items.set(iter_index, fact.event_type === "command.completed");
    } else if (fact.event_type === "frame.committed") {
      for (const index of fromRanges(fact.meta.ok, 0, Infinity) ?? []) items.set(index, true);
      for (const index of fromRanges(fact.meta.failed, 0, Infinity) ?? []) items.set(index, false);
    }
  }
  return items;
}

describe("a large loop driven at random", function () {
  this.timeout(120_000);
  const sizes = [100, 4_321, 100_000];

  for (const [seed, n] of sizes.entries()) {
    it(`is done once after ${n} accepted items; its bits say what a fold by item says`, () => {
      const random = randomOf(seed + 1);
      const more = "tolerated_failure_percent: 100, max_in_flight: 16";
      const world = { n, spec: `mode: parallel, ${more}`, deliveries: 0 };
      const loop = new Driven(world, random);
      const crashes = new Set([3, 50, 700].map(turn => turn + seed));
      let bits: LoopState = loop.state;
      for (let turn = 0; loop.state.status === "running"; turn += 1) {
        assert.ok(turn < 5 * n + 100, "it does not end");
        bits = loop.state;
        loop.step(turn);
        if (crashes.has(turn)) loop.crash();
      }
      assert.equal(loop.dones, 1);
      assert.equal(loop.accepted.size, n);
      assert.deepEqual(sorted(itemFold(loop.log)), sorted(loop.accepted));
      assert.ok(bits.status === "running");
      const fold = itemFold(
        loop.log.slice(
          0,
          loop.log.findLastIndex(one => isTerminal(one)),
        ),
      );
      for (const [index, isOk] of fold) {
        assert.deepEqual([bits.done.has(index), bits.failed.has(index)], [isOk, !isOk]);
      }
      const done = loop.log.at(-1);
      assert.ok(done?.event_type === "loop.done");
      const failed = [...loop.accepted.values()].filter(isOk => !isOk).length;
      const stats = { total: n, success: n - failed, failed, not_run: 0 };
      assert.deepEqual(done.meta.stats, stats);
      assert.ok(loop.refused > 0, "nothing was stale");
    });
  }
});

function isTerminal({ event_type }: NewEvent): boolean {
  return ["command.completed", "command.failed", "frame.committed"].includes(event_type);
}

function sorted(items: Map<number, boolean>): [number, boolean][] {
  return [...items].toSorted(([one], [other]) => one - other);
}
