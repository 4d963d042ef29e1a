/** Loops over a cursor in random worlds: every order, repetition, death and late word. */
import { strict as assert } from "node:assert";
import type { Grant } from "../../schemas/frozen-scope.ts";
import type { LoopReport } from "../../schemas/loop-report.ts";
import { CursorChaos } from "../support/cursor-chaos.ts";
import { cursorPlay, Queue, roundReply } from "../support/cursor-play.ts";
import type { LogEvent } from "../support/log-checker.ts";
import { checkStream } from "../support/log-stream.ts";
import type { Play } from "../support/execution-play.ts";
import { pick, randomOf } from "../support/random-flows.ts";

const SEEDS = 400;

/** The loop's log as the checker reads it. */
function logOf(play: Play): [string, LogEvent[]] {
  const [started] = play.all("loop.started");
  const id = started?.stream_id ?? "";
  const events = play.eventsOf(id).map(event => ({
    ...event,
    meta: JSON.parse(JSON.stringify(event.meta)) as Record<string, unknown>,
    code: (event.result as { error?: { code?: string } } | undefined)?.error?.code ?? null,
  }));
  return [id, events];
}

interface World {
  chaos: CursorChaos;
  ends: boolean;
}

function world(seed: number): World {
  const random = randomOf(seed);
  const slots = 1 + Math.floor(random() * 4);
  const rows = pick(random, [0, 1, 7, 30]);
  const max = 1 + Math.floor(random() * 6);
  const play = cursorPlay(`max_in_flight: ${slots}`, `max_rows: ${max}`);
  const ends = random() < 0.25;
  const chaos = new CursorChaos(play, { random, queue: new Queue(rows), turns: 150, ends });
  return { chaos: chaos.run(), ends };
}

function check({ chaos, ends }: World): LoopReport["status"] {
  const { play, queue, accepted } = chaos;
  const [id, events] = logOf(play);
  assert.deepEqual(checkStream(id, events), []);
  const [done, ...more] = play.all("loop.done");
  assert.ok(done && more.length === 0, "one loop.done");
  const { stats, collection_size, status } = done.meta;
  const told = play.all("frame.committed").reduce((sum, { meta }) => sum + meta.count, 0);
  assert.deepEqual([stats.total, stats.not_run, collection_size], [told, 0, told]);
  assert.equal(stats.success + stats.failed, told);
  assert.equal(accepted.length, told, "what was accepted is what was told, no row twice");
  assert.equal(new Set(accepted).size, accepted.length, "a row of one claim is accepted once");
  if (status === "ok") {
    const rows = new Set(chaos.acceptedRows);
    assert.equal(rows.size, queue.size, "every row of the table is done");
    assert.deepEqual(queue.pending, []);
  } else assert.ok(ends || chaos.gaveUp, `${status} without a reason`);
  assert.deepEqual(play.all("step.exit").length + (play.status === "CANCELLED" ? 1 : 0) >= 1, true);
  return status;
}

describe(`loops over a cursor in ${SEEDS} random worlds`, () => {
  it("are done once, with every row accepted once, whatever was lost or said twice", function () {
    this.timeout(120_000);
    const met: Record<string, number> = {
      ...{ ok: 0, failed: 0, cancelled: 0, fenced: 0, settled: 0, left: 0, beats: 0, again: 0 },
    };
    for (let seed = 1; seed <= SEEDS; seed += 1) {
      try {
        const one = world(seed);
        const { play } = one.chaos;
        met[check(one)]! += 1;
        for (const reason of ["fenced", "settled"] as const) {
          met[reason]! += play.refusals.filter(found => found === reason).length;
        }
        met["left"]! += play.all("frame.committed").filter(event => event.context?.["left"]).length;
        met["beats"]! += play.all("frame.heartbeat").length;
        met["again"]! += play.all("command.issued").filter(({ meta }) => meta.attempt > 1).length;
      } catch (error) {
        (error as Error).message = `seed ${seed}: ${(error as Error).message}`;
        throw error;
      }
    }
    for (const [what, count] of Object.entries(met)) {
      assert.ok(count >= SEEDS / 50, `${what} ${count}: a world where nothing goes wrong`);
    }
  });

  it("would be told apart from worlds that break a rule", () => {
    const queue = new Queue(9);
    const play = cursorPlay("max_in_flight: 2");
    play.run({ work: (grant: Grant) => roundReply(grant, queue) });
    const [id, events] = logOf(play);
    assert.deepEqual(checkStream(id, events), []);
    const faults = (change: (log: LogEvent[]) => void) => {
      const log = structuredClone(events);
      change(log);
      return checkStream(id, log).join("; ");
    };
    const committed = (log: LogEvent[]) => log.filter(one => one.event_type === "frame.committed");
    assert.match(
      faults(log => void (committed(log)[1]!.meta["first"] = 0)),
      /begins at 0, not at/,
    );
    assert.match(
      faults(log => void (committed(log)[0]!.meta["ok"] = "0-1")),
      /counts 4 rows/,
    );
    assert.match(
      faults(log => void (committed(log)[0]!.meta["drained"] = true)),
      /drained slot/,
    );
    const last = committed(events).findLast(one => one.meta["drained"])!;
    const at = events.indexOf(last);
    assert.match(
      faults(log => void delete log[at]!.meta["drained"]),
      /1 of 2 slots drained/,
    );
    const doneAt = events.findIndex(one => one.event_type === "loop.done");
    const stats = { total: 8, success: 8, failed: 0, not_run: 0 };
    assert.match(
      faults(log => void (log[doneAt]!.meta["stats"] = stats)),
      /says 8 total, not 9/,
    );
  });

  it("come to the same end from the same seed", () => {
    const text = (seed: number) => JSON.stringify(world(seed).chaos.play.log);
    for (const seed of [5, 77]) assert.equal(text(seed), text(seed));
  });
});
