/** The slot ledger: what may run, in which class, and who is next. */
import { strict as assert } from "node:assert";
import { setImmediate as turn } from "node:timers/promises";
import { Ledger } from "../../services/worker/ledger.ts";
import type { WorkClass } from "../../schemas/work-class.ts";
import { chance } from "../support/chance.ts";
import { LateLedger, UncappedLedger } from "../support/sabotage.ts";

const { signal: never } = new AbortController();
const CAPS = { all: 10, database: 3 };

/** A reservation that has not been answered yet, and its answer. */
function asking(ledger: Ledger, workClass: WorkClass, signal = never) {
  const asked = { count: undefined as number | undefined };
  void ledger.reserve(workClass, signal).then(count => (asked.count = count));
  return asked;
}

describe("the slot ledger", () => {
  it("grants at once what is free, and to the database class no more than its own", async () => {
    const ledger = new Ledger({ all: 8, database: 4 });
    assert.equal(await ledger.reserve("database", never), 4);
    assert.deepEqual([ledger.free(), ledger.free("database")], [4, 0]);
    assert.equal(await ledger.reserve("general", never), 4);
    assert.equal(ledger.free(), 0);
  });

  it("a full database class does not stand in the way of general work", async () => {
    const ledger = new Ledger({ all: 8, database: 4 });
    ledger.take("database", 4);
    const database = asking(ledger, "database");
    const general = asking(ledger, "general");
    await turn();
    assert.deepEqual([database.count, general.count], [undefined, 4]);
    ledger.give("general", 1);
    await turn();
    assert.equal(database.count, undefined, "a general slot makes no room in the other class");
    ledger.give("database", 1);
    await turn();
    assert.equal(database.count, 1);
  });

  it("who waits longest goes first, whichever class it is of", async () => {
    const ledger = new Ledger({ all: 2, database: 1 });
    ledger.take("general", 2);
    const first = asking(ledger, "database");
    const second = asking(ledger, "general");
    ledger.give("general", 1);
    await turn();
    assert.deepEqual([first.count, second.count], [1, undefined]);
  });

  it("who waits no more gets nothing, and leaves its place to the next", async () => {
    const ledger = new Ledger({ all: 1, database: 1 });
    ledger.take("general", 1);
    const ends = new AbortController();
    const first = asking(ledger, "general", ends.signal);
    const second = asking(ledger, "database");
    ends.abort();
    ledger.give("general", 1);
    await turn();
    assert.deepEqual([first.count, second.count], [0, 1]);
  });

  it("slots wait for work only while there is one for the others, and yield to them", async () => {
    const ledger = new Ledger({ all: 2, database: 1 });
    await ledger.reserve("database", never);
    let yielded = false;
    const idle = ledger.idle("database", never, async signal => {
      await new Promise(resolve => signal.addEventListener("abort", resolve));
      yielded = true;
      ledger.unreserve("database", 1);
    });
    assert.equal(await ledger.reserve("general", never), 1);
    const more = asking(ledger, "general");
    await idle;
    await turn();
    assert.deepEqual([yielded, more.count], [true, 1]);
    const alone = new Ledger({ all: 1, database: 1 });
    alone.take("general", 1);
    assert.equal(await alone.idle("general", never, () => Promise.resolve(true)), undefined);
  });

  it("work that is there has the first slots that come back, before all others", async () => {
    const ledger = new Ledger({ all: 4, database: 2 });
    assert.equal(await ledger.reserve("general", never), 4);
    const looks = asking(ledger, "database");
    const takes = [ledger.takeOne("general", never), ledger.takeOne("database", never)];
    ledger.unreserve("general", 3);
    assert.deepEqual(await Promise.all(takes), [true, true]);
    assert.deepEqual([looks.count, ledger.busy, ledger.databaseBusy], [1, 2, 1]);
    assert.equal(await ledger.takeOne("general", AbortSignal.timeout(1)), false);
    assert.equal(ledger.busy, 2);
  });

  it("a slot may wait for work while others look with the rest, as they come back", async () => {
    const ledger = new Ledger({ all: 3, database: 2 });
    assert.equal(await ledger.reserve("general", never), 3);
    const looks = asking(ledger, "database");
    ledger.unreserve("general", 2);
    await turn();
    assert.deepEqual([looks.count, ledger.free()], [2, 0]);
    assert.equal(await ledger.idle("general", never, () => Promise.resolve("waited")), "waited");
  });

  it("a slot changes its class only where there is room", () => {
    const ledger = new Ledger({ all: 3, database: 1 });
    ledger.take("general", 2);
    assert.equal(ledger.move("general", "database", 1), true);
    assert.equal(ledger.move("general", "database", 1), false);
    assert.deepEqual([ledger.busy, ledger.free("database")], [2, 0]);
    assert.equal(ledger.move("database", "general", 1), true);
    assert.equal(ledger.free("database"), 1);
  });

  it("never grants more than its caps, whatever happens in which order", () =>
    randomLife(new Ledger(CAPS)));

  for (const [what, ledger] of [
    ["forgets the cap of the database class", new UncappedLedger(CAPS)],
    ["counts slots only when work has come", new LateLedger(CAPS)],
  ] as const) {
    it(`one that ${what} is found out by that`, () =>
      assert.rejects(randomLife(ledger), { code: "ERR_ASSERTION" }));
  }
});

/** 10,000 random pulls and ends; throws when more runs, or is said to run, than may. */
async function randomLife(ledger: Ledger): Promise<void> {
  const { between } = chance("ledger");
  const below = (limit: number) => between(0, limit - 1);
  const held: WorkClass[] = [];
  for (let step = 0; step < 10_000; step += 1) {
    const workClass = below(2) === 0 ? "general" : "database";
    if (below(4) === 0) {
      const ends = new AbortController();
      const taken = ledger.takeOne(workClass, ends.signal);
      ends.abort();
      if (await taken) held.push(workClass);
    } else if (below(2) === 0 || held.length === 0) {
      const ends = new AbortController();
      const asked = ledger.reserve(workClass, ends.signal);
      ends.abort();
      const count = await asked;
      const used = Math.min(count, 1 + below(3));
      ledger.use(workClass, used);
      ledger.unreserve(workClass, count - used);
      for (let one = 0; one < used; one += 1) held.push(workClass);
    } else {
      const [ended] = held.splice(below(held.length), 1);
      ledger.give(ended as WorkClass, 1);
    }
    const database = held.filter(one => one === "database").length;
    assert.equal(ledger.busy, held.length);
    assert.ok(held.length <= CAPS.all && database <= CAPS.database, `step ${step}`);
  }
}
