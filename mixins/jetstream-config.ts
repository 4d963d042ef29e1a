// What the stream of rings and its consumer should be, and how they are brought to it, in place.
import {
  AckPolicy,
  DeliverPolicy,
  DiscardPolicy,
  RetentionPolicy,
  StorageType,
  type ConsumerConfig,
  type JetStreamManager,
  type StreamConfig,
} from "nats";
import { Rejected } from "../schemas/errors.ts";
import type { Settings } from "../schemas/env.ts";

/** Rings are ids; one that is larger is not ours. */
export const RING_BYTES_MAX = 4_096;
/** Rings are kept this long: Postgres rings again whatever is still waiting. */
const RING_AGE_NS = 24 * 3_600 * 1e9;
const ACK_WAIT_NS = 30 * 1e9;

/**
 * Brings stream and consumer to their configuration, in place; never deletes them. Refuses a
 * stream whose retention cannot serve (Rejected with the remedy).
 */
export async function reconcileJetStream(
  manager: JetStreamManager,
  settings: Settings,
): Promise<void> {
  await reconcileStream(manager, settings);
  await reconcileConsumer(manager, settings);
}

/** The stream of rings as these settings want it. */
export function wantedStream({ nats }: Settings): Partial<StreamConfig> & { name: string } {
  return {
    name: nats.stream,
    subjects: [nats.subject],
    retention: RetentionPolicy.Limits,
    storage: StorageType.File,
    discard: DiscardPolicy.Old,
    max_age: RING_AGE_NS,
    max_msg_size: RING_BYTES_MAX,
  };
}

/** The consumer that the workers share, as these settings want it. */
export function wantedConsumer({ nats, worker }: Settings): Partial<ConsumerConfig> {
  return {
    durable_name: nats.consumer,
    ack_policy: AckPolicy.Explicit,
    deliver_policy: DeliverPolicy.All,
    filter_subject: nats.subject,
    ack_wait: ACK_WAIT_NS,
    max_ack_pending: worker.maxAckPending,
    max_deliver: -1,
  };
}

async function reconcileStream(manager: JetStreamManager, settings: Settings): Promise<void> {
  const { nats } = settings;
  const wanted = wantedStream(settings);
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
  const { stream, consumer } = settings.nats;
  const wanted = wantedConsumer(settings);
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
export function absent(error: unknown): undefined {
  const code = (error as { api_error?: { code?: number }; code?: string }).api_error?.code;
  if (code === 404) return undefined;
  throw error;
}

/** Another process made it first: then it must be there now. */
export function raced<T>(look: () => Promise<T>): (error: unknown) => Promise<T> {
  return async error => {
    try {
      return await look();
    } catch {
      throw error;
    }
  };
}
