/** The keeper's loop in a time that passes by hand. */
import { strict as assert } from "node:assert";
import type { Service } from "moleculer";
import type { ExecutionRow } from "../../mixins/postgres/execution.ts";
import { createFeed, type Runtime } from "../../mixins/runtime.ts";
import type { StoredEvent } from "../../schemas/events.ts";
import { ProjectionKeeper } from "../../services/projection/keeper.ts";

interface Timer {
  at: number;
  work: () => void;
}

const CLAIM = { shard: 0, epoch: 1, position: { tx: "0", event_id: "0" } };

/** A keeper of a shard that is its own, or another node's. */
function keeperOf(claim: typeof CLAIM | undefined) {
  let now = 0;
  let timers: Timer[] = [];
  const counted = { timers: 0, looks: [] as number[], follows: [] as number[] };
  const written: { at: number; ids: string[] }[] = [];
  /** Held back until they are let. */
  const pages: (() => void)[] = [];
  const clock = {
    now: () => now,
    after(ms: number, work: () => void) {
      const timer = { at: now + ms, work };
      counted.timers += 1;
      timers.push(timer);
      return () => void (timers = timers.filter(one => one !== timer));
    },
    sleep: () => Promise.resolve(),
  };
  const rows = {
    hold: () => {
      counted.looks.push(now);
      return Promise.resolve(claim);
    },
    follow: async () => {
      counted.follows.push(now);
      await new Promise<void>(resolve => pages.push(resolve));
      return { events: [], position: CLAIM.position };
    },
    read: () => Promise.resolve([]),
    async write(_claim: object, some: ExecutionRow[]) {
      written.push({ at: now, ids: some.map(row => row.execution_id) });
      return true;
    },
    release: () => Promise.resolve(),
  };
  const feed = createFeed<StoredEvent[]>();
  const shown = createFeed();
  const runtime = { clock, rows, feed, shown, nodeId: "me" } as unknown as Runtime;
  const logger = { warn() {} } as unknown as Service["logger"];
  const keeper = new ProjectionKeeper(runtime, logger, { push() {}, take: () => [] });
  const settle = () => new Promise(resolve => setImmediate(resolve));
  /** Lets time pass, timer by timer. */
  async function until(end: number): Promise<void> {
    for (;;) {
      await settle();
      const [next] = timers.sort((one, other) => one.at - other.at);
      if (!next || next.at > end) break;
      timers = timers.filter(one => one !== next);
      now = next.at;
      next.work();
    }
    now = end;
  }
  return { keeper, counted, until, feed, written, pages };
}

/** The first facts of a run, and its end where it is asked for. */
function begun(id: string, isEnded = false): StoredEvent[] {
  const ids = { execution_id: id, stream_id: id, at: 1 };
  const meta = { path: "p", playbook_version: 1, hash: "h", generation: 0 };
  const start = { ...ids, event_type: "playbook.initialized", event_id: "1", version: 1, meta };
  const end = { ...ids, event_type: "playbook.completed", event_id: "2", version: 2, meta };
  return [start, ...(isEnded ? [end] : [])] as unknown as StoredEvent[];
}

describe("projection keeper", () => {
  it("sleeps between its looks for a shard that another node holds", async () => {
    const { keeper, counted, until } = keeperOf(undefined);
    keeper.start();
    await until(10_000);
    const gaps = counted.looks.slice(1).map((at, index) => at - (counted.looks[index] ?? 0));
    assert.ok(Math.max(...gaps) <= 1_100 && gaps.length >= 8, `looks at ${counted.looks.join()}`);
    assert.ok(counted.timers <= 50, `${counted.timers} timers in ten seconds`);
    await keeper.stop();
  });

  it("writes an end at once, and what goes on with whatever comes soon", async () => {
    const { keeper, until, feed, written, pages } = keeperOf(CLAIM);
    keeper.start();
    await until(10);
    feed.push(begun("1"));
    await until(30);
    feed.push(begun("2", true));
    await until(60);
    feed.push(begun("3"));
    await until(109);
    assert.deepEqual(written, [{ at: 30, ids: ["2"] }]);
    await until(500);
    assert.deepEqual(written.slice(1), [{ at: 110, ids: ["1", "3"] }]);
    for (const arrive of pages) arrive();
    await keeper.stop();
  });

  it("writes while a page of the log is on its way, and reads one page at a time", async () => {
    const { keeper, until, feed, written, pages, counted } = keeperOf(CLAIM);
    keeper.start();
    await until(2_000);
    assert.equal(counted.follows.length, 1, "the first page has not come yet");
    feed.push(begun("1", true));
    await until(2_001);
    assert.deepEqual(written, [{ at: 2_000, ids: ["1"] }]);
    pages.pop()?.();
    await until(2_600);
    assert.equal(counted.follows.length, 2, "half a second after the first");
    pages.pop()?.();
    await keeper.stop();
  });
});
