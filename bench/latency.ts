// How long a step waits for the one before it, from the log itself: its rows carry the
// time at which their append began.
import type { ServiceBroker } from "moleculer";
import type { Database } from "../mixins/postgres/index.ts";
import { runToEnd } from "./workloads.ts";

export interface Latency {
  name: string;
  p50: number;
  p99: number;
  samples: number;
}

/** Runs chains one at a time, so that nothing else is going on. */
export async function stepToStep(
  broker: ServiceBroker,
  database: Database,
  runs: number,
): Promise<Latency[]> {
  await runToEnd(broker, "bench/chain");
  const ids: string[] = [];
  for (let run = 0; run < runs; run += 1) ids.push(await runToEnd(broker, "bench/chain"));
  return [
    await gaps(database, "step to the next", ids, "command.completed", "command.completed"),
    // Its first step may be issued as a worker's own: then there is no claim to look at.
    await gaps(
      database,
      "start to the first outcome",
      ids,
      "playbook.initialized",
      "command.completed",
    ),
  ];
}

/** From one event of a type to the next of another in the same run, milliseconds. */
async function gaps(
  database: Database,
  name: string,
  ids: string[],
  from: string,
  to: string,
): Promise<Latency> {
  const { rows } = await database.query<{ p50: number; p99: number; samples: number }>(
    `with marks as (
       select execution_id, created_at, event_type,
              lag(created_at) over w as before, lag(event_type) over w as before_type
       from noetl.event
       where execution_id = any ($1::bigint[]) and event_type in ($2, $3)
       window w as (partition by execution_id order by version)
     ), gaps as (
       select extract(epoch from created_at - before) * 1000 as ms from marks
       where event_type = $3 and before_type = $2
     )
     select percentile_cont(0.5) within group (order by ms)::double precision as p50,
            percentile_cont(0.99) within group (order by ms)::double precision as p99,
            count(*)::integer as samples from gaps`,
    [ids, from, to],
  );
  return { name, ...(rows[0] ?? { p50: NaN, p99: NaN, samples: 0 }) };
}

export function printLatencies(latencies: Latency[], budget: { p50: number; p99: number }): void {
  for (const { name, p50, p99, samples } of latencies) {
    const missed = p50 < budget.p50 && p99 < budget.p99 ? "" : " (missed)";
    const told = `p50 ${p50.toFixed(1)} ms, p99 ${p99.toFixed(1)} ms of ${samples}`;
    console.log(`${name}: ${told}; budget ${budget.p50} and ${budget.p99} ms${missed}`);
  }
}
