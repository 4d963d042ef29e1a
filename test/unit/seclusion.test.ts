/** The last delivery of a command whose workers have died: what else may run beside it. */
import { strict as assert } from "node:assert";
import { setImmediate as turn } from "node:timers/promises";
import type { Clock } from "../../mixins/clock.ts";
import type { Rung } from "../../mixins/notifications.ts";
import { Ledger } from "../../services/worker/ledger.ts";
import { Seclusion } from "../../services/worker/seclusion.ts";

const MAX_ATTEMPTS = 3;

describe("a command whose last delivery this is", () => {
  let ledger: Ledger;
  let seclusion: Seclusion;
  let running: Map<string, () => void>;
  let returned: string[];
  let outOfPatience: () => void;
  let stopping: AbortController;

  beforeEach(() => {
    ledger = new Ledger({ all: 4, database: 2 });
    running = new Map();
    returned = [];
    stopping = new AbortController();
    const after = (_ms: number, work: () => void) => {
      outOfPatience = work;
      return () => undefined;
    };
    const clock = { after } as unknown as Clock;
    seclusion = new Seclusion({ ledger, clock, maxAttempts: MAX_ATTEMPTS });
  });

  /** A ring of a command whose workers have died so often; `d` of several is its death count. */
  function ring(command_id: string, deaths?: number): Rung {
    const giveBack = () => void returned.push(command_id);
    const ids = { execution_id: "1", stream_id: "1", actor: "executions", command_id, step: "s" };
    return {
      ...ids,
      ...{ kind: "noop", delivery: 0, ack: () => undefined, giveBack },
      ...(deaths !== undefined && { deaths }),
    } as Rung;
  }

  /** They come with a slot each, as from a pull. */
  async function come(...rings: Rung[]): Promise<void> {
    ledger.take("general", rings.length);
    void seclusion.admit(rings, {
      claim: async (_actor, some) => {
        await Promise.all(
          some.map(async ({ command_id }) => {
            await new Promise<void>(resolve => running.set(command_id, resolve));
            running.delete(command_id);
            ledger.give("general", 1);
          }),
        );
      },
      ended: count => ledger.give("general", count),
      signal: stopping.signal,
    });
    await turn();
  }

  async function end(id: string): Promise<void> {
    running.get(id)?.();
    await turn();
    await turn();
  }

  const runs = () => [...running.keys()];

  it("begins when all beside it has ended, and nothing begins before its end", async () => {
    await come(ring("a"), ring("last", MAX_ATTEMPTS - 1), ring("b"));
    assert.deepEqual(runs(), ["a", "b"]);
    const more = ledger.reserve("general", stopping.signal);
    await end("a");
    assert.deepEqual(runs(), ["b"]);
    assert.equal(ledger.free(), 0);
    await end("b");
    assert.deepEqual(runs(), ["last"]);
    await end("last");
    assert.deepEqual([runs(), await more], [[], 4]);
  });

  it("is no obstacle while it has deliveries left, and its workers' deaths are few", async () => {
    await come(ring("a"), ring("b", 1), ring("c", MAX_ATTEMPTS - 2));
    assert.deepEqual(runs(), ["a", "b", "c"]);
    assert.equal(ledger.free(), 1);
  });

  it("is not what never died, where one death is the end", async () => {
    seclusion = new Seclusion({ ledger, clock: {} as Clock, maxAttempts: 1 });
    await come(ring("a"), ring("b"));
    assert.deepEqual(runs(), ["a", "b"]);
  });

  it("sends away whoever else must be alone, and what comes too late", async () => {
    await come(ring("one", 2), ring("two", 2));
    assert.deepEqual([runs(), returned], [["one"], ["two"]]);
    await come(ring("late"));
    assert.deepEqual([runs(), returned], [["one"], ["two", "late"]]);
    assert.equal(ledger.busy, 1);
  });

  it("waits only so long for what runs already, and keeps the rest out", async () => {
    await come(ring("long"), ring("last", 2));
    assert.deepEqual(runs(), ["long"]);
    outOfPatience();
    await turn();
    assert.deepEqual(runs(), ["long", "last"]);
    assert.equal(ledger.free(), 0);
    await end("last");
    assert.equal(ledger.free(), 3);
  });

  it("lets others in while it only waits, and nobody new when it goes on", async () => {
    await come(ring("last", 2));
    const child = Promise.withResolvers<void>();
    const waits = ledger.suspended("general", seclusion.waiting("last", child.promise));
    assert.equal(ledger.free(), 4);
    await come(ring("child"), ring("another last", 2));
    assert.deepEqual(runs(), ["last", "child"]);
    await end("child");
    assert.deepEqual(runs(), ["last", "another last"]);
    child.resolve();
    await waits;
    await end("another last");
    assert.deepEqual([runs(), ledger.free()], [["last"], 0]);
    await end("last");
    assert.equal(ledger.free(), 4);
  });

  it("is left to others when the worker stops first", async () => {
    await come(ring("long"), ring("last", 2));
    stopping.abort();
    await turn();
    assert.deepEqual([runs(), returned, ledger.busy], [["long"], ["last"], 1]);
  });

  it("takes back slots that only wait for work", async () => {
    await ledger.reserve("general", stopping.signal);
    ledger.unreserve("general", 3);
    let yielded = false;
    void ledger.idle("general", stopping.signal, async signal => {
      await new Promise(resolve => signal.addEventListener("abort", resolve));
      yielded = true;
    });
    await come(ring("last", 2));
    assert.deepEqual([yielded, runs()], [true, ["last"]]);
  });
});
