// The doorbell over JetStream: one stream of rings, one durable pull consumer for the pool of
// workers.
import { randomUUID } from "node:crypto";
import {
  AckPolicy,
  connect,
  DeliverPolicy,
  DiscardPolicy,
  JSONCodec,
  RetentionPolicy,
  StorageType,
  type ConsumerConfig,
  type JetStreamClient,
  type JetStreamManager,
  type JsMsg,
  type NatsConnection,
  type PullOptions,
  type StreamConfig,
} from "nats";
import type { Ring } from "../schemas/decider.ts";
import { Rejected } from "../schemas/errors.ts";
import type { Settings } from "../schemas/env.ts";
import type { Doorbell, Rung } from "./notifications.ts";

/** Rings are ids; one that is larger is not ours. */
const RING_BYTES_MAX = 4_096;
/** Rings are kept this long: Postgres rings again whatever is still waiting. */
const RING_AGE_NS = 24 * 3_600 * 1e9;
const ACK_WAIT_NS = 30 * 1e9;
/** A pull that waits, and the one that takes what is there. */
const WAIT_MS = 5_000;
const RETRY_MS = 1_000;

export interface JetStreamCounters {
  rung: number;
  /** Rings the broker did not take: rung again when their stream is woken. */
  lost: number;
  /** Messages that are no rings: acknowledged and dropped. */
  malformed: number;
}

export interface JetStreamDoorbell extends Doorbell {
  readonly counters: JetStreamCounters;
  close(): Promise<void>;
}

const codec = JSONCodec<Ring>();

/**
 * Connects, and brings stream and consumer to their configuration, in place; never deletes them.
 * Refuses a stream whose retention cannot serve (Rejected with the remedy).
 */
export async function openJetStream(
  settings: Settings,
  log: (fields: object, message: string) => void,
): Promise<JetStreamDoorbell> {
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
  });
  const manager = await connection.jetstreamManager();
  const reconcile = () => reconcileAll(manager, settings);
  await reconcile();
  return new PullDoorbell(connection, settings, reconcile, log);
}

class PullDoorbell implements JetStreamDoorbell {
  readonly counters = { rung: 0, lost: 0, malformed: 0 };
  readonly #connection: NatsConnection;
  readonly #client: JetStreamClient;
  readonly #settings: Settings;
  readonly #reconcile: () => Promise<void>;
  readonly #log: (fields: object, message: string) => void;
  /** Tells this process's rings from every other's: none is taken for a duplicate of another. */
  readonly #bell = randomUUID();
  #rings = 0;
  #repairing: Promise<void> | undefined;

  constructor(
    connection: NatsConnection,
    settings: Settings,
    reconcile: () => Promise<void>,
    log: (fields: object, message: string) => void,
  ) {
    this.#connection = connection;
    this.#client = connection.jetstream();
    this.#settings = settings;
    this.#reconcile = reconcile;
    this.#log = log;
  }

  /** Others' rings are the broker's to count: nothing is known to wait here. */
  waiting(): number {
    return 0;
  }

