// What workers keep of themselves in noetl.runtime: the sign of life that owners read.
import { releaseShardsOf } from "./postgres/execution.ts";
import type { Database } from "./postgres/index.ts";
import { beat, countReady, listOnMachine, markGone, type WorkerRow } from "./postgres/runtime.ts";
import { wakeStreamsOf } from "./postgres/stream.ts";

type Named = Pick<WorkerRow, "worker_id" | "incarnation">;

/** The port of a worker's row; a simulation has its own in memory. Calls may throw Unavailable. */
export interface WorkerRows {
  /** Registers an incarnation, or says that it is still there. */
  beat(worker: WorkerRow, status: "ready" | "draining"): Promise<void>;
  /** An incarnation that will never report again. */
  leave(incarnation: string): Promise<void>;
  /** Workers last seen on this machine that are not known to be gone. */
  onMachine(machine: string): Promise<(Named & { pid: number })[]>;
  /** Workers that take work and have shown life within so many milliseconds. */
  countReady(silentMs: number): Promise<number>;
  /** Of dead processes: their work is offered, their streams are woken, their shards are free. */
  bury(dead: Named[]): Promise<void>;
}

/** The rows of workers in Postgres. */
export function createWorkerRows(database: Database): WorkerRows {
  return {
    beat: (worker, status) => beat(database, worker, status),
    leave: incarnation => markGone(database, [incarnation]),
    onMachine: machine => listOnMachine(database, machine),
    countReady: silentMs => countReady(database, silentMs),
    bury(dead) {
      const names = dead.map(one => one.worker_id);
      const incarnations = dead.map(one => one.incarnation);
      return database.transaction(async query => {
        await markGone(query, incarnations);
        await wakeStreamsOf(query, names);
        await releaseShardsOf(query, names);
      });
    },
  };
}
