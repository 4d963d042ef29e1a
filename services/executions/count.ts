// Runs that this node has begun and ended, counted as their facts are committed.
import { CountsBy, type Metrics } from "../../mixins/metrics.ts";
import type { StoredEvent } from "../../schemas/events.ts";

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
