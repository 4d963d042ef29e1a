/** Random playbooks in random order: what must hold whatever happens, and when. */
import { strict as assert } from "node:assert";
import { COMMAND_TERMINALS, type StoredEvent } from "../../schemas/events.ts";
import type { Chaos } from "../support/chaos.ts";
import { playWorld as play } from "../support/chaos-worlds.ts";
import { EXECUTION_ID, Play } from "../support/execution-play.ts";
import { settledBy } from "../support/play-results.ts";
import { expectedOf, randomFlow, randomOf } from "../support/random-flows.ts";

const SEEDS = Number(process.env["NOETL_TEST_SEEDS"] ?? 400);

function counts(keys: string[]): Record<string, number> {
  const found: Record<string, number> = {};
  for (const key of keys) found[key] = (found[key] ?? 0) + 1;
  return found;
}

function checkCommands(log: StoredEvent[]): void {
  const of = (...types: string[]) =>
    log.filter(event => types.includes(event.event_type)) as (StoredEvent & {
      meta: { command_id: string; delivery: number };
    })[];
  const issued = of("command.issued").map(event => event.meta.command_id);
  assert.equal(new Set(issued).size, issued.length, "a command was issued twice");
  const ends = [
    ...of(...COMMAND_TERMINALS),
    ...of("frame.committed").filter(event => (event.meta as { final?: boolean }).final),
  ];
  const ended = ends.map(event => event.meta.command_id);
  assert.deepEqual(ended.toSorted(), issued.toSorted(), "issued and terminal differ");
  const claims = counts(of("command.claimed").map(event => event.meta.command_id));
  for (const { event_type, meta } of ends) {
    if (event_type === "command.cancelled") continue;
    assert.equal(meta.delivery, claims[meta.command_id] ?? 0, `fence of ${meta.command_id}`);
  }
}

function checkLoops(log: StoredEvent[]): void {
  const started = log.filter(event => /^loop\.(fanout\.)?started$/.test(event.event_type));
  const done = log.filter(
    event => event.event_type === "loop.done" || event.event_type === "loop.fanin.completed",
  );
  const ids = (events: StoredEvent[]) => events.map(event => event.stream_id).toSorted();
  assert.deepEqual(ids(done), ids(started), "each loop is done once");
  for (const { stream_id, meta } of done) {
    const { total, success, failed, not_run } = meta.stats;
    assert.equal(success + failed + not_run, total);
    const own = log.filter(event => event.stream_id === stream_id);
    const sets = settledBy(stream_id, () => own);
    assert.equal(sets.ok.length, success);
    assert.equal(sets.failed.length, failed);
    assert.equal(new Set([...sets.ok, ...sets.failed]).size, success + failed, "settled twice");
  }
  for (const { stream_id, meta } of log.filter(isFanin)) {
    const own = log.filter(event => event.stream_id === stream_id);
    const ends = counts(own.map(event => event.event_type));
    assert.equal(meta.succeeded, ends["loop.shard.done"] ?? 0);
    assert.equal(meta.failed, ends["loop.shard.failed"] ?? 0);
    const { total, success } = meta.stats;
    if (meta.status === "complete") assert.equal(success, total);
    if (meta.status === "partial") assert.ok(success > 0 && success < total);
    if (meta.status === "failed") assert.ok(success < total);
  }
  const entered = log.filter(one => one.event_type === "step.enter").map(one => one.meta.loop_id);
  assert.equal(new Set(entered).size, entered.length);
}

function isFanin(event: StoredEvent) {
  return event.event_type === "loop.fanin.completed";
}

function checkEnd(seed: number, chaos: Chaos): void {
  const flow = randomFlow(randomOf(seed));
  const { log, terminal, status, entered } = chaos.play;
  const terminals = log.filter(event =>
    ["playbook.completed", "playbook.failed", "execution.cancelled"].includes(event.event_type),
  );
  assert.equal(terminals.length, 1, "one terminal");
  assert.equal(chaos.executionEvents.at(-1), terminal, "nothing follows the terminal");
  if (chaos.cancelled) return assert.equal(status, "CANCELLED");
  const failures = flow.steps.filter(step => {
    const lost = chaos.executionEvents.some(
      event =>
        event.node_name === step.name &&
        (event.event_type === "command.failed" ||
          (event.event_type === "step.exit" && event.result?.status === "error")),
    );
    return lost && !step.isBestEffort;
  });
  assert.equal(status, failures.length > 0 ? "FAILED" : "COMPLETED");
  const expected = expectedOf(flow);
  const anyLost = JSON.stringify(log).includes("WORKER_LOST");
  if (!expected || anyLost) return undefined;
  assert.equal(status, expected.status, "the end that its outcomes give it");
  if (expected.entered) assert.deepEqual(counts(entered), sorted(expected.entered, entered));
  return undefined;
}

