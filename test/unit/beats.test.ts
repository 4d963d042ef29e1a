// A worker's row says what the worker was when it last told it, and not before.
import { strict as assert } from "node:assert";
import { createClock } from "../../mixins/clock.ts";
import type { Runtime } from "../../mixins/runtime.ts";
import { Beats, type BeatParts } from "../../services/worker/beats.ts";

/** Beats that arrive when they are let, in any order; `row` is what the last one of them wrote. */
function worker() {
  const ways: (() => void)[] = [];
  const self = { says: "at first", row: "", failed: 0 };
  const clock = { ...createClock(), after: () => () => undefined };
  const beat = async ({ capacity }: { capacity: { says: string } }) => {
    await new Promise<void>(resolve => ways.push(resolve));
    self.row = capacity.says;
    if (capacity.says === "fails") throw new Error("away");
  };
  const runtime = { clock, workers: { beat }, settings: { worker: { beatMs: 1 } } };
  const beats = new Beats({
    runtime: runtime as unknown as Runtime,
    me: { worker_id: "w", incarnation: "w-1", machine: "", pid: 1 },
    gates: { isAskingOthers: false } as BeatParts["gates"],
    told: () => ({ status: "ready", capacity: { says: self.says } }),
    held: () => [],
    abort: () => undefined,
    failed: () => void (self.failed += 1),
  });
  /** The youngest on its way arrives first, as the worst of networks would have it. */
  async function arrive(): Promise<number> {
    let count = 0;
    for (; await turn(), ways.length > 0; count += 1) ways.pop()?.();
    return count;
  }
  return { beats, self, ways, arrive };
}

const turn = () => new Promise(resolve => setImmediate(resolve));

describe("a worker's beats", () => {
  it("are one behind the other: the row says what was said last", async () => {
    const { beats, self, arrive } = worker();
    for (const says of ["unready", "unready for another reason", "ready"]) {
      self.says = says;
      void beats.now();
      await turn();
    }
    assert.equal(await arrive(), 2, "what changed while one was on its way is said once");
    assert.equal(self.row, "ready");
  });

  it("go on after one that failed", async () => {
    const { beats, self, arrive } = worker();
    self.says = "fails";
    void beats.now();
    await arrive();
    self.says = "ready";
    void beats.now();
    await arrive();
    assert.deepEqual([self.row, self.failed], ["ready", 1]);
  });

  it("are over when their end resolves: nothing takes back a farewell", async () => {
    const { beats, self, ways, arrive } = worker();
    void beats.now();
    await turn();
    self.says = "nobody hears this";
    void beats.now();
    let isOver = false;
    const end = beats.end().then(() => (isOver = true));
    await turn();
    assert.deepEqual([ways.length, isOver], [1, false]);
    assert.equal(await arrive(), 1);
    await end;
    void beats.now();
    assert.equal(await arrive(), 0);
    assert.equal(self.row, "at first");
  });
});
