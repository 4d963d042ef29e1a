// `npm test`: every suite, in two lanes at once, as half of the time of either is spent waiting for
// something to die. What follows `--` goes to mocha; naming files there runs them in one lane.
import { spawn } from "node:child_process";
import { createRequire } from "node:module";
import { addTotals, readFailures, readTotals, totalsLine, type Totals } from "./support/totals.ts";

/** Files by lane, balanced by what they take. */
const LANES = {
  "processes that fail": ["test/fault/**/*.test.ts"],
  "everything else": ["test/{unit,simulation,integration,playbooks}/**/*.test.ts"],
};

const MOCHA = createRequire(import.meta.url).resolve("mocha/bin/mocha.js");

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

interface Ended {
  output: string;
  code: number;
}

/** Runs mocha; its output is shown as it comes, or kept. */
function run(args: string[], shown: boolean): Promise<Ended> {
  const child = spawn(process.execPath, [MOCHA, ...args], { stdio: ["ignore", "pipe", "inherit"] });
  let output = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    output += text;
    if (shown) process.stdout.write(text);
  });
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => child.kill(signal));
  return new Promise(resolve => {
    child.on("close", code => resolve({ output, code: code ?? 1 }));
  });
}

async function inLanes(options: string[]): Promise<number> {
  const [first, second] = Object.entries(LANES).map(([name, files], lane) => ({
    name,
    ended: run([...files, ...options], lane === 0),
  })) as [Lane, Lane];
  say(`first: ${first.name}`);
  const totals = [await totalsOf(first)];
  say(`\nmeanwhile: ${second.name}`);
  process.stdout.write((await second.ended).output);
  totals.push(await totalsOf(second));
  for (const lane of [first, second]) await repeatFailures(lane);
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
