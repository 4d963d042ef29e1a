// Quick items of many frames share the event loop with its sockets and timers.
import { strict as assert } from "node:assert";
import { Turns } from "../../services/worker/turns.ts";

/** Longer than a slice. */
const BUSY_MS = 4;

function busy(): void {
  const until = performance.now() + BUSY_MS;
  while (performance.now() < until);
}

describe("turns of the event loop", () => {
  it("go round, and the loop looks at all else after each", async () => {
    const turns = new Turns();
    const order: number[] = [];
    let rounds = 0;
    let isOver = false;
    const look = (): void => {
      rounds += 1;
      if (!isOver) setImmediate(look);
    };
    setImmediate(look);
    const frame = async (name: number): Promise<void> => {
      for (let item = 0; item < 3; item += 1) {
        busy();
        order.push(name);
        await turns.pass();
      }
    };
    await Promise.all([0, 1, 2, 3].map(frame));
    isOver = true;
    // Each does its first item as it is begun; the first to pass begins the slice.
    assert.deepEqual(order.slice(4).toSorted(), [0, 0, 1, 1, 2, 2, 3, 3]);
    assert.notDeepEqual(order.slice(4, 6), [0, 0], "nobody goes twice while others wait");
    assert.ok(rounds >= 7, `the loop went round ${rounds} times`);
  });

  it("are begun in one after the other: what only computes ends before the next", async () => {
    const turns = new Turns();
    const order: string[] = [];
    const frame = async (name: string): Promise<void> => {
      await turns.begin();
      for (let item = 0; item < 3; item += 1) {
        order.push(name);
        await turns.pass();
      }
    };
    await Promise.all(["a", "b", "c"].map(frame));
    assert.equal(order.join(""), "aaabbbccc");
  });

  it("are begun in by others while one waits for something else", async () => {
    const turns = new Turns();
    const answer = Promise.withResolvers<void>();
    const waiting = async (): Promise<void> => {
      await turns.begin();
      await answer.promise;
    };
    const first = waiting();
    await turns.begin();
    answer.resolve();
    await first;
  });

  it("are not waited for while the slice lasts", () => {
    const turns = new Turns();
    assert.equal(turns.pass(), undefined);
    assert.equal(turns.pass(), undefined);
    busy();
    assert.ok(turns.pass() instanceof Promise);
  });
});
