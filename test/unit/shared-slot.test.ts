/** The one slot of a frame whose rows run side by side. */
import { strict as assert } from "node:assert";
import { setImmediate as turn } from "node:timers/promises";
import { SharedSlot } from "../../services/worker/shared-slot.ts";
import { Ledger } from "../../services/worker/ledger.ts";

/** Rows of one frame, each of which waits until it is told to go on, then until it may end. */
function frameOf(count: number) {
  const slots = new Ledger({ all: 1, database: 1 });
  slots.take("general", 1);
  const shared = new SharedSlot(wait => slots.suspended("general", wait));
  const rows = Array.from({ length: count }, () => {
    const child = Promise.withResolvers<void>();
    const rest = Promise.withResolvers<void>();
    const begin = Promise.withResolvers<void>();
    const ended = shared.run(async () => {
      await begin.promise;
      await shared.suspended(child.promise);
      await rest.promise;
    });
    return { begin: begin.resolve, goOn: child.resolve, end: rest.resolve, ended };
  });
  return { slots, rows };
}

describe("the slot of a frame whose rows run at once", () => {
  it("is free only while all of them wait, and taken back by the first that goes on", async () => {
    const { slots, rows } = frameOf(3);
    const [one, two, three] = rows as [(typeof rows)[0], (typeof rows)[0], (typeof rows)[0]];
    one.begin();
    two.begin();
    await turn();
    assert.equal(slots.free(), 0, "the third one works");
    three.begin();
    await turn();
    assert.equal(slots.free(), 1);
    two.goOn();
    await turn();
    assert.equal(slots.free(), 0);
    two.end();
    await turn();
    assert.equal(slots.free(), 1, "those that are left wait");
    one.goOn();
    one.end();
    three.goOn();
    three.end();
    await Promise.all(rows.map(row => row.ended));
    await turn();
    assert.equal(slots.free(), 0, "the frame has its slot again");
  });
});
