// Long waits of a worker: their slots do other work, and only so many of them do that.
import { strict as assert } from "node:assert";
import { setImmediate as turn } from "node:timers/promises";
import { LongWaits } from "../../services/worker/long-waits.ts";
import { Ledger } from "../../services/worker/ledger.ts";

describe("the long waits of a worker", () => {
  it("give their slots away, up to their number; the next one keeps its slot", async () => {
    const slots = new Ledger({ all: 2, database: 1 });
    const waits = new LongWaits(2);
    const around = (wait: Promise<string>) =>
      waits.around(wait, waiting => slots.suspended("general", waiting));
    const open = Promise.withResolvers<string>();
    slots.take("general", 2);
    const first = [around(open.promise), around(open.promise)];
    await turn();
    assert.equal(slots.free(), 2);
    slots.take("general", 2);
    const second = around(open.promise);
    await turn();
    assert.equal(slots.free(), 0, "nothing more is fetched");
    open.resolve("on");
    assert.deepEqual(await Promise.all([...first, second]), ["on", "on", "on"]);
    slots.give("general", 2);
    assert.equal(slots.free(), 0, "those who come back have their slots again");
  });
});
