// The other workers of this machine: one whose process is gone is buried by whoever sees it first.
import type { Service } from "moleculer";
import type { Clock } from "../../mixins/clock.ts";
import { releaseShardsOf } from "../../mixins/postgres/execution.ts";
import type { Database } from "../../mixins/postgres/index.ts";
import { listOnMachine, markGone } from "../../mixins/postgres/runtime.ts";
import { wakeStreamsOf } from "../../mixins/postgres/stream.ts";
import { isAlive, type WorkerIdentity } from "./identity.ts";

/** How often a worker looks whether its neighbours still live. */
const WATCH_MS = 1_000;

interface WatchPorts {
  clock: Clock;
  database: Database;
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
async function buryDead({ database, logger }: WatchPorts, me: WorkerIdentity): Promise<void> {
  const others = await listOnMachine(database, me.machine);
  const dead = others.filter(one => one.incarnation !== me.incarnation && !isAlive(one.pid));
  if (dead.length === 0) return;
  const names = dead.map(one => one.worker_id);
  const incarnations = dead.map(one => one.incarnation);
  logger.info({ workers: names }, "worker.buried");
  await database.transaction(async query => {
    await markGone(query, incarnations);
    await wakeStreamsOf(query, names);
    await releaseShardsOf(query, names);
  });
}
