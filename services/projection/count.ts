// How well the projection follows, as numbers.
import type { Metrics } from "../../mixins/metrics.ts";
import type { HintSender } from "./hints.ts";
import type { ProjectionKeeper } from "./keeper.ts";

export function countProjection(
  metrics: Metrics,
  keeper: Pick<ProjectionKeeper, "holds" | "waiting" | "counters">,
  hints: Pick<HintSender, "counters">,
): void {
  metrics.gauge(
    { name: "noetl_projection_holds", help: "1 on the node that keeps the rows" },
    () => (keeper.holds ? 1 : 0),
  );
  metrics.gauge({ name: "noetl_projection_waiting", help: "Events that wait to be folded" }, () => {
    return keeper.waiting;
  });
  metrics.counter(
    { name: "noetl_projection_gaps_total", help: "Events that came before others of their stream" },
    () => keeper.counters.early,
  );
  metrics.counter(
    { name: "noetl_projection_filled_total", help: "Events read from the log to fill such gaps" },
    () => keeper.counters.filled,
  );
  metrics.counter(
    { name: "noetl_projection_hints_total", help: "Batches of commits told to the keeping node" },
    () => {
      const { sent, failed } = hints.counters;
      return [
        { labels: { answer: "taken" }, value: sent },
        { labels: { answer: "failed" }, value: failed },
      ];
    },
  );
}
