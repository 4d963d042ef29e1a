// What the stream of rings and its consumers should be, and how they are brought to it, in place.
// Each class of work has a subject and a consumer of its own: what waits in one holds up no other.
import { createHash } from "node:crypto";
import {
  AckPolicy,
  DeliverPolicy,
  DiscardPolicy,
  RetentionPolicy,
  StorageType,
  type ConsumerConfig,
  type ConsumerInfo,
  type JetStreamManager,
  type StreamConfig,
} from "nats";
import { Rejected } from "../schemas/errors.ts";
import type { Settings } from "../schemas/env.ts";
import { WORK_CLASSES, type WorkClass } from "../schemas/work-class.ts";

/** Rings are ids; one that is larger is not ours. */
export const RING_BYTES_MAX = 4_096;
/** Rings are kept this long: Postgres rings again whatever is still waiting. */
const RING_AGE_NS = 24 * 3_600 * 1e9;
const ACK_WAIT_NS = 30 * 1e9;
/** So long the stream knows a ring again: JetStream's own default. */
export const RING_SAME_MS = 120_000;

/** What a start changed: for its log. */
export type Changed = (fields: object, message: string) => void;

/** Names of one class of work: the contract's own ones are those of general work. */
export function laneOf({ nats }: Settings, workClass: WorkClass) {
  return workClass === "general"
    ? { subject: nats.subject, consumer: nats.consumer }
    : { subject: `${nats.subject}.db`, consumer: `${nats.consumer}_db` };
}

/** Names of one class of work that is for one worker. */
export function ownLaneOf(settings: Settings, workClass: WorkClass, workerId: string) {
  const { nats } = settings;
  const token = tokenOf(workerId);
  const end =
    workClass === "general" ? { subject: "", consumer: "" } : { subject: ".db", consumer: "_db" };
  return {
    subject: `${nats.subject}.to.${token}${end.subject}`,
    consumer: `${nats.consumer}_of_${token}${end.consumer}`,
  };
}

/** Where one worker hears that its lanes hold something; no stream keeps it. */
export function knockSubject({ nats }: Settings, workerId: string): string {
  return `${nats.subject}.knock.${tokenOf(workerId)}`;
}

/** A name as one token of a subject, and as a part of a consumer's name. */
function tokenOf(name: string): string {
  const plain = name.replaceAll(/[^A-Za-z0-9-]/g, "-").slice(0, 40);
  const hash = createHash("sha256").update(name).digest("hex").slice(0, 12);
  return `${plain}-${hash}`;
}

/** NATS forgets the consumers of a worker that has not asked for so long. */
const OWN_KEPT_NS = 600 * 1e9;

/**
 * Makes the consumers of one worker where they are not. They begin with what is rung from now on:
 * whatever was rung before is offered to all by now.
 */
export async function addOwnConsumers(
  manager: JetStreamManager,
  settings: Settings,
  workerId: string,
): Promise<void> {
  const { stream } = settings.nats;
  for (const workClass of WORK_CLASSES) {
    const { subject, consumer } = ownLaneOf(settings, workClass, workerId);
    const look = () => manager.consumers.info(stream, consumer);
    if (await look().catch(absent)) continue;
    const wanted = {
      ...wantedConsumer(settings, workClass),
      ...{ durable_name: consumer, filter_subject: subject, inactive_threshold: OWN_KEPT_NS },
    };
    await manager.consumers.add(stream, wanted).catch(raced(look));
  }
}

/** The stream of rings as these settings want it. */
export function wantedStream(settings: Settings): Partial<StreamConfig> & { name: string } {
  return {
    name: settings.nats.stream,
    subjects: [
      ...WORK_CLASSES.map(workClass => laneOf(settings, workClass).subject),
      `${settings.nats.subject}.to.>`,
    ],
    retention: RetentionPolicy.Limits,
    storage: StorageType.File,
    discard: DiscardPolicy.Old,
    max_age: RING_AGE_NS,
    max_msg_size: RING_BYTES_MAX,
    duplicate_window: RING_SAME_MS * 1e6,
  };
}

/**
 * The consumer of a class that the workers share, as these settings want it. One that is made anew
 * begins with what is rung from now on: Postgres rings again whatever waits (design §10).
 */
export function wantedConsumer(settings: Settings, workClass: WorkClass) {
  const { subject, consumer } = laneOf(settings, workClass);
  return {
    durable_name: consumer,
    ack_policy: AckPolicy.Explicit,
    deliver_policy: DeliverPolicy.New,
    filter_subject: subject,
    ack_wait: ACK_WAIT_NS,
    max_ack_pending: settings.worker.maxAckPending,
    max_deliver: -1,
  } satisfies Partial<ConsumerConfig>;
}

/**
 * Brings stream and consumers to their configuration, in place; never deletes them. What is another
 * start's at the same time is taken as it comes. Throws Rejected 409 with the remedy for what
 * cannot be changed in place.
 */
export async function reconcileJetStream(
  manager: JetStreamManager,
  settings: Settings,
  changed: Changed = () => undefined,
): Promise<void> {
  await reconcileStream(manager, settings, changed);
  for (const workClass of WORK_CLASSES) {
    await reconcileConsumer(manager, settings, workClass, changed);
  }
}

/**
 * Makes what has vanished, and changes nothing: of two fleets with other settings each would undo
 * what the other one does. Says whether anything was missing.
 */
