// What is remembered in bounds.
import { strict as assert } from "node:assert";
import { keepNewest } from "../../mixins/newest.ts";

describe("what is remembered in bounds", () => {
  it("loses the oldest, and only what is too many", () => {
    const kept = new Map([..."abcd"].map(key => [key, 1]));
    keepNewest(kept, 4);
    assert.deepEqual([...kept.keys()], ["a", "b", "c", "d"]);
    kept.delete("b");
    kept.set("b", 2);
    keepNewest(kept, 2);
    assert.deepEqual([...kept.keys()], ["d", "b"]);
    const none = new Set<string>();
    keepNewest(none, 0);
    assert.equal(none.size, 0);
  });
});
