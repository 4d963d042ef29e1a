// The projection: keeps noetl.execution, the row people read, true to the log.
import type { Context, Service, ServiceSchema } from "moleculer";
import type { Runtime } from "../../mixins/runtime.ts";
import { executionId, validated } from "../../schemas/requests.ts";
import { ProjectionKeeper } from "./keeper.ts";

/** The service `projection` over a process's runtime. */
export default function projectionService(runtime: Runtime): ServiceSchema {
  let keeper: ProjectionKeeper;

  return {
    name: "projection",
    actions: {
      /** Makes an execution's row anew from its events alone. */
      rebuild: {
        handler: validated(executionId, (_ctx: Context, p) => keeper.rebuild(p.execution_id)),
      },
    },
    created(this: Service) {
      keeper = new ProjectionKeeper(runtime, this.logger);
    },
    started() {
      keeper.start();
      return Promise.resolve();
    },
    stopped: () => keeper.stop(),
  };
}