  /** A re-ring has an id of its own, or the broker would take it for a duplicate. */
  ring(ring: Ring): void {
    this.#rings += 1;
    const msgID = `${ring.command_id}:${ring.delivery}:${this.#bell}-${this.#rings}`;
    this.#client.publish(this.#settings.nats.subject, codec.encode(ring), { msgID }).then(
      () => {
        this.counters.rung += 1;
      },
      (error: unknown) => this.#lost(error),
    );
  }

  #lost(error: unknown): void {
    this.counters.lost += 1;
    if (this.counters.lost % 100 === 1)
      this.#log({ err: error, lost: this.counters.lost }, "ring.lost");
    void this.#repair();
  }

  async fetch(max: number, signal: AbortSignal): Promise<Rung[]> {
    while (!signal.aborted) {
      try {
        const there = await this.#pull({ batch: max, no_wait: true }, signal);
        if (there.length > 0) return there;
        const first = await this.#pull({ batch: 1, expires: WAIT_MS }, signal);
        if (first.length > 0) return first;
        // A pull on a consumer that is gone is only silent: an idle worker looks for it.
        await this.#repair();
      } catch (error) {
        this.#log({ err: error }, "doorbell.pull_failed");
        await this.#repair();
        await new Promise(resolve => setTimeout(resolve, RETRY_MS));
      }
    }
    return [];
  }

  async #pull(options: Partial<PullOptions>, signal: AbortSignal): Promise<Rung[]> {
    const { stream, consumer } = this.#settings.nats;
    const rungs: Rung[] = [];
    const messages = this.#client.fetch(stream, consumer, options);
    const stop = () => messages.stop();
    signal.addEventListener("abort", stop, { once: true });
    try {
      for await (const message of messages) {
        const ring = this.#read(message);
        if (ring) rungs.push({ ...ring, ack: () => message.ack() });
        else message.ack();
      }
    } finally {
      signal.removeEventListener("abort", stop);
    }
    return rungs;
  }

  #read(message: JsMsg): Ring | undefined {
    try {
      if (message.data.length > RING_BYTES_MAX) throw new Error("too large");
      const ring = codec.decode(message.data);
      const texts = [ring.execution_id, ring.stream_id, ring.command_id, ring.actor, ring.step];
      if (!texts.every(text => typeof text === "string" && text !== "")) throw new Error("no ring");
      if (ring.actor !== "executions" && ring.actor !== "loops")
        throw new Error("no actor of ours");
      return ring;
    } catch {
      this.counters.malformed += 1;
      return undefined;
    }
  }

  /** A vanished stream or consumer is made again; what it held is rung again from Postgres. */
  #repair(): Promise<void> {
    this.#repairing ??= this.#reconcile()
      .catch((error: unknown) => this.#log({ err: error }, "doorbell.absent"))
      .finally(() => {
        this.#repairing = undefined;
      });
    return this.#repairing;
  }

  close(): Promise<void> {
    return this.#connection.drain();
  }
}

async function reconcileAll(manager: JetStreamManager, settings: Settings): Promise<void> {
  await reconcileStream(manager, settings);
  await reconcileConsumer(manager, settings);
}

async function reconcileStream(manager: JetStreamManager, { nats }: Settings): Promise<void> {
  const wanted: Partial<StreamConfig> & { name: string } = {
    name: nats.stream,
    subjects: [nats.subject],
    retention: RetentionPolicy.Limits,
    storage: StorageType.File,
    discard: DiscardPolicy.Old,
    max_age: RING_AGE_NS,
    max_msg_size: RING_BYTES_MAX,
  };
  const found = await manager.streams.info(nats.stream).catch(absent);
  if (!found) {
    await manager.streams.add(wanted).catch(raced(() => manager.streams.info(nats.stream)));
    return;
  }
  const { config } = found;
  if (config.retention !== RetentionPolicy.Limits) {
    throw new Rejected(
      `stream ${nats.stream} has retention '${config.retention}', expected 'limits': remove it ` +
        `with 'nats stream rm ${nats.stream}' (its rings come again from Postgres) and start anew`,
      409,
    );
  }
  const subjects = [...new Set([...config.subjects, nats.subject])];
  if (subjects.length !== config.subjects.length)
    await manager.streams.update(nats.stream, { subjects });
}

async function reconcileConsumer(manager: JetStreamManager, settings: Settings): Promise<void> {
  const { stream, consumer, subject } = settings.nats;
  const wanted: Partial<ConsumerConfig> = {
    durable_name: consumer,
    ack_policy: AckPolicy.Explicit,
    deliver_policy: DeliverPolicy.All,
    filter_subject: subject,
    ack_wait: ACK_WAIT_NS,
    max_ack_pending: settings.worker.maxAckPending,
    max_deliver: -1,
  };
  const found = await manager.consumers.info(stream, consumer).catch(absent);
  if (!found) {
    await manager.consumers
      .add(stream, wanted)
      .catch(raced(() => manager.consumers.info(stream, consumer)));
    return;
  }
  const { max_ack_pending, ack_wait, max_deliver } = found.config;
  const same =
    max_ack_pending === wanted.max_ack_pending &&
    ack_wait === wanted.ack_wait &&
    max_deliver === -1;
  if (!same) {
    const { ack_wait: wait, max_ack_pending: pending } = wanted;
    await manager.consumers.update(stream, consumer, {
      ack_wait: wait,
      max_ack_pending: pending,
      max_deliver: -1,
    });
  }
}

/** 404 of the JetStream API: not there. Anything else is thrown. */
function absent(error: unknown): undefined {
  const code = (error as { api_error?: { code?: number }; code?: string }).api_error?.code;
  if (code === 404) return undefined;
  throw error;
}

/** Another process made it first: then it must be there now. */
function raced<T>(look: () => Promise<T>): (error: unknown) => Promise<T> {
  return async error => {
    try {
      return await look();
    } catch {
      throw error;
    }
  };
}
