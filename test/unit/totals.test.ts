// The last line of `npm test`, which CI reads.
import { strict as assert } from "node:assert";
import { addTotals, readTotals, totalsLine } from "../support/totals.ts";

describe("the totals of a run of tests", () => {
  it("are read from its last line as they are written there", () => {
    for (const totals of [
      { passed: 12, failed: 0, skipped: 0 },
      { passed: 3, failed: 1, skipped: 2 },
    ]) {
      assert.deepEqual(readTotals(`  ✔ a test\n\n${totalsLine(totals)}\n`), totals);
    }
  });

  it("are not made up for a run that was cut off", () => {
    assert.equal(readTotals("  ✔ a test\n1 passed, 0 failed\nSegmentation fault\n"), undefined);
    assert.equal(readTotals(""), undefined);
  });

  it("of two lanes are those of both", () => {
    const sum = addTotals([
      { passed: 3, failed: 1, skipped: 2 },
      { passed: 4, failed: 0, skipped: 0 },
    ]);
    assert.equal(totalsLine(sum), "7 passed, 1 failed, 2 skipped");
  });
});
