// What a small run feels of a large one: three steps alone, then beside a loop of 100,000 items.
import { setTimeout as wait } from "node:timers/promises";
import type { ServiceBroker } from "moleculer";
import type { Database } from "../mixins/postgres/index.ts";
import { runToEnd, WAYS, type Way } from "./workloads.ts";

/** Of the small run beside its time alone (design §12: a loop starves nobody). */
const TIMES_MAX = 3;
const LARGE = 100_000;
const RUNS = 60;
/** Until the large loop is at its pace. */
const WARM_MS = 2_000;

/** Of `RUNS`, in milliseconds. */
interface Times {
  p50: number;
  p90: number;
}

/** Prints the time of a three-step run, alone and beside a large loop of each way. */
export async function feltBeside(
  broker: ServiceBroker,
  database: Database,
  window: number,
): Promise<void> {
  const alone = await timesOf(broker, database);
  console.log(
    `\nthree steps alone: p50 ${alone.p50.toFixed(1)} ms, p90 ${alone.p90.toFixed(1)} ms`,
  );
  for (const way of WAYS) {
    const { p50, p90 } = await beside(broker, database, way, window);
    const times = p50 / alone.p50;
    const missed = times < TIMES_MAX ? "" : " (missed)";
    console.log(
      `beside ${LARGE} items, ${way}: p50 ${p50.toFixed(1)} ms, p90 ${p90.toFixed(1)} ms of ` +
        `${RUNS} runs, ${times.toFixed(1)} times; budget ${TIMES_MAX}${missed}`,
    );
  }
}

async function beside(
  broker: ServiceBroker,
  database: Database,
  way: Way,
  window: number,
): Promise<Times> {
  let isEnough = false;
  /** One after the other: the quickest is over before all small runs are. */
  async function keepRunning(): Promise<void> {
    while (!isEnough) await runToEnd(broker, `bench/${way}_loop`, { n: LARGE, window });
  }
  const large = keepRunning();
  await wait(WARM_MS);
  const times = await timesOf(broker, database);
  isEnough = true;
  await large;
  return times;
}

/** Runs one after the other, from the commit of their start to that of their end. */
async function timesOf(broker: ServiceBroker, database: Database): Promise<Times> {
  const ids: string[] = [];
  while (ids.length < RUNS) ids.push(await runToEnd(broker, "bench/three_steps"));
  const { rows } = await database.query<{ p50: number; p90: number }>(
    `with run as (
       select extract(epoch from max(created_at) - min(created_at)) * 1000 as ms
       from noetl.event where execution_id = any ($1::bigint[]) group by execution_id)
     select percentile_cont(0.5) within group (order by ms)::double precision as p50,
            percentile_cont(0.9) within group (order by ms)::double precision as p90 from run`,
    [ids],
  );
  return rows[0] ?? { p50: NaN, p90: NaN };
}
