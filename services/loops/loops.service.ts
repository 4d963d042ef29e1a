// Loops: one stream per activation of a loop step.
import type { Context, Service, ServiceSchema } from "moleculer";
import { createActorHost, type ActorHost } from "../../mixins/actor.ts";
import { actorActions, actorPorts } from "../../mixins/actor-service.ts";
import type { Runtime } from "../../mixins/runtime.ts";
import type { Address } from "../../schemas/decider.ts";
import type { StoredEvent } from "../../schemas/events.ts";
import { loopMachine, type LoopAnswer, type LoopInput } from "./machine.ts";

/** The service `loops` over a process's runtime. */
export default function loopsService(runtime: Runtime): ServiceSchema {
  let host: ActorHost<LoopInput, LoopAnswer> | undefined;

  return {
    name: "loops",
    actions: {
      ...actorActions(() => host),
      /** A message of another actor (`start`, `cancel`), acknowledged by the answer. */
      deliver: {
        visibility: "public",
        tracing: false,
        async handler(ctx: Context<{ to: Address; input: LoopInput }>) {
          const { execution_id, stream_id } = ctx.params.to;
          const answer = await host?.send({ execution_id, stream_id }, ctx.params.input);
          return { changed: answer?.changed ?? false };
        },
      },
    },
    created(this: Service) {
      const ports = actorPorts(runtime, this.broker, "loops");
      const broker = this.broker;
      host = createActorHost({
        ...ports,
        machine: loopMachine,
        committed(events: StoredEvent[]) {
          ports.committed(events);
          for (const event of events) {
            if (event.event_type !== "loop.done") continue;
            const { execution_id, meta } = event;
            void broker.broadcast("loop.done", { execution_id, ...meta }).catch(() => undefined);
          }
        },
      });
    },
    async stopped() {
      await host?.stop();
    },
  };
}
