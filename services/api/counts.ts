/** How many requests were answered, by route and by class of status. */
import type { ServerResponse } from "node:http";
import type { Metrics, Sample } from "../../mixins/metrics.ts";
import { API_ROUTES } from "../../schemas/routes.ts";
import type { LiveStreams } from "./live.ts";

const CLASSES = ["2xx", "3xx", "4xx", "5xx"] as const;
/** What is at no address of ours. */
const OTHER = "other";
const UNPREFIXED = ["GET /health", "GET /health/live", "GET /metrics"];

type Counts = Record<(typeof CLASSES)[number], number>;

export class RequestCounts {
  /** Every route from the start: an alert finds zeros, not nothing. */
  readonly #byRoute = new Map<string, Counts>();

  constructor() {
    const routes = API_ROUTES.map(({ method, path }) => `${method} /api${path}`);
    for (const route of [...routes, ...UNPREFIXED, OTHER]) {
      this.#byRoute.set(route, { "2xx": 0, "3xx": 0, "4xx": 0, "5xx": 0 });
    }
  }

  /** Counts an answer when it is over; `route` is asked then. */
  watch(res: ServerResponse, route: () => string | undefined): void {
    res.once("close", () => {
      const counts = this.#byRoute.get(route() ?? OTHER) ?? this.#byRoute.get(OTHER);
      const statusClass = CLASSES[Math.floor(res.statusCode / 100) - 2];
      if (counts && statusClass) counts[statusClass] += 1;
    });
  }

  samples(): Sample[] {
    return [...this.#byRoute].flatMap(([route, counts]) =>
      CLASSES.map(status => ({ labels: { route, status }, value: counts[status] })),
    );
  }
}

/** Registers what the front door counts. */
export function countRequests(metrics: Metrics, live: LiveStreams): RequestCounts {
  const counts = new RequestCounts();
  metrics.counter(
    { name: "noetl_http_requests_total", help: "Answers by route and class of status" },
    () => counts.samples(),
  );
  metrics.gauge(
    { name: "noetl_http_live_streams", help: "Executions followed by Server-Sent Events" },
    () => live.open,
  );
  return counts;
}
