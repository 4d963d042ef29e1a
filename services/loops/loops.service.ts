// Loops: one stream per activation of a loop step.
import type { Context, Service, ServiceSchema } from "moleculer";
import { createActorHost, type ActorHost } from "../../mixins/actor.ts";
import { countActors } from "../../mixins/actor-metrics.ts";
import { actorActions, actorPorts } from "../../mixins/actor-service.ts";
import { abortsOf } from "../../mixins/cancelled-work.ts";
import type { Runtime } from "../../mixins/runtime.ts";
import { loopsDeliver } from "../../schemas/actor-requests.ts";
import type { StoredEvent } from "../../schemas/events.ts";
import { validated } from "../../schemas/requests.ts";
import { loopMachine, type LoopAnswer, type LoopInput } from "./machine.ts";

/** The service `loops` over a process's runtime. */
export default function loopsService(runtime: Runtime): ServiceSchema {
  let host: ActorHost<LoopInput, LoopAnswer> | undefined;

  return {
    name: "loops",
    actions: {
      ...actorActions(() => host, runtime),
      /** A message of another actor (`start`, `cancel`), acknowledged by the answer. */
      deliver: {
        visibility: "public",
        tracing: false,
        handler: validated(loopsDeliver, async (_ctx: Context, { to, input }) => {
          const { execution_id, stream_id } = to;
          const answer = await host?.send({ execution_id, stream_id }, input);
          return { changed: answer?.changed ?? false };
        }),
      },
    },
    created(this: Service) {
      const ports = actorPorts(runtime, this.broker, "loops");
      const broker = this.broker;
      const abort = abortsOf(broker);
      host = createActorHost({
        ...ports,
        machine: loopMachine,
        committed(events: StoredEvent[]) {
          ports.committed(events);
          abort(events);
          for (const event of events) {
            if (event.event_type !== "loop.done") continue;
            const { execution_id, meta } = event;
            void broker.broadcast("loop.done", { execution_id, ...meta }).catch(() => undefined);
          }
        },
      });
      countActors(runtime.metrics, "loops", host);
    },
    async stopped() {
      await host?.stop();
    },
  };
}
