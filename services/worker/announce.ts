// Tells every server what this worker has room for: when it starts, every so often, when that has
// changed much, when a server has started, and when it leaves.
import type { ServiceBroker } from "moleculer";
import type { Clock } from "../../mixins/clock.ts";
import { listenersOf } from "../../mixins/routing.ts";
import { CAPACITY_EVENT, type WorkerCapacity } from "../../schemas/worker-capacity.ts";
import type { WorkClass } from "../../schemas/work-class.ts";
import type { Watched } from "./gate/watched.ts";
import type { WorkerIdentity } from "./identity.ts";
import type { Ledger } from "./ledger.ts";

/** How often it is looked whether something has changed. */
const LOOK_MS = 500;
/** A change of this share of all slots is worth a message. */
const SHARE = 0.25;

export interface Announcer {
  /** Says it once more, for the last time. */
  stop(): void;
}

export function announceCapacity(
  { broker, clock, everyMs }: { broker: ServiceBroker; clock: Clock; everyMs: number },
  read: () => WorkerCapacity,
): Announcer {
  let last: { capacity: WorkerCapacity; at: number } | undefined;
  let heardBy = new Set<string>();
  let cancel = () => {};

  function say(): void {
    const capacity = read();
    last = { capacity, at: clock.now() };
    void broker.broadcast(CAPACITY_EVENT, capacity).catch(() => undefined);
  }

  function look(): void {
    const before = heardBy;
    heardBy = new Set(listenersOf(broker, CAPACITY_EVENT));
    const isDue = !last || clock.now() - last.at >= everyMs || isNews(last.capacity, read());
    if (isDue || !heardBy.isSubsetOf(before)) say();
    cancel = clock.after(LOOK_MS, look);
  }

  look();
  return {
    stop() {
      cancel();
      say();
    },
  };
}

function isNews(before: WorkerCapacity, now: WorkerCapacity): boolean {
  const changed = Math.abs(before.available_slots - now.available_slots);
  const becameFull = (["available_slots", "available_db_slots"] as const).some(
    field => (before[field] === 0) !== (now[field] === 0),
  );
  return becameFull || changed >= Math.max(1, now.slots * SHARE);
}

/** A worker fetches nothing while a gate of its class is closed: there it has no room. */
export function behindGates(
  capacity: WorkerCapacity,
  gates: Record<WorkClass, { watched: readonly Pick<Watched, "blocked">[] }>,
): WorkerCapacity {
  const isShut = (workClass: WorkClass) => gates[workClass].watched.some(one => one.blocked);
  const available_slots = isShut("general") ? 0 : capacity.available_slots;
  const available_db_slots = isShut("database") ? 0 : capacity.available_db_slots;
  return { ...capacity, available_slots, available_db_slots };
}

/** What a worker has room for beside what it runs, with what it says of itself. */
export function capacityOf(
  { worker_id, incarnation }: WorkerIdentity,
  ledger: Pick<Ledger, "caps" | "busy" | "databaseBusy" | "isClosed">,
  said: Pick<WorkerCapacity, "status" | "capabilities" | "labels" | "takes">,
): WorkerCapacity {
  const { caps, busy, databaseBusy, isClosed } = ledger;
  const available = isClosed ? 0 : Math.max(0, caps.all - busy);
  return {
    ...{ worker_id, incarnation, ...said, slots: caps.all, active_tasks: busy },
    available_slots: available,
    available_db_slots: Math.max(0, Math.min(available, caps.database - databaseBusy)),
  };
}
