// Workers as people see them: the rows that they write about themselves.
import type { Context, ServiceSchema } from "moleculer";
import { listWorkers, type SeenWorker } from "../../mixins/postgres/runtime.ts";
import type { Runtime } from "../../mixins/runtime.ts";
import { validated, workersList } from "../../schemas/requests.ts";

export interface WorkerView {
  worker_id: string;
  /** New with every start of the worker. */
  incarnation: string;
  host: string;
  /** `lost`: it said nothing for longer than a lease, so its commands are given to others. */
  status: "ready" | "draining" | "gone" | "lost";
  seen_at: string;
  /** As the worker said when it was last seen; null when it never did. */
  capacity: { slots: number; free: number } | null;
  /** Commands it ran then; null when it never said. */
  in_flight: number | null;
}

/** The service `workers` over a process's runtime. */
export default function workersService({ database, settings }: WorkersNeed): ServiceSchema {
  const { leaseMs } = settings.command;
  return {
    name: "workers",
    actions: {
      /** Registered workers; those that are gone are shown for an hour, and last. */
      list: {
        handler: validated(workersList, async (_ctx: Context, { limit }) => {
          const rows = await listWorkers(database, limit);
          return { workers: rows.map(row => toView(row, leaseMs)) };
        }),
      },
    },
  };
}

type WorkersNeed = Pick<Runtime, "database" | "settings">;

function toView(row: SeenWorker, leaseMs: number): WorkerView {
  const { worker_id, incarnation, seen_at } = row;
  const capacity = capacityOf(row);
  return {
    worker_id,
    incarnation,
    // After it come the boot and the pid namespace, which are nobody's business.
    host: row.machine.split("|")[0] ?? "",
    status: row.status !== "gone" && row.silent_ms > leaseMs ? "lost" : row.status,
    seen_at,
    capacity,
    in_flight: capacity && Math.max(0, capacity.slots - capacity.free),
  };
}

function capacityOf({ capacity }: SeenWorker): WorkerView["capacity"] {
  const { slots, free } = capacity;
  return typeof slots === "number" && typeof free === "number" ? { slots, free } : null;
}
