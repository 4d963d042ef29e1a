// The stream of workers' events: its configuration, and what one message of it holds.
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
import type { Settings } from "../schemas/env.ts";
import { Rejected } from "../schemas/errors.ts";
import type { ResultReference } from "../schemas/events.ts";
import { absent, raced } from "./jetstream-config.ts";

/** One message with its headers (S-195), and what is left of it for the events themselves. */
const MESSAGE_BYTES_MAX = 65_536;
export const EVENTS_BYTES_MAX = 61_440;
/** Longer than an outage may take (E-18). What is older its worker has told by another way. */
const AGE_NS = 72 * 3_600 * 1e9;
/** The same message within this is stored once. */
const DUPLICATE_NS = 120 * 1e9;
/** A server that has not settled a message in this time is thought to be gone. */
const ACK_WAIT_NS = 30 * 1e9;
/** The durable consumer that all servers share. */
export const EVENT_CONSUMER = "noetl_event_ingest";
/** Names the subject on which whoever published a message waits for the replies. */
export const ANSWER_TO = "Noetl-Answer-To";

/** Events as `POST /api/events/batch` takes them; behind a reference where they are too large. */
export type EventMessage = { events: unknown[] } | { reference: ResultReference };

/** Where the events of an execution go. */
export function eventSubject({ events }: Pick<Settings, "events">, executionId: string): string {
  return `${events.subjectPrefix}.${executionId}`;
}

/** The stream as these settings want it: limits, so that others may read along (E-16). */
export function wantedEventStream({
  events,
}: Pick<Settings, "events">): Partial<StreamConfig> & { name: string } {
  return {
    name: events.stream,
    subjects: [`${events.subjectPrefix}.*`],
    retention: RetentionPolicy.Limits,
    storage: StorageType.File,
    discard: DiscardPolicy.Old,
    max_age: AGE_NS,
    max_bytes: events.streamMaxBytes,
    max_msg_size: MESSAGE_BYTES_MAX,
    duplicate_window: DUPLICATE_NS,
  };
}

export function wantedEventConsumer({ events }: Pick<Settings, "events">): Partial<ConsumerConfig> {
  return {
    durable_name: EVENT_CONSUMER,
    ack_policy: AckPolicy.Explicit,
    deliver_policy: DeliverPolicy.All,
    ack_wait: ACK_WAIT_NS,
    max_ack_pending: events.ingestMax,
    max_deliver: -1,
  };
}

/**
 * Makes stream and consumer where they are not, and widens their limits in place; never deletes
 * them. Throws Rejected, with the remedy, for a stream whose retention cannot serve.
 */
export async function reconcileEventStream(
  manager: JetStreamManager,
  settings: Pick<Settings, "events">,
): Promise<void> {
  const { stream } = settings.events;
  const wanted = wantedEventStream(settings);
  const look = () => manager.streams.info(stream);
  const found = await look().catch(absent);
  if (!found) await manager.streams.add(wanted).catch(raced(look));
  else await alignStream(manager, wanted, found.config);
  const consumer = wantedEventConsumer(settings);
  const lookAgain = () => manager.consumers.info(stream, EVENT_CONSUMER);
  const there = await lookAgain().catch(absent);
  if (!there) {
    await manager.consumers.add(stream, consumer).catch(raced(lookAgain));
  } else if (there.config.max_ack_pending !== consumer.max_ack_pending) {
    const { max_ack_pending } = consumer;
    await manager.consumers.update(stream, EVENT_CONSUMER, { max_ack_pending });
  }
}

async function alignStream(
  manager: JetStreamManager,
  wanted: ReturnType<typeof wantedEventStream>,
  found: StreamConfig,
): Promise<void> {
  const { name } = wanted;
  if (found.retention !== RetentionPolicy.Limits) {
    throw new Rejected(
      `stream ${name} has retention '${found.retention}', expected 'limits': remove it with ` +
        `'nats stream rm ${name}' (workers tell again what is in it) and start anew`,
      409,
    );
  }
  const subjects = [...new Set([...found.subjects, ...(wanted.subjects ?? [])])];
  const max_bytes = wanted.max_bytes ?? -1;
  if (subjects.length === found.subjects.length && max_bytes === found.max_bytes) return;
  await manager.streams.update(name, { subjects, max_bytes });
}
