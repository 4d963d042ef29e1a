// Long waits of a worker: their slots do other work, and only so many of them do that.
import { strict as assert } from "node:assert";
import { setImmediate as turn } from "node:timers/promises";
import { LongWaits } from "../../services/worker/long-waits.ts";
import { Slots } from "../../services/worker/slots.ts";

describe("the long waits of a worker", () => {
  it("give their slots away, up to their number; the next one keeps its slot", async () => {
    const slots = new Slots(2);
    const waits = new LongWaits(slots.size, wait => slots.suspended(wait));
    const open = Promise.withResolvers<string>();
    slots.take(2);
    const first = [waits.around(open.promise), waits.around(open.promise)];
    await turn();
    assert.equal(slots.now, 2);
    slots.take(2);
    const second = waits.around(open.promise);
    await turn();
    assert.equal(slots.now, 0, "nothing more is fetched");
    open.resolve("on");
    assert.deepEqual(await Promise.all([...first, second]), ["on", "on", "on"]);
    slots.give(2);
    assert.equal(slots.now, 0, "those who come back have their slots again");
  });
});
