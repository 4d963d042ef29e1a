/** The keeper's loop in a time that passes by hand. */
import { strict as assert } from "node:assert";
import type { Service } from "moleculer";
import { createFeed, type Runtime } from "../../mixins/runtime.ts";
import { ProjectionKeeper } from "../../services/projection/keeper.ts";

interface Timer {
  at: number;
  work: () => void;
}

/** A keeper whose shard another node holds. */
function beside() {
  let now = 0;
  let timers: Timer[] = [];
  const counted = { timers: 0, looks: [] as number[] };
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
      return Promise.resolve(undefined);
    },
  };
  const runtime = { clock, rows, feed: createFeed(), nodeId: "me" } as unknown as Runtime;
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
  return { keeper, counted, until };
}

describe("projection keeper", () => {
  it("sleeps between its looks for a shard that another node holds", async () => {
    const { keeper, counted, until } = beside();
    keeper.start();
    await until(10_000);
    const gaps = counted.looks.slice(1).map((at, index) => at - (counted.looks[index] ?? 0));
    assert.ok(Math.max(...gaps) <= 1_100 && gaps.length >= 8, `looks at ${counted.looks.join()}`);
    assert.ok(counted.timers <= 50, `${counted.timers} timers in ten seconds`);
    await keeper.stop();
  });
});
