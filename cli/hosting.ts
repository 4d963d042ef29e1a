/** How our services live in a broker: they start with it, or now, and they end before it does. */
import type { Service, ServiceBroker, ServiceSchema } from "moleculer";
import { nearOnly } from "../mixins/near-only.ts";
import { Rejected } from "../schemas/errors.ts";

/** Services of a broker that runs already are known to it within this, milliseconds. */
const KNOWN_WITHIN_MS = 10_000;
const LOOK_MS = 10;

export interface Housing {
  /** A broker of ours is started here and stopped at the end; a host's app does that itself. */
  ours: boolean;
  /** Before any service of the broker stops: running work ends while its targets are there. */
  leaving(): Promise<void>;
  /** When all services have stopped. */
  left(): Promise<void>;
}

export interface Housed {
  /** Ends our services; those of a host go on without them. Repeatable. */
  end(): Promise<void>;
}

/**
 * Creates the services. In a broker that runs, and in one of ours, they have started when this
 * resolves; when one cannot, none is left and its error is thrown.
 * Throws Rejected 409 when the broker has a service of such a name.
 */
export async function house(
  broker: ServiceBroker,
  schemas: readonly ServiceSchema[],
  { ours, leaving, left }: Housing,
): Promise<Housed> {
  refuseTaken(broker, schemas);
  const runs = broker.started || broker.servicesStarting;
  const guests = schemas.map(schema => observed(nearOnly(schema)));
  const services: Service[] = [];
  async function end(): Promise<void> {
    if (ours) return broker.stop();
    for (const service of services.splice(0)) await broker.destroyService(service);
  }
  try {
    for (const { schema } of guests) services.push(broker.createService(schema));
    if (ours) await broker.start();
    else if (runs) await known(broker, guests);
  } catch (error) {
    await end().catch(() => undefined);
    throw error;
  }
  broker.middlewares.add({
    name: "noetl",
    // A hook that throws would keep the services of the host from being stopped.
    stopping: () => leaving().catch((error: unknown) => complain(broker, error)),
    stopped: () => {
      services.length = 0;
      return left().catch((error: unknown) => complain(broker, error));
    },
  });
  return { end };
}

function complain(broker: ServiceBroker, err: unknown): void {
  broker.logger.error({ err }, "noetl.stop_failed");
}

function refuseTaken(broker: ServiceBroker, schemas: readonly ServiceSchema[]): void {
  const ours = schemas.map(({ name }) => name);
  const taken = broker.services.find(({ name }) => ours.includes(name));
  if (!taken) return;
  const message = `this broker has a service '${taken.name}' already`;
  const hint = `NoETL brings ${ours.join(", ")}: give it a broker of its own, or rename yours`;
  throw new Rejected(`${message}; ${hint}`, 409);
}

interface Guest {
  schema: ServiceSchema;
  started: Promise<void>;
}

/** A broker that runs tells nobody that a service could not start: its `started` is watched. */
function observed(original: ServiceSchema): Guest {
  const { promise: started, resolve, reject } = Promise.withResolvers<void>();
  // Nobody waits for it while the broker is not started: its own start throws the error then.
  started.catch(() => undefined);
  const schema: ServiceSchema = {
    ...original,
    async started(this: Service) {
      try {
        for (const hook of [original.started ?? []].flat()) await hook.call(this);
        resolve();
      } catch (error) {
        reject(error);
        throw error;
      }
    },
  };
  return { schema, started };
}

async function known(broker: ServiceBroker, guests: readonly Guest[]): Promise<void> {
  await Promise.all(guests.map(({ started }) => started));
  const names = guests.map(({ schema }) => schema.name);
  await broker.waitForServices(names, KNOWN_WITHIN_MS, LOOK_MS);
}
