// The worker's door: what owners and operators may ask it.
import type { Context, Service, ServiceBroker, ServiceSchema } from "moleculer";
import { EventSender } from "../../mixins/event-sender.ts";
import type { Runtime } from "../../mixins/runtime.ts";
import { ServerLink } from "../../mixins/server-link.ts";
import { workerAbort, workerHolds, workerTake } from "../../schemas/actor-requests.ts";
import { validated } from "../../schemas/requests.ts";
import { countWork } from "./count.ts";
import { countGates } from "./gate/count.ts";
import { Worker } from "./worker.ts";

/** The service `worker` over a process's runtime. */
export default function workerService(runtime: Runtime): ServiceSchema {
  let worker: Worker;
  let link: ServerLink;

  return {
    name: "worker",
    actions: {
      /** Stops taking work and resolves when none is left. Repeatable. */
      drain: { visibility: "protected", handler: () => worker.drain() },
      /** Of these commands, those this incarnation holds: an owner asks when a lease has passed. */
      holds: {
        visibility: "public",
        tracing: false,
        handler: validated(workerHolds, (_ctx: Context, { incarnation, command_ids }) =>
          worker.holds(incarnation, command_ids),
        ),
      },
      /** Commands that are this worker's unasked, as it has room: answers which it takes. */
      take: {
        visibility: "public",
        tracing: false,
        handler: validated(workerTake, (_ctx: Context, p) => worker.taker.take(p)),
      },
      /** Ends the work of cancelled commands; answers how many of them were running here. */
      abort: {
        visibility: "public",
        tracing: false,
        handler: validated(workerAbort, (_ctx: Context, { command_ids }) => ({
          aborted: worker.abort(command_ids),
        })),
      },
      /** This worker's identity, slots and counters. */
      info: { visibility: "public", handler: () => worker.info() },
    },
    created(this: Service) {
      link = linkOf(runtime, this.broker, () => worker.offers);
      worker = new Worker(runtime, this, link);
      countWork(runtime.metrics, worker);
      countGates(runtime.metrics, worker.gates);
    },
    started: () => worker.start(),
    async stopped() {
      await worker.drain();
      await link.close();
    },
  };
}

/** The way to the servers, with the transport of outcomes that the settings name. */
function linkOf(runtime: Runtime, broker: ServiceBroker, offers: () => string[]): ServerLink {
  const { settings, doorbell, nats, results } = runtime;
  const { transport } = settings.events;
  const sender = nats && new EventSender({ nats, settings, results });
  const { http } = settings;
  return new ServerLink({ broker, http, doorbell, offers, events: { transport, sender } });
}
