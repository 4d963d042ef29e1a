// The worker's door: what owners and operators may ask it.
import type { Context, Service, ServiceSchema } from "moleculer";
import type { Runtime } from "../../mixins/runtime.ts";
import { Worker } from "./worker.ts";

/** The service `worker` over a process's runtime. */
export default function workerService(runtime: Runtime): ServiceSchema {
  let worker: Worker;

  return {
    name: "worker",
    actions: {
      /** Stops taking work and resolves when none is left. Repeatable. */
      drain: { visibility: "protected", handler: () => worker.drain() },
      /** Of these commands, those this incarnation holds: an owner asks when a lease has passed. */
      holds: {
        visibility: "public",
        tracing: false,
        handler: (ctx: Context<{ incarnation: string; command_ids: string[] }>) =>
          worker.holds(ctx.params.incarnation, ctx.params.command_ids),
      },
      /** This worker's identity, slots and counters. */
      info: { visibility: "public", handler: () => worker.info() },
    },
    created(this: Service) {
      worker = new Worker(runtime, this, runtime.settings.worker.maxInflight);
    },
    started: () => worker.start(),
    stopped: () => worker.drain(),
  };
}
