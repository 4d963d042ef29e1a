// The other workers of this machine: one whose process is gone is buried by whoever sees it first.
import type { Service } from "moleculer";
import type { Clock } from "../../mixins/clock.ts";
import type { WorkerRows } from "../../mixins/worker-rows.ts";
import { isAlive, type WorkerIdentity } from "./identity.ts";

/** How often a worker looks whether its neighbours still live. */
const WATCH_MS = 1_000;

interface WatchPorts {
  clock: Clock;
  workers: WorkerRows;
  logger: Service["logger"];
}

/** Looks at once, and then again and again until the returned function is called. */
export async function watchNeighbours(ports: WatchPorts, me: WorkerIdentity): Promise<() => void> {
  let stopped = false;
  let cancel = () => {};
  const look = async () => {
    await buryDead(ports, me).catch((error: unknown) => {
      ports.logger.warn({ err: error }, "worker.watch_failed");
    });
    if (!stopped) cancel = ports.clock.after(WATCH_MS, () => void look());
  };
  await look();
  return () => {
    stopped = true;
    cancel();
  };
}

/**
 * Workers of this machine whose process is gone will not report: their commands need not wait for
 * a lease, nor the projection for theirs.
 */
async function buryDead({ workers, logger }: WatchPorts, me: WorkerIdentity): Promise<void> {
  const others = await workers.onMachine(me.machine);
  const dead = others.filter(one => one.incarnation !== me.incarnation && !isAlive(one.pid));
  if (dead.length === 0) return;
  logger.info({ workers: dead.map(one => one.worker_id) }, "worker.buried");
  await workers.bury(dead);
}
