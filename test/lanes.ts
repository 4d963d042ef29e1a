// `npm test`: every suite, in lanes at once, as half of the time of each is spent waiting for
// something to die. What follows `--` goes to mocha; naming files there runs them in one lane.
import { spawn } from "node:child_process";
import { createRequire } from "node:module";
import { setPriority } from "node:os";
import { addTotals, readFailures, readTotals, totalsLine, type Totals } from "./support/totals.ts";

interface Plan {
  name: string;
  files: string[];
  /** What the environment does not say otherwise. */
  env?: Record<string, string>;
  /** Others go first when there is work for all: 0 to 19. */
  nice?: number;
}

/**
 * Balanced by what they take. The nemesis has its time, and asks for little of the machine; the
 * playbooks after it mostly wait, and the simulation computes what others leave it.
 */
const LANES: Plan[] = [
  { name: "processes that fail", files: ["test/fault/!(nemesis).test.ts"] },
  {
    name: "everything else",
    files: ["test/{unit,integration}/**/*.test.ts"],
  },
  {
    name: "five minutes of a nemesis, playbooks and the simulation",
    files: ["test/fault/nemesis.test.ts", "test/{playbooks,simulation}/**/*.test.ts"],
    env: { NEMESIS_SECONDS: "300" },
    nice: 5,
  },
];

const MOCHA = createRequire(import.meta.url).resolve("mocha/bin/mocha.js");

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

interface Ended {
  output: string;
  code: number;
  seconds: number;
}

/** Runs mocha; its output is shown as it comes, or kept. */
function run(
  args: string[],
  shown: boolean,
  { env, nice = 0 }: Partial<Plan> = {},
): Promise<Ended> {
  const begun = performance.now();
  const child = spawn(process.execPath, [MOCHA, ...args], {
    stdio: ["ignore", "pipe", "inherit"],
    env: { ...env, ...process.env },
  });
  if (nice > 0 && child.pid !== undefined) setPriority(child.pid, nice);
  let output = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    output += text;
    if (shown) process.stdout.write(text);
  });
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => child.kill(signal));
  return new Promise(resolve => {
    child.on("close", code => {
      const seconds = Math.round((performance.now() - begun) / 1_000);
      resolve({ output, code: code ?? 1, seconds });
    });
  });
}

async function inLanes(options: string[]): Promise<number> {
  const lanes = LANES.map((plan, place) => ({
    name: plan.name,
    ended: run([...plan.files, ...options], place === 0, plan),
  }));
  const totals: Totals[] = [];
  for (const [place, lane] of lanes.entries()) {
    say(`${place === 0 ? "first" : "\nmeanwhile"}: ${lane.name}`);
    const { output } = await lane.ended;
    if (place > 0) process.stdout.write(output);
    totals.push(await totalsOf(lane));
  }
  for (const lane of lanes) await repeatFailures(lane);
  for (const { name, ended } of lanes) say(`${name}: ${(await ended).seconds} s`);
  const sum = addTotals(totals);
  say(`\n${totalsLine(sum)}`);
  return sum.failed === 0 ? 0 : 1;
}

interface Lane {
  name: string;
  ended: Promise<Ended>;
}

/** A lane that ends badly without saying why has failed once. */
async function totalsOf({ name, ended }: Lane): Promise<Totals> {
  const { output, code } = await ended;
  const totals = readTotals(output);
  if (totals && (code === 0) === (totals.failed === 0)) return totals;
  say(`the lane "${name}" ended with code ${code} and no true totals`);
  return { passed: totals?.passed ?? 0, failed: (totals?.failed ?? 0) + 1, skipped: 0 };
}

/** Says the failures of a lane once more at the end, where a cut log still shows them. */
async function repeatFailures({ name, ended }: Lane): Promise<void> {
  const failures = readFailures((await ended).output);
  if (failures) say(`\n${name}:\n${failures}`);
}

const options = process.argv.slice(2);
const namesFiles = options.some(option => option.endsWith(".ts"));
process.exitCode = namesFiles ? (await run(options, true)).code : await inLanes(options);
