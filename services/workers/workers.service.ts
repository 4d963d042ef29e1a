// Workers as people see them: the rows that they write about themselves.
import type { Context, ServiceSchema } from "moleculer";
import { listWorkers, unreadyWhy, type SeenWorker } from "../../mixins/postgres/runtime.ts";
import type { Runtime } from "../../mixins/runtime.ts";
import { validated, workersList } from "../../schemas/requests.ts";

export interface WorkerView {
  worker_id: string;
  /** New with every start of the worker. */
  incarnation: string;
  host: string;
  /**
   * `lost`: it said nothing for longer than a lease, so its commands are given to others;
   * `unready`: it lives, and its pulls are not answered.
   */
  status: "ready" | "unready" | "draining" | "gone" | "lost";
  /** Why it is unready. */
  reason?: string;
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
  const status = statusOf(row, leaseMs);
  return {
    worker_id,
    incarnation,
    // After it come the boot and the pid namespace, which are nobody's business.
    host: row.machine.split("|")[0] ?? "",
    status,
    ...(status === "unready" && { reason: unreadyWhy(row) }),
    seen_at,
    capacity,
    in_flight: capacity && Math.max(0, capacity.slots - capacity.free),
  };
}

function statusOf(row: SeenWorker, leaseMs: number): WorkerView["status"] {
  if (row.status === "gone") return "gone";
  if (row.silent_ms > leaseMs) return "lost";
  return row.status === "ready" && unreadyWhy(row) !== undefined ? "unready" : row.status;
}

function capacityOf({ capacity }: SeenWorker): WorkerView["capacity"] {
  const { slots, free } = capacity;
  return typeof slots === "number" && typeof free === "number" ? { slots, free } : null;
}
