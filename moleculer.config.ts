/** Broker wiring from the settings. Nothing else. */
import type { BrokerOptions } from "moleculer";
import { replCommands } from "./cli/repl-commands.ts";
import { brokerLogger } from "./mixins/logging/pino.ts";
import { NatsKvCacher } from "./mixins/cacher/nats-kv.ts";
import { packetGuard } from "./mixins/middleware/packets.ts";
import { PatientNats } from "./mixins/nats-transporter.ts";
import { loadSettings } from "./schemas/env.ts";
import type { Settings } from "./schemas/env.ts";

/**
 * Options of a broker for these settings. Called without any, by `moleculer-runner`, it reads the
 * environment; it is a function so that importing this file reads nothing.
 */
export function brokerOptions(settings: Settings = loadSettings()): BrokerOptions {
  const { node, logging } = settings;
  const transporter = natsTransporter(settings);
  return {
    namespace: node.namespace,
    nodeID: node.id ?? null,
    logger: brokerLogger(logging),
    transporter,
    cacher: natsCacher(settings),
    // Fastest for our small messages; CBOR gains only above 2 KB, and people can read JSON.
    serializer: "JSON",
    // The default is to wait for ever; a lost message must become an error.
    requestTimeout: node.requestTimeoutMs,
    // A dead node is noticed in 6 to 12 s, instead of 30 to 60.
    heartbeatInterval: 2,
    heartbeatTimeout: 6,
    // Calls in flight finish before the process leaves. Off by default in Moleculer.
    tracking: { enabled: true, shutdownTimeout: node.drainMs },
    registry: {
      strategy: "RoundRobin",
      // A tool or a query runs where it is asked when it can. Actors name their node themselves.
      preferLocal: true,
      // Without peers there is nobody to tell before leaving.
      stopDelay: transporter ? 100 : 0,
    },
    // Each costs more than a local call does; turned on by the one who reads them.
    metrics: false,
    tracing: false,
    // `broker.repl()`, of noetl repl and of moleculer-runner --repl.
    replOptions: { delimiter: "noetl $", customCommands: replCommands() },
    middlewares: [packetGuard()],
    // Signals belong to the command line, which drains before it stops.
    skipProcessEventRegistration: true,
  };
}

function natsTransporter({ nats }: Settings): BrokerOptions["transporter"] {
  if (!nats.url) return null;
  return new PatientNats({
    servers: nats.url.split(",").map(server => server.trim()),
    // A NATS that comes back is found at once, however long it was away.
    maxReconnectAttempts: -1,
    reconnectTimeWait: 250,
    ...(nats.user && { user: nats.user }),
    ...(nats.password && { pass: nats.password }),
  });
}

/** One for all nodes of a namespace; without NATS the database is near enough. */
function natsCacher({ nats, node }: Settings): BrokerOptions["cacher"] {
  if (!nats.url || !nats.cache) return null;
  const { user, password } = nats;
  const mark = node.namespace.replace(/[^A-Za-z0-9_-]/g, "_");
  return new NatsKvCacher({
    connection: {
      servers: nats.url.split(",").map(server => server.trim()),
      ...(user && { user }),
      ...(password && { pass: password }),
    },
    bucket: `${nats.cacheBucket}_${mark}`,
  });
}

export default brokerOptions;
