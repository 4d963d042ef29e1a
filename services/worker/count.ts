// What this process's worker does, as numbers.
import type { Metrics } from "../../mixins/metrics.ts";
import type { Worker } from "./worker.ts";

export function countWork(metrics: Metrics, worker: Pick<Worker, "info">): void {
  metrics.gauge({ name: "noetl_worker_slots", help: "Items this worker may run at once" }, () => {
    const { slots, free } = worker.info();
    return [
      { labels: { state: "busy" }, value: slots - free },
      { labels: { state: "free" }, value: free },
    ];
  });
  metrics.gauge({ name: "noetl_worker_ready", help: "0 while its pulls are not answered" }, () =>
    worker.info().reason === undefined ? 1 : 0,
  );
  metrics.counter(
    {
      name: "noetl_worker_outcomes_total",
      help: "Outcomes of commands, as their owners took them",
    },
    () => {
      const { reported, refused } = worker.info();
      return [
        { labels: { answer: "accepted" }, value: reported },
        { labels: { answer: "refused" }, value: refused },
      ];
    },
  );
}
