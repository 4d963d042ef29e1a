// One connection to NATS, and the messages of its stream of rings.
import {
  connect,
  JSONCodec,
  type JetStreamClient,
  type JetStreamManager,
  type NatsConnection,
} from "nats";
import { ACTOR_KINDS, type Ring } from "../schemas/decider.ts";
import type { Settings } from "../schemas/env.ts";
import { isWord } from "../schemas/needs.ts";
import { reconcileJetStream, RING_BYTES_MAX, type Changed } from "./jetstream-config.ts";
import type { Pulled } from "./jetstream-pull.ts";
import type { DoorbellCounters } from "./notifications.ts";

const codec = JSONCodec<Ring>();

/** What a doorbell does over one connection, which reconnects by itself. */
export interface Line {
  connection: NatsConnection;
  client: JetStreamClient;
  manager: JetStreamManager;
}

/** Connects, and brings stream and consumers to their configuration. Throws what NATS says. */
export async function openLine(settings: Settings, log: Changed): Promise<Line> {
  const { nats } = settings;
  const connection = await connect({
    servers: (nats.url ?? "").split(","),
    user: nats.user,
    pass: nats.password,
    maxReconnectAttempts: -1,
    reconnectTimeWait: 250,
    pingInterval: 5_000,
    maxPingOut: 2,
    name: "noetl doorbell",
    // An error for each request, made ahead of the failure it would tell of, costs more than the
    // request does; failures say what was asked for themselves.
    noAsyncTraces: true,
  });
  try {
    const manager = await connection.jetstreamManager();
    await reconcileJetStream(manager, settings, log);
    return { connection, client: connection.jetstream(), manager };
  } catch (error) {
    await connection.close();
    throw error;
  }
}

export function encodeRing(ring: Ring): Uint8Array {
  return codec.encode(ring);
}

/** The ring of a message; nothing for one that is none, or that nobody has taken for so long. */
export function readRing(
  { data, redelivered }: Pulled,
  { nats }: Settings,
  counters: DoorbellCounters,
): Ring | undefined {
  if (redelivered >= nats.maxDeliver) {
    counters.given_up += 1;
    return undefined;
  }
  try {
    return ringIn(data);
  } catch {
    counters.malformed += 1;
    return undefined;
  }
}

/** Throws for what is no ring. */
export function ringIn(data: Uint8Array): Ring {
  if (data.length > RING_BYTES_MAX) throw new Error("too large");
  const ring = codec.decode(data);
  const texts = [ring.execution_id, ring.stream_id, ring.command_id, ring.actor, ring.step];
  if (!texts.every(text => typeof text === "string" && text !== "")) throw new Error("no ring");
  if (!(ring.requires ?? []).every(isWord)) throw new Error("no words");
  if (!ACTOR_KINDS.includes(ring.actor)) throw new Error("no actor of ours");
  return ring;
}