/**
 * The same map with its keys in the order of another's first mentions, for a readable difference.
 */
function sorted(map: Record<string, number>, order: string[]): Record<string, number> {
  const rank = (key: string) => (order.includes(key) ? order.indexOf(key) : order.length);
  return Object.fromEntries(Object.entries(map).toSorted(([a], [b]) => rank(a) - rank(b)));
}

function checkActivations(chaos: Chaos): void {
  const next = new Map<string, number>();
  for (const { event_type, meta } of chaos.executionEvents) {
    const isEntry = event_type === "step.enter" || (event_type === "command.issued" && meta.enter);
    if (!isEntry) continue;
    const { step, activation } = meta;
    assert.equal(activation, (next.get(step) ?? 0) + 1, `activation of ${step}`);
    next.set(step, activation);
  }
}

describe(`executions in ${SEEDS} random worlds`, () => {
  it("end once and rightly; each command is issued and settled once, each loop done", function () {
    this.timeout(120_000);
    const met = {
      ...{ CANCELLED: 0, COMPLETED: 0, FAILED: 0, fenced: 0, held: 0, loops: 0, known: 0 },
      ...{ frames: 0, split: 0, fanins: 0, partial: 0, again: 0, pauses: 0 },
    };
    for (let seed = 1; seed <= SEEDS; seed += 1) {
      try {
        const chaos = play(seed);
        checkCommands(chaos.play.log);
        checkLoops(chaos.play.log);
        checkActivations(chaos);
        checkEnd(seed, chaos);
        met[chaos.play.status as "FAILED"] += 1;
        met.fenced += chaos.play.refusals.filter(one => one === "fenced").length;
        met.held += chaos.play.refusals.filter(one => one === "held").length;
        met.loops += chaos.play.all("loop.done").length;
        met.fanins += chaos.play.all("loop.fanin.completed").length;
        met.partial += chaos.play
          .all("loop.fanin.completed")
          .filter(({ meta }) => meta.status === "partial").length;
        met.again += chaos.play.all("command.failed").filter(one => one.meta.retry_at).length;
        met.frames += chaos.play.all("frame.committed").length;
        met.split += chaos.play
          .all("command.issued")
          .filter(({ meta }) => meta.attempt === 2 && meta.shard_id === undefined).length;
        met.pauses += chaos.pauses;
        met.known += expectedOf(randomFlow(randomOf(seed)))?.entered ? 1 : 0;
      } catch (error) {
        const { yaml } = randomFlow(randomOf(seed));
        (error as Error).message = `seed ${seed}: ${(error as Error).message}\n${yaml}`;
        throw error;
      }
    }
    // A world in which nothing went wrong would prove nothing.
    for (const [what, count] of Object.entries(met))
      assert.ok(count > SEEDS / 50, `${what} ${count}`);
  });

  it("would be told apart from worlds that break a rule", () => {
    const { log } = Play.of(`- {step: each, loop: {in: 2, iterator: i}, tool: {kind: noop}}`).run();
    const twice = (type: string) => [...log, log.find(event => event.event_type === type)!];
    const without = (type: string) => log.filter(event => event.event_type !== type);
    checkCommands(log);
    checkLoops(log);
    assert.throws(() => checkCommands(twice("command.issued")), /issued twice/);
    assert.throws(() => checkCommands(twice("command.completed")), /terminal differ/);
    assert.throws(() => checkCommands(twice("command.claimed")), /fence/);
    assert.throws(() => checkCommands(without("command.completed")), /terminal differ/);
    assert.throws(() => checkLoops(twice("loop.done")), /done once/);
    assert.throws(() => checkLoops(without("command.completed")));
  });

  it("come to the same end from the same seed", () => {
    const text = (seed: number) => JSON.stringify(play(seed).play.eventsOf(EXECUTION_ID));
    for (const seed of [3, 14, 159]) assert.equal(text(seed), text(seed));
  });
});
