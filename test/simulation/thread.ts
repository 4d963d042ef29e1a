// Plays schedules in a thread of its own, whose globals belong to the schedule that runs.
import { parentPort, workerData } from "node:worker_threads";
import { replaceGlobals } from "./globals.ts";

/** Seeds `from`, `from + stride` … below `to`. */
export interface ThreadWork {
  from: number;
  to: number;
  stride: number;
  /** Name of a switch. */
  sabotage?: string;
  /** Ends at the first violation. */
  stopsEarly: boolean;
}

const { from, to, stride, sabotage: name, stopsEarly } = workerData as ThreadWork;
replaceGlobals();
const { playSchedule } = await import("./schedule.ts");
const { SABOTAGES } = await import("./sabotages.ts");
const sabotage = SABOTAGES.find(one => one.name === name);

let rejected: unknown;
process.on("unhandledRejection", error => (rejected = error));

for (let seed = from; seed < to; seed += stride) {
  rejected = undefined;
  const result = await playSchedule(seed, sabotage ? { sabotage } : {});
  if (rejected !== undefined) {
    const { stack = String(rejected) } = rejected as { stack?: string };
    result.faults.push(`nobody handles ${stack}`);
  }
  parentPort?.postMessage(result);
  if (stopsEarly && result.faults.length > 0) break;
}
