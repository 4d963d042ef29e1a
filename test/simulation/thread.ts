// Plays schedules in a thread of its own, whose globals belong to the schedule that runs.
import { parentPort, workerData } from "node:worker_threads";
import { replaceGlobals } from "./globals.ts";

/** Seeds `from`, `from + stride` … below `to`. */
export interface ThreadWork {
  from: number;
  to: number;
  stride: number;
  /** No schedule is begun after this. */
  limitSeconds: number;
  /** Names of switches, one after the other, each until it is caught. */
  sabotages?: string[];
}

const { from, to, stride, sabotages, limitSeconds } = workerData as ThreadWork;
const realNow = performance.now.bind(performance);
const until = realNow() + limitSeconds * 1_000;
replaceGlobals();
const { playSchedule } = await import("./schedule.ts");
const { SABOTAGES } = await import("./sabotages.ts");

let rejected: unknown;
process.on("unhandledRejection", error => (rejected = error));

async function play(seed: number, name?: string): Promise<boolean> {
  rejected = undefined;
  const sabotage = SABOTAGES.find(one => one.name === name);
  const result = await playSchedule(seed, sabotage ? { sabotage } : {});
  if (rejected !== undefined) {
    const { stack = String(rejected) } = rejected as { stack?: string };
    result.faults.push(`nobody handles ${stack}`);
  }
  parentPort?.postMessage({ ...result, sabotage: name });
  return result.faults.length === 0;
}

for (let seed = from; !sabotages && seed < to && realNow() < until; seed += stride) {
  await play(seed);
}
for (const name of sabotages ?? []) {
  for (let seed = from; seed < to && (await play(seed, name)); seed += stride);
}
