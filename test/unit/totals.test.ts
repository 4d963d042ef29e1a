// The last line of `npm test`, which CI reads.
import { strict as assert } from "node:assert";
import { addTotals, readFailures, readTotals, totalsLine } from "../support/totals.ts";

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

  it("follow the failures, which a run of lanes says again at its end", () => {
    const failures = "  1 failing\n\n  1) a\n       b:\n     Error: x";
    const output = `  a\n    1) b\n\n\n  1 passing (5ms)\n${failures}\n\n\n\n1 passed, 1 failed\n`;
    assert.equal(readFailures(output), failures);
    assert.equal(
      readFailures(output.replace("  1 failing", "\u001b[31m  1 failing\u001b[0m")),
      failures,
    );
    assert.equal(readFailures("  1 passing (5ms)\n\n1 passed, 0 failed\n"), "");
    assert.equal(readFailures("  a\n  1 failing\n\n  1) b"), "  1 failing\n\n  1) b");
  });
});
