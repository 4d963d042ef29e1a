// Runs that this node has begun and ended, counted as their facts are committed.
import { CountsBy, type Metrics } from "../../mixins/metrics.ts";
import { isFailure } from "../../schemas/command-failures.ts";
import type { StoredEvent } from "../../schemas/events.ts";
import { WORKER_LOST } from "../../schemas/lease.ts";

const ENDS = new Map([
  ["playbook.completed", "COMPLETED"],
  ["playbook.failed", "FAILED"],
  ["execution.cancelled", "CANCELLED"],
]);

/** Registers the counters; the returned function is told of every commit. */
export function countExecutions(metrics: Metrics): (events: StoredEvent[]) => void {
  const ended = new CountsBy("status", [...ENDS.values()]);
  let started = 0;
  const help = "By this process; others have started and ended theirs";
  metrics.counter({ name: "noetl_executions_started_total", help }, () => started);
  metrics.counter({ name: "noetl_executions_ended_total", help }, () => ended.samples());
  return events => {
    for (const { event_type } of events) {
      if (event_type === "playbook.initialized") started += 1;
      const status = ENDS.get(event_type);
      if (status !== undefined) ended.add(status);
    }
  };
}

/** Registers how many commands this node has given up because their workers died. */
export function countQuarantined(metrics: Metrics): (events: readonly StoredEvent[]) => void {
  let quarantined = 0;
  const help = "Commands given up because their workers died";
  metrics.counter({ name: "noetl_commands_quarantined_total", help }, () => quarantined);
  return events => {
    for (const event of events) {
      if (isFailure(event) && event.result.error?.code === WORKER_LOST) quarantined += 1;
    }
  };
}
