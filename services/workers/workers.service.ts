// Workers as people see them: the rows that they write about themselves.
import type { Context, Service, ServiceSchema } from "moleculer";
import { listWorkers, unreadyWhy, type SeenWorker } from "../../mixins/postgres/runtime.ts";
import { listUnserved, saveUnserved } from "../../mixins/postgres/unserved.ts";
import type { Runtime } from "../../mixins/runtime.ts";
import { CAPACITY_EVENT, workerCapacity } from "../../schemas/worker-capacity.ts";
import { validated, workersList } from "../../schemas/requests.ts";

/** How often commands that nobody can run are named anew. */
const UNSERVED_MS = 2_000;

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
  capacity: WorkerRoom | null;
  /** Commands it ran then; null when it never said. */
  in_flight: number | null;
}

export interface WorkerRoom {
  slots: number;
  free: number;
  /** Of the free ones, those for work on databases. */
  free_db?: number;
  capabilities: string[];
  labels: string[];
}

/** The service `workers` over a process's runtime. */
export default function workersService(runtime: WorkersNeed): ServiceSchema {
  const { database, settings, dispatch, clock } = runtime;
  const { leaseMs } = settings.command;
  let cancel = () => {};

  /** Commands that nobody can run are named where everybody can read it. */
  async function nameUnserved(service: Service): Promise<void> {
    const rings = dispatch.unserved();
    try {
      if (rings.length > 0) await saveUnserved(database, rings);
      for (const { step, requires } of rings.slice(0, 1)) {
        service.logger.warn({ step, requires, commands: rings.length }, "dispatch.nobody_can");
      }
    } catch (error) {
      service.logger.warn({ err: error }, "dispatch.unserved_unsaid");
    }
    cancel = clock.after(UNSERVED_MS, () => void nameUnserved(service));
  }

  return {
    name: "workers",
    actions: {
      /** Registered workers; those that are gone are shown for an hour, and last. */
      list: {
        handler: validated(workersList, async (_ctx: Context, { limit }) => {
          const rows = await listWorkers(database, limit);
          const workers = rows.map(row => toView(row, leaseMs));
          return { workers, unserved: await listUnserved(database, limit) };
        }),
      },
    },
    events: {
      [CAPACITY_EVENT]: {
        handler({ params }: Context) {
          const told = workerCapacity.safeParse(params);
          if (told.success) dispatch.hear(told.data);
        },
      },
      "$node.disconnected": {
        // Anybody may say so, and in any form: it costs the worker being rung by name.
        handler({ params }: Context<{ node?: { id?: unknown } } | null>) {
          const id = params?.node?.id;
          if (typeof id === "string") dispatch.leave(id);
        },
      },
    },
    created() {
      countDispatch(runtime);
    },
    started(this: Service) {
      cancel = clock.after(UNSERVED_MS, () => void nameUnserved(this));
      return Promise.resolve();
    },
    stopped() {
      cancel();
      return Promise.resolve();
    },
  };
}

type WorkersNeed = Pick<
  Runtime,
  "database" | "settings" | "capacity" | "dispatch" | "clock" | "metrics"
>;

function countDispatch({ metrics, dispatch, capacity }: WorkersNeed): void {
  const help = "Commands by whom they were offered to";
  metrics.counter({ name: "noetl_dispatch_total", help }, () => {
    const { assigned, targeted, broadcast, reoffered } = dispatch.counters;
    return [
      { labels: { to: "one_unasked" }, value: assigned },
      { labels: { to: "one" }, value: targeted },
      { labels: { to: "all" }, value: broadcast },
      { labels: { to: "all_after_one" }, value: reoffered },
    ];
  });
  metrics.gauge(
    { name: "noetl_workers_heard", help: "Workers that said lately what they have room for" },
    () => capacity.list().length,
  );
}

function toView(row: SeenWorker, leaseMs: number): WorkerView {
  const { worker_id, incarnation, seen_at } = row;
  const capacity = capacityOf(row.capacity);
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

function capacityOf(told: object): WorkerView["capacity"] {
  const { slots, free, available_slots = free, ...rest } = told as Record<string, unknown>;
  if (typeof slots !== "number" || typeof available_slots !== "number") return null;
  const { available_db_slots: free_db, capabilities = [], labels = [] } = rest;
  return {
    slots,
    free: available_slots,
    ...(typeof free_db === "number" && { free_db }),
    capabilities: capabilities as string[],
    labels: labels as string[],
  };
}
