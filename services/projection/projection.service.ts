// The projection: keeps noetl.execution, the row people read, true to the log.
import type { Context, Service, ServiceBroker, ServiceSchema } from "moleculer";
import { isOffered } from "../../mixins/routing.ts";
import type { Runtime } from "../../mixins/runtime.ts";
import { projectionHint } from "../../schemas/actor-requests.ts";
import { Unavailable } from "../../schemas/errors.ts";
import { executionId, validated } from "../../schemas/requests.ts";
import { countProjection } from "./count.ts";
import { HintSender } from "./hints.ts";
import { ProjectionKeeper, SHARD } from "./keeper.ts";

export interface ProjectionOptions {
  /** false: this node never keeps the rows itself, and only tells the one that does. */
  keeps: boolean;
}

/** A rebuild at the node that keeps the rows, and how long it may take. */
const REBUILD_HERE = "projection.rebuild_here";
const REBUILD_MS = 60_000;
const PATIENT = { timeout: REBUILD_MS };

/** The service `projection` over a process's runtime. */
export default function projectionService(
  runtime: Runtime,
  options: ProjectionOptions = { keeps: true },
): ServiceSchema {
  let hints: HintSender;
  let keeper: ProjectionKeeper;
  let unsubscribe = () => {};

  async function rebuild(broker: ServiceBroker, execution_id: string) {
    if (keeper.holds) return keeper.rebuild(execution_id);
    const nodeID = await hints.holder();
    if (nodeID === undefined || !isOffered(broker, REBUILD_HERE, nodeID)) {
      const who = nodeID === undefined ? "no node keeps it at present" : `${nodeID} keeps it`;
      throw new Unavailable(`the projection cannot be reached from here: ${who}`);
    }
    return broker.call(REBUILD_HERE, { execution_id }, { nodeID, timeout: REBUILD_MS });
  }

  return {
    name: "projection",
    actions: {
      /** Makes an execution's row anew from its events alone, at whichever node keeps it. */
      rebuild: {
        ...PATIENT,
        handler: validated(executionId, (ctx: Context, p) => rebuild(ctx.broker, p.execution_id)),
      },
      /** The same where the rows are kept; Unavailable elsewhere. */
      rebuild_here: {
        visibility: "public",
        handler: validated(executionId, (_ctx: Context, p) => keeper.rebuild(p.execution_id)),
      },
      /** What another node has committed; answers when the rows say so, or that it went wrong. */
      hint: {
        visibility: "public",
        tracing: false,
        handler: validated(projectionHint, (_ctx: Context, p) => keeper.take(p.events)),
      },
    },
    created(this: Service) {
      hints = new HintSender(runtime, this.broker, SHARD);
      keeper = new ProjectionKeeper(runtime, this.logger, hints);
      countProjection(runtime.metrics, keeper, hints);
    },
    started() {
      if (options.keeps) keeper.start();
      else unsubscribe = runtime.feed.subscribe(events => hints.push(events));
      return Promise.resolve();
    },
    async stopped() {
      unsubscribe();
      await keeper.stop();
      await hints.stop();
    },
  };
}
