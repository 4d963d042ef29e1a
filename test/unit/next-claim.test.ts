// Who goes first when a slot ends what it had: the command that follows, or one that waits.
import { strict as assert } from "node:assert";
import type { ActorKind } from "../../schemas/decider.ts";
import type { WorkClass } from "../../schemas/work-class.ts";
import { Ledger, type Slot } from "../../services/worker/ledger.ts";
import { Hands, nextClaim } from "../../services/worker/next-claim.ts";

const me = { worker_id: "w", incarnation: "w-1", machine: "", pid: 1 };

/** One slot of general work, beside so many of the other class that is for two. */
function asks(actor: ActorKind, waits: Partial<Record<"waiting" | "urgent", WorkClass>>, db = 0) {
  const slots = new Ledger({ all: 4, database: 2 });
  slots.take("general", 1);
  slots.take("database", db);
  const slot: Slot = { workClass: "general" };
  const doorbell = {
    waiting: (one: WorkClass) => Number(waits.waiting === one),
    urgent: (one: WorkClass) => Number(waits.urgent === one),
  };
  const next = nextClaim(slot, actor, { doorbell, slots, me, offers: ["gpu"] });
  return next && { only: next.only, offers: next.offers };
}

describe("a slot that has ended a command", () => {
  it("takes the one that follows, where nothing waits, and says what is offered here", () => {
    for (const actor of ["executions", "loops"] as const) {
      assert.deepEqual(asks(actor, {}), { only: undefined, offers: ["gpu"] });
    }
  });

  it("of a loop gives way to whatever waits; of an execution only to what is urgent", () => {
    assert.equal(asks("loops", { waiting: "general" }), undefined);
    assert.equal(asks("fanout", { waiting: "database" }), undefined);
    assert.ok(asks("executions", { waiting: "general" }));
    assert.equal(asks("executions", { urgent: "general" }), undefined);
  });

  it("takes no work on databases where that class is full, and gives way to none", () => {
    const next = { only: "general", offers: ["gpu"] };
    assert.deepEqual(asks("loops", { waiting: "database" }, 2), next);
  });

  it("goes on from hand to hand while its items are quick, 32 times or a second", () => {
    for (const [ms, most] of [
      [10, 32],
      [100, 9],
      [250, 0],
    ] as const) {
      assert.equal(handed("loops", ms), most, `items of ${ms} ms`);
      assert.equal(handed("executions", ms), 32, `steps of ${ms} ms`);
    }
  });
});

/** How many commands that take so long a slot takes from hand to hand. */
function handed(actor: ActorKind, ms: number): number {
  let now = 0;
  const hands = new Hands({ now: () => now });
  for (let count = 0; ; count += 1) {
    hands.begin();
    now += ms;
    if (!hands.goOn(actor)) return count;
  }
}