export async function restoreJetStream(
  manager: JetStreamManager,
  settings: Settings,
): Promise<boolean> {
  const { stream } = settings.nats;
  let isMissing = false;
  if (!(await manager.streams.info(stream).catch(absent))) {
    isMissing = true;
    await addStream(manager, settings);
  }
  for (const workClass of WORK_CLASSES) {
    const { consumer } = laneOf(settings, workClass);
    if (await manager.consumers.info(stream, consumer).catch(absent)) continue;
    isMissing = true;
    await addConsumer(manager, settings, workClass);
  }
  return isMissing;
}

async function reconcileStream(
  manager: JetStreamManager,
  settings: Settings,
  changed: Changed,
): Promise<void> {
  const { stream } = settings.nats;
  const wanted = wantedStream(settings);
  const found =
    (await manager.streams.info(stream).catch(absent)) ?? (await addStream(manager, settings));
  const { config } = found;
  const unfit = unfitStream(config);
  if (unfit) {
    throw new Rejected(
      `stream ${stream} ${unfit}: remove it with 'nats stream rm ${stream}' ` +
        `(its rings come again from Postgres) and start anew`,
      409,
    );
  }
  const subjects = [...new Set([...config.subjects, ...(wanted.subjects ?? [])])];
  const isTooSmall = config.max_msg_size >= 0 && config.max_msg_size < RING_BYTES_MAX;
  if (subjects.length === config.subjects.length && !isTooSmall) return;
  const changes = { subjects, ...(isTooSmall && { max_msg_size: RING_BYTES_MAX }) };
  await manager.streams.update(stream, changes).catch(overlapping(subjects));
  changed({ stream, ...changes }, "doorbell.stream_changed");
}

/** What cannot be changed in place and does not serve, in words. */
function unfitStream(config: StreamConfig): string | undefined {
  if (config.retention !== RetentionPolicy.Limits) {
    return `has retention '${config.retention}', expected 'limits'`;
  }
  if (config.mirror) return "is a mirror of another one and takes no rings";
  return config.sealed ? "is sealed and takes no rings" : undefined;
}

async function reconcileConsumer(
  manager: JetStreamManager,
  settings: Settings,
  workClass: WorkClass,
  changed: Changed,
): Promise<void> {
  const { stream } = settings.nats;
  const { consumer } = laneOf(settings, workClass);
  const wanted = wantedConsumer(settings, workClass);
  const found =
    (await manager.consumers.info(stream, consumer).catch(absent)) ??
    (await addConsumer(manager, settings, workClass));
  const { config } = found;
  const unfit = unfitConsumer(config);
  if (unfit) {
    throw new Rejected(
      `consumer ${consumer} of ${stream} ${unfit}: remove it with 'nats consumer rm ${stream} ` +
        `${consumer}' (waiting rings come again from Postgres) and start anew`,
      409,
    );
  }
  const changes = differences(config, wanted);
  if (Object.keys(changes).length === 0) return;
  await manager.consumers.update(stream, consumer, changes);
  const before = Object.fromEntries(
    Object.keys(changes).map(key => [key, config[key as keyof ConsumerConfig]]),
  );
  changed({ consumer, before, after: changes }, "doorbell.consumer_changed");
}

/** Of a consumer that workers cannot pull and acknowledge from, in words. */
function unfitConsumer(config: ConsumerConfig): string | undefined {
  if (config.deliver_subject !== undefined) return "pushes, and workers pull";
  if (config.ack_policy === AckPolicy.Explicit) return undefined;
  return `has ack_policy '${config.ack_policy}', expected '${AckPolicy.Explicit}'`;
}

type Kept = "max_ack_pending" | "ack_wait" | "max_deliver" | "filter_subject";

/** Fields that a consumer can be given while it works. */
export function differences(
  config: ConsumerConfig,
  wanted: Pick<ConsumerConfig, Kept>,
): Partial<ConsumerConfig> {
  const keys = ["max_ack_pending", "ack_wait", "max_deliver", "filter_subject"] as const;
  const entries = keys.filter(key => config[key] !== wanted[key]).map(key => [key, wanted[key]]);
  return Object.fromEntries(entries) as Partial<ConsumerConfig>;
}

async function addStream(manager: JetStreamManager, settings: Settings) {
  const wanted = wantedStream(settings);
  const look = () => manager.streams.info(wanted.name);
  return manager.streams
    .add(wanted)
    .catch(raced(look))
    .catch(overlapping(wanted.subjects ?? []));
}

async function addConsumer(
  manager: JetStreamManager,
  settings: Settings,
  workClass: WorkClass,
): Promise<ConsumerInfo> {
  const { stream } = settings.nats;
  const wanted = wantedConsumer(settings, workClass);
  return manager.consumers
    .add(stream, wanted)
    .catch(raced(() => manager.consumers.info(stream, wanted.durable_name)));
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

/** "subjects overlap with an existing stream" of the JetStream API. */
const OVERLAPS = 10_065;

function overlapping(subjects: string[]): (error: unknown) => never {
  return error => {
    const code = (error as { api_error?: { err_code?: number } }).api_error?.err_code;
    if (code !== OVERLAPS) throw error;
    throw new Rejected(
      `another stream of this NATS takes ${subjects.join(" or ")}: name it in NATS_STREAM, or ` +
        `give these rings a NATS_SUBJECT of their own`,
      409,
    );
  };
}
