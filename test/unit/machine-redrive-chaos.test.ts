/** Random playbooks that fail, redriven in random worlds until nothing fails any more. */
import { strict as assert } from "node:assert";
import type { StoredEvent } from "../../schemas/events.ts";
import { fromRanges } from "../../schemas/ranges.ts";
import { Chaos } from "../support/chaos.ts";
import { Play } from "../support/execution-play.ts";
import { answerOf, randomFlow, randomOf, type Random } from "../support/random-flows.ts";
import { frameReply, ok, type Reply } from "../support/worker-replies.ts";
import type { Grant } from "../../schemas/frozen-scope.ts";

const SEEDS = Number(process.env["NOETL_TEST_SEEDS"] ?? 300);

function world(play: Play, random: Random, answer: (grant: Grant) => Reply): void {
  const turns = Math.floor(random() * 100);
  const frames = (grant: Grant) => frameReply(grant, answer);
  new Chaos(play, { random, answer: frames, turns, mayCancel: false }).run();
}

/** Ends as its outcomes let it. */
function play(seed: number): Play {
  const random = randomOf(seed);
  const flow = randomFlow(random);
  const run = Play.of(flow.yaml, {}, flow.more);
  run.thorough = seed % 10 === 0;
  if (seed % 3 > 0) run.itemMs = 1;
  run.settings.max_attempts = 1_000;
  world(run, random, grant => answerOf(flow, grant));
  return run;
}

/** Accepted items of a loop and of those it goes on with, each once. */
function checkItems(log: StoredEvent[]): void {
  const before = new Map<string, string | undefined>();
  for (const event of log) {
    if (event.event_type === "loop.started") before.set(event.stream_id, event.meta.redrive_of);
  }
  const rootOf = (id: string): string => {
    const earlier = before.get(id);
    return earlier === undefined ? id : rootOf(earlier);
  };
  const accepted = new Set<string>();
  for (const event of log) {
    for (const index of successesOf(event)) {
      const item = `${rootOf(event.stream_id)}/${index}`;
      assert.ok(!accepted.has(item), `item ${index} succeeded twice`);
      accepted.add(item);
    }
  }
}

function successesOf(event: StoredEvent): number[] {
  if (event.event_type === "frame.committed") return fromRanges(event.meta.ok, 0, Infinity) ?? [];
  const isItem = event.event_type === "command.completed" && event.meta.iter_index !== undefined;
  return isItem ? [event.meta.iter_index as number] : [];
}

function checkTerminals(log: StoredEvent[]): void {
  const generations = log.flatMap(({ event_type, meta }) =>
    event_type === "playbook.completed" || event_type === "playbook.failed"
      ? [meta.generation]
      : [],
  );
  assert.deepEqual(generations, [...generations.keys()], "one terminal a generation");
  const done = log.filter(({ event_type }) => event_type === "loop.done").map(one => one.stream_id);
  assert.equal(new Set(done).size, done.length, "each loop is done once");
}

/** Redrives until nothing has failed; answers get better with every generation. */
function redriveAll(run: Play, random: Random, flow: ReturnType<typeof randomFlow>): number {
  run.settings.max_attempts = 1_000;
  for (let generation = 0; ; generation += 1) {
    assert.ok(generation < 4, `FAILED after ${generation} generations`);
    const { lapsed = [] } = run.ask({ type: "describe" });
    if (lapsed.every(([, { why }]) => why === "tolerated")) return generation;
    run.ask({ type: "redrive", generation });
    const mends = generation > 0 || random() < 0.5;
    world(run, random, grant => (mends ? ok() : answerOf(flow, grant)));
  }
}

describe(`redrives in ${SEEDS} random worlds`, () => {
  it("end COMPLETED once nothing fails; no accepted item runs again", function () {
    this.timeout(120_000);
    const met = { redriven: 0, twice: 0, loops: 0 };
    for (let seed = 1; seed <= SEEDS; seed += 1) {
      try {
        const run = play(seed);
        const generations = redriveAll(run, randomOf(seed + 7), randomFlow(randomOf(seed)));
        assert.equal(run.status, "COMPLETED");
        checkTerminals(run.log);
        checkItems(run.log);
        met.redriven += generations > 0 ? 1 : 0;
        met.twice += generations > 1 ? 1 : 0;
        met.loops += run.all("loop.started").filter(({ meta }) => meta.redrive_of).length;
      } catch (error) {
        const { yaml } = randomFlow(randomOf(seed));
        (error as Error).message = `seed ${seed}: ${(error as Error).message}\n${yaml}`;
        throw error;
      }
    }
    for (const [what, count] of Object.entries(met)) {
      assert.ok(count > SEEDS / 50, `${what} ${count}`);
    }
  });

  it("would be told apart from worlds in which an item runs twice", () => {
    const run = Play.of(`- {step: each, loop: {in: 2, iterator: i}, tool: {kind: noop}}`).run();
    const twice = run.all("command.completed")[0] as StoredEvent;
    checkItems(run.log);
    assert.throws(() => checkItems([...run.log, twice]), /succeeded twice/);
    assert.throws(() => checkTerminals([...run.log, ...run.all("loop.done")]), /done once/);
  });
});
