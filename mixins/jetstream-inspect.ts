// What `noetl doctor` asks NATS: what is there, next to what should be. Makes and changes nothing.
import {
  connect,
  type ConsumerConfig,
  type ConsumerInfo,
  type JetStreamManager,
  type NatsConnection,
  type StreamConfig,
  type StreamInfo,
} from "nats";
import { Unavailable } from "../schemas/errors.ts";
import type { Settings } from "../schemas/env.ts";
import { WORK_CLASSES, type WorkClass } from "../schemas/work-class.ts";
import { absent, laneOf, wantedConsumer, wantedStream } from "./jetstream-config.ts";

export interface Inspected<Config, State> {
  /** As the settings want it. */
  wanted: Partial<Config>;
  /** As the broker has it; undefined where there is none. */
  found: { config: Config; state: State } | undefined;
}

export interface JetStreamReport {
  /** Of the nats-server that answered. */
  version: string;
  rtt_ms: number;
  /** undefined when the server runs without JetStream. */
  stream: Inspected<StreamConfig, StreamInfo["state"]> | undefined;
  /** One for each class of work. */
  consumers: InspectedConsumer[];
}

export interface InspectedConsumer extends Inspected<ConsumerConfig, ConsumerCounts> {
  name: string;
}

export type ConsumerCounts = Pick<
  ConsumerInfo,
  "num_pending" | "num_ack_pending" | "num_redelivered" | "num_waiting"
>;

const ANSWER_MS = 5_000;

/**
 * Connects once, without coming back, and reads. Throws Unavailable when no server answers in time
 * or lets us in.
 */
export async function inspectJetStream(settings: Settings): Promise<JetStreamReport> {
  const connection = await connectOnce(settings);
  try {
    const version = connection.info?.version ?? "0";
    const rtt_ms = await connection.rtt();
    const manager = await connection.jetstreamManager({ checkAPI: false, timeout: ANSWER_MS });
    const there = await hasJetStream(manager);
    if (!there) return { version, rtt_ms, stream: undefined, consumers: [] };
    const [stream, ...consumers] = await Promise.all([
      inspectStream(manager, settings),
      ...WORK_CLASSES.map(workClass => inspectConsumer(manager, settings, workClass)),
    ]);
    return { version, rtt_ms, stream, consumers };
  } finally {
    await connection.close();
  }
}

/** Whether NATS lets us in: for those whose own client tries for ever. Throws Unavailable. */
export async function reachNats(settings: Settings): Promise<void> {
  await (await connectOnce(settings)).close();
}

/** A connection for a look: one try, no reconnects. Throws Unavailable. */
async function connectOnce({ nats }: Settings): Promise<NatsConnection> {
  const servers = (nats.url ?? "").split(",").map(server => server.trim());
  try {
    return await connect({
      servers,
      user: nats.user,
      pass: nats.password,
      reconnect: false,
      timeout: ANSWER_MS,
      name: "noetl doctor",
    });
  } catch (error) {
    const { code, message } = error as { code?: string; message: string };
    throw new Unavailable(`NATS cannot be reached: ${REASONS[code ?? ""] ?? message}`);
  }
}

/** Codes of the client, in words. */
const REASONS: Record<string, string> = {
  CONNECTION_REFUSED: "nothing listens there",
  TIMEOUT: "no answer in time",
  AUTHORIZATION_VIOLATION: "the user or password is refused",
  AUTHENTICATION_EXPIRED: "the credentials have expired",
};

/** Without JetStream nobody answers its API (503). */
async function hasJetStream(manager: JetStreamManager): Promise<boolean> {
  try {
    await manager.getAccountInfo();
    return true;
  } catch (error) {
    const { code, api_error } = error as { code?: string; api_error?: { code?: number } };
    // 503: no responders; 10039 and 10076 mean that the account or the server has it off.
    if (code === "503" || api_error?.code === 503) return false;
    throw new Unavailable(`JetStream does not answer: ${(error as Error).message}`);
  }
}

async function inspectStream(manager: JetStreamManager, settings: Settings) {
  const info = await manager.streams.info(settings.nats.stream).catch(absent);
  const found = info && { config: info.config, state: info.state };
  return { wanted: wantedStream(settings), found };
}

async function inspectConsumer(
  manager: JetStreamManager,
  settings: Settings,
  workClass: WorkClass,
): Promise<InspectedConsumer> {
  const { stream } = settings.nats;
  const { consumer: name } = laneOf(settings, workClass);
  const wanted = wantedConsumer(settings, workClass);
  const info = await manager.consumers.info(stream, name).catch(absent);
  if (!info) return { name, wanted, found: undefined };
  const { num_pending, num_ack_pending, num_redelivered, num_waiting } = info;
  const state = { num_pending, num_ack_pending, num_redelivered, num_waiting };
  return { name, wanted, found: { config: info.config, state } };
}
