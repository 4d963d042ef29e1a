// The door of an actor that runs one activation of a loop step: a loop, or a fan-out.
import type { Context, Service, ServiceSchema } from "moleculer";
import type { z } from "zod";
import { createActorHost, type ActorHost } from "./actor.ts";
import { countActors } from "./actor-metrics.ts";
import { actorActions, actorPorts } from "./actor-service.ts";
import { abortsOf } from "./cancelled-work.ts";
import type { Runtime } from "./runtime.ts";
import type { Address, Machine } from "../schemas/decider.ts";
import type { StoredEvent } from "../schemas/events.ts";
import type { Grant } from "../schemas/frozen-scope.ts";
import { validated } from "../schemas/requests.ts";

interface Kind<State, Input extends { type: string }, Answer> {
  name: "loops" | "fanout";
  machine: Machine<State, Input, Answer>;
  /** What its execution may tell it. */
  deliver: z.ZodType<{ to: Address; input: Input }>;
  /** The fact that ends it: told to every service that listens, as `loop.done`. */
  end: "loop.done" | "loop.fanin.completed";
}

/** The service of one kind over a process's runtime. */
export function loopService<
  State,
  Input extends { type: string },
  Answer extends { changed: boolean; grant?: Grant },
>(runtime: Runtime, { name, machine, deliver, end }: Kind<State, Input, Answer>): ServiceSchema {
  let host: ActorHost<Input, Answer, State> | undefined;

  return {
    name,
    actions: {
      ...actorActions(() => host, runtime),
      /** A message of another actor (`start`, `cancel`), acknowledged by the answer. */
      deliver: {
        visibility: "public",
        tracing: false,
        handler: validated(deliver, async (_ctx: Context, { to, input }) => {
          const { execution_id, stream_id } = to;
          const answer = await host?.send({ execution_id, stream_id }, input);
          return { changed: answer?.changed ?? false };
        }),
      },
    },
    created(this: Service) {
      const { broker } = this;
      const ports = actorPorts(runtime, broker, name);
      const abort = abortsOf(broker);
      const made = createActorHost({
        ...ports,
        machine,
        committed(events: StoredEvent[]) {
          ports.committed(events);
          abort(events);
          for (const { event_type, execution_id, meta } of events) {
            if (event_type !== end) continue;
            void broker.broadcast("loop.done", { execution_id, ...meta }).catch(() => undefined);
          }
        },
      });
      host = made;
      countActors(runtime.metrics, name, made);
    },
    async stopped() {
      await host?.stop();
    },
  };
}
