// Many schedules over the cores of this machine, and what they were like together.
import { availableParallelism } from "node:os";
import { Worker } from "node:worker_threads";
import type { ScheduleResult } from "./schedule.ts";
import type { ThreadWork } from "./thread.ts";

export interface SimulationOptions {
  from: number;
  seeds: number;
  threads?: number;
  /** No schedule is begun after this. */
  limitSeconds?: number;
  /** Switches that are to be caught. */
  sabotages?: string[];
  onResult?: (result: ScheduleResult & { sabotage?: string }) => void;
}

export interface Simulation {
  schedules: number;
  steps: number;
  executions: number;
  items: number;
  seconds: number;
  /** In one schedule. */
  fewestFaults: number;
  violations: { seed: number; faults: string[] }[];
  /** Fault × kind of step → how often. */
  struck: Map<string, number>;
}

/** Plays schedules of consecutive seeds. */
export async function simulate(options: SimulationOptions): Promise<Simulation> {
  const { from, seeds, threads = availableParallelism(), sabotages } = options;
  const { limitSeconds = Infinity } = options;
  const begun = performance.now();
  const sum: Simulation = {
    ...{ schedules: 0, steps: 0, executions: 0, items: 0, seconds: 0, fewestFaults: Infinity },
    ...{ violations: [], struck: new Map() },
  };
  const works = Array.from({ length: Math.min(threads, seeds) }, (_, at) => {
    if (!sabotages) return { from: from + at, to: from + seeds, stride: threads, limitSeconds };
    const own = sabotages.filter((_, index) => index % threads === at);
    return { from, to: from + seeds, stride: 1, sabotages: own, limitSeconds };
  });
  await Promise.all(
    works.map(work =>
      runThread(work, result => {
        add(sum, result);
        options.onResult?.(result);
      }),
    ),
  );
  sum.seconds = (performance.now() - begun) / 1_000;
  sum.violations.sort((one, other) => one.seed - other.seed);
  return sum;
}

function add(sum: Simulation, { seed, faults, steps, executions, items, struck }: ScheduleResult) {
  sum.schedules += 1;
  sum.steps += steps;
  sum.executions += executions;
  sum.items += items;
  if (faults.length > 0) sum.violations.push({ seed, faults });
  const hits = struck.reduce((all, [, count]) => all + count, 0);
  sum.fewestFaults = Math.min(sum.fewestFaults, hits);
  for (const [name, count] of struck) sum.struck.set(name, (sum.struck.get(name) ?? 0) + count);
}

function runThread(work: ThreadWork, heard: (result: ScheduleResult) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    const thread = new Worker(new URL("./thread.ts", import.meta.url), { workerData: work });
    thread.on("message", heard);
    thread.on("error", reject);
    thread.on("exit", code => {
      if (code === 0) resolve();
      else reject(new Error(`a thread of the simulation ended with ${code}`));
    });
  });
}

/** What replays one seed. */
export function replayOf(seed: number, sabotage?: string): string {
  const more = sabotage === undefined ? "" : ` --sabotage "${sabotage}"`;
  return `npm run simulate -- --seed ${seed} --trace${more}`;
}
