// npm run simulate -- --seeds 100000 [--from K] [--threads N] [--sabotage NAME]
// npm run simulate -- --seed S [--trace]
import { parseArgs } from "node:util";
import { coverageOf } from "./coverage.ts";
import { replayOf, simulate } from "./threads.ts";

const { values } = parseArgs({
  options: {
    seeds: { type: "string", default: "1000" },
    from: { type: "string", default: "1" },
    seed: { type: "string" },
    threads: { type: "string" },
    sabotage: { type: "string" },
    trace: { type: "boolean", default: false },
  },
});

async function one(seed: number): Promise<void> {
  const { replaceGlobals } = await import("./globals.ts");
  replaceGlobals();
  const { playSchedule } = await import("./schedule.ts");
  const { SABOTAGES } = await import("./sabotages.ts");
  const sabotage = SABOTAGES.find(({ name }) => name === values.sabotage);
  const { faults, steps, digest } = await playSchedule(seed, {
    ...(sabotage && { sabotage }),
    ...(values.trace && { trace: line => process.stdout.write(`${line}\n`) }),
  });
  process.stdout.write(`seed ${seed}: ${steps} steps, trace ${digest}\n`);
  for (const fault of faults) process.stdout.write(`  ${fault}\n`);
  process.exitCode = faults.length > 0 ? 1 : 0;
}

const PROGRESS_EVERY = 500;

async function many(): Promise<void> {
  let played = 0;
  const begun = performance.now();
  const { sabotage } = values;
  const sum = await simulate({
    from: Number(values.from),
    seeds: Number(values.seeds),
    ...(values.threads !== undefined && { threads: Number(values.threads) }),
    ...(sabotage !== undefined && { sabotages: [sabotage] }),
    onResult({ seed, faults }) {
      played += 1;
      for (const fault of faults) process.stdout.write(`seed ${seed}: ${fault}\n`);
      if (faults.length > 0) process.stdout.write(`  ${replayOf(seed, sabotage)}\n`);
      if (played % PROGRESS_EVERY !== 0) return;
      const rate = played / ((performance.now() - begun) / 1_000);
      process.stderr.write(`${played} schedules, ${rate.toFixed(1)} a second\n`);
    },
  });
  const { schedules, executions, items, steps, seconds, violations } = sum;
  process.stdout.write(`${coverageOf(sum.struck)}\n`);
  process.stdout.write(
    `${schedules} schedules (${executions} executions, ${items} items, ${steps} steps) in ` +
      `${seconds.toFixed(1)} s, ${(schedules / seconds).toFixed(1)} a second: ` +
      `${violations.length} with violations\n`,
  );
  process.exitCode = violations.length > 0 ? 1 : 0;
}

await (values.seed === undefined ? many() : one(Number(values.seed)));
