// Signs of life: a worker's row in `noetl.runtime`, which owners read when a lease has passed.
import type { Service } from "moleculer";
import type { Runtime } from "../../mixins/runtime.ts";
import type { Gates } from "./gate/open.ts";
import type { WorkerIdentity } from "./identity.ts";

export interface BeatPorts {
  runtime: Pick<Runtime, "clock" | "store" | "workers" | "settings">;
  logger: Service["logger"];
  gates: Gates;
  me: WorkerIdentity;
  isStopping(): boolean;
  capacity(): { slots: number; free: number };
  held(): string[];
  /** Ends work that is of no use to anybody. */
  abort(commandIds: string[]): void;
}

/** Beats at once, and then again and again until the returned function is called. */
export async function keepBeating(ports: BeatPorts): Promise<() => void> {
  const { clock, settings } = ports.runtime;
  let stopped = false;
  let cancel = () => {};
  const again = async () => {
    await beat(ports);
    if (!stopped) cancel = clock.after(settings.worker.beatMs, () => void again());
  };
  await again();
  return () => {
    stopped = true;
    cancel();
  };
}

async function beat({ runtime, logger, gates, me, ...worker }: BeatPorts): Promise<void> {
  const { store, workers, settings } = runtime;
  const status = worker.isStopping() ? "draining" : "ready";
  try {
    await workers.beat({ ...me, capacity: worker.capacity() }, status);
    if (gates.isAskingOthers) {
      gates.setWorkers(await workers.countReady(settings.command.leaseMs));
    }
    // Whoever ended them has said so, once; without NATS, or by bad luck, nobody has heard it.
    const held = worker.held();
    if (held.length > 0) worker.abort(await store.findOver(held));
  } catch (error) {
    logger.warn({ err: error }, "worker.beat_failed");
  }
}
