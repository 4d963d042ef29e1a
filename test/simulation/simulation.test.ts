// Schedules of the whole runtime in virtual time (design §4, house rule 20): none may break a rule.
import { strict as assert } from "node:assert";
import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { coverageOf } from "./coverage.ts";
import { SABOTAGES } from "./sabotages.ts";
import { replayOf, simulate, type Simulation } from "./threads.ts";

/** Schedules of `npm test`; `TEST_SEED` chooses others. */
const SCHEDULES = 4_000;
const FROM = Number(process.env["TEST_SEED"] ?? 1);
/** A machine that has better things to do plays fewer. */
const LIMIT_SECONDS = 40;
const CAUGHT_WITHIN = 1_000;
/** Seeds that once were violations. */
const ONCE_BROKEN = [2637, 6982, 1_031_668, 1_057_112, 1_089_111, 3_083_616, 3_094_019];

const program = fileURLToPath(new URL("./simulate.ts", import.meta.url));

async function replay(seed: number, ...more: string[]): Promise<string> {
  const args = [program, "--seed", String(seed), ...more];
  return (await promisify(execFile)(process.execPath, args)).stdout;
}

function told({ violations }: Simulation): string {
  return violations
    .slice(0, 5)
    .map(({ seed, faults }) => [replayOf(seed), ...faults.slice(0, 3)].join("\n    "))
    .join("\n  ");
}

describe("simulation", function () {
  this.timeout(600_000);

  it("no schedule of faults breaks a rule, and every one comes to its end", async () => {
    const sum = await simulate({ from: FROM, seeds: SCHEDULES, limitSeconds: LIMIT_SECONDS });
    const { schedules, executions, items, struck, seconds } = sum;
    const counts = `${schedules} schedules, ${executions} executions, ${items} items`;
    const pace = `${seconds.toFixed(1)} s: ${Math.round((60 * schedules) / seconds)} a minute`;
    process.stdout.write(`${coverageOf(struck)}\n      ${counts} in ${pace}\n`);
    assert.equal(sum.violations.length, 0, `\n  ${told(sum)}`);
    assert.ok(executions >= 2 * schedules && items >= 8 * schedules, counts);
    assert.ok(sum.fewestFaults >= 3, `a schedule with ${sum.fewestFaults} faults`);
  });

  it("the same seed plays the same steps, in another process too", async () => {
    const [one, two, other] = await Promise.all([replay(7), replay(7), replay(8)]);
    assert.match(one, /^seed 7: \d+ steps, trace [0-9a-f]{16}\n$/);
    assert.equal(one, two);
    assert.notEqual(one.split("trace")[1], other.split("trace")[1]);
  });

  it("a replay tells every step with its moment and its process", async () => {
    const lines = (await replay(7, "--trace")).split("\n");
    assert.match(
      lines.find(line => line.includes("answer:append")) ?? "",
      /^\d+\.\d{3} server-\d /,
    );
  });
});

describe("simulation: what once was broken", function () {
  this.timeout(60_000);
  for (const seed of ONCE_BROKEN) {
    it(`seed ${seed} breaks no rule any more`, async () => {
      assert.deepEqual((await simulate({ from: seed, seeds: 1, threads: 1 })).violations, []);
    });
  }
});

describe("simulation: with a rule switched off, a check fails", function () {
  this.timeout(600_000);
  const caught = new Map<string, { seed: number; fault: string; schedules: number }>();
  before(async () => {
    let counts = new Map<string, number>();
    await simulate({
      ...{ from: 1, seeds: CAUGHT_WITHIN, sabotages: SABOTAGES.map(({ name }) => name) },
      onResult({ sabotage = "", seed, faults: [fault] }) {
        const schedules = (counts.get(sabotage) ?? 0) + 1;
        counts = counts.set(sabotage, schedules);
        if (fault !== undefined) caught.set(sabotage, { seed, fault, schedules });
      },
    });
  });

  for (const { name, rule } of SABOTAGES) {
    it(`${name} (${rule})`, () => {
      const found = caught.get(name);
      assert.ok(found, `not caught within ${CAUGHT_WITHIN} schedules`);
      process.stdout.write(`        seed ${found.seed}: ${found.fault}\n`);
    });
  }
});
