// The doorbell over JetStream: one stream of rings, and for each class of work one durable pull
// consumer for the pool of workers.
import { randomUUID } from "node:crypto";
import { setTimeout as pause } from "node:timers/promises";
import { connect, Events, JSONCodec, type JetStreamClient, type NatsConnection } from "nats";
import { ACTOR_KINDS, type Ring } from "../schemas/decider.ts";
import type { Settings } from "../schemas/env.ts";
import { classOf, type WorkClass } from "../schemas/work-class.ts";
import { backoffMs } from "./clock.ts";
import {
  laneOf,
  reconcileJetStream,
  restoreJetStream,
  RING_BYTES_MAX,
  RING_SAME_MS,
} from "./jetstream-config.ts";
import { pullOnce, type Pulled, type PullWish } from "./jetstream-pull.ts";
import { isNatsAway } from "./nats-away.ts";
import type { Doorbell, LaneCounts, Pull, Rung } from "./notifications.ts";
import { countLanes, PullAnswers } from "./pull-answers.ts";
import { unlessLost } from "./unless-lost.ts";

/** The longest pause between two looks for a NATS that was away at the start. */
const RETRY_MS = 2_000;
/** How long a look at what waits is good for. */
const SEEN_MS = 1_000;
/** A ring that was given back is not offered to the same worker again at once. */
const GIVEN_BACK_MS = 250;

type Log = (fields: object, message: string) => void;

export interface JetStreamDoorbell extends Doorbell {
  close(): Promise<void>;
}

const codec = JSONCodec<Ring>();

/** What a doorbell does over one connection, which reconnects by itself. */
interface Line {
  connection: NatsConnection;
  client: JetStreamClient;
  /** Makes what has vanished. */
  restore(): Promise<boolean>;
  /** Rings of a class that wait in the stream. */
  backlog(workClass: WorkClass): Promise<number>;
  lanes(): Promise<LaneCounts[]>;
}

/**
 * Connects, and brings stream and consumer to their configuration, in place; never deletes them.
 * A NATS that is away is waited for in the background. Throws what waiting does not cure: Rejected
 * with the remedy for a stream whose retention cannot serve, NATS' own error for a refused login.
 */
export async function openJetStream(settings: Settings, log: Log): Promise<JetStreamDoorbell> {
  const doorbell = new PullDoorbell(settings, log);
  await doorbell.open();
  return doorbell;
}

async function openLine(settings: Settings, log: Log): Promise<Line> {
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
  try {
    const manager = await connection.jetstreamManager();
    await reconcileJetStream(manager, settings, log);
    const restore = () => restoreJetStream(manager, settings);
    const backlog = async (workClass: WorkClass) => {
      const { consumer } = laneOf(settings, workClass);
      return (await manager.consumers.info(settings.nats.stream, consumer)).num_pending;
    };
    const lanes = () => countLanes(manager, settings);
    return { connection, client: connection.jetstream(), restore, backlog, lanes };
  } catch (error) {
    await connection.close();
    throw error;
  }
}

class PullDoorbell implements JetStreamDoorbell {
  readonly counters = { rung: 0, lost: 0, malformed: 0, given_up: 0 };
  readonly #settings: Settings;
  readonly #log: Log;
  /** Tells this process's rings from every other's: none is taken for a duplicate of another. */
  readonly #bell = randomUUID();
  readonly #closing = new AbortController();
  #line: Line | undefined;
  #rings = 0;
  /** Rings of each class that were seen to wait, and when. */
  readonly #lanes = { general: { waiting: 0, seenAt: 0 }, database: { waiting: 0, seenAt: 0 } };
  /** Aborted while there is no connection. */
  #lost = new AbortController();
  #opening: Promise<void> = Promise.resolve();
  #repairing: Promise<boolean> | undefined;
  readonly #answers = new PullAnswers();

  constructor(settings: Settings, log: Log) {
    this.#settings = settings;
    this.#log = log;
    this.#lost.abort();
  }

  async open(): Promise<void> {
    try {
      this.#use(await openLine(this.#settings, this.#log));
    } catch (error) {
      if (!isNatsAway(error)) throw error;
      this.#answers.because(error);
      this.#log({ err: error }, "doorbell.away");
      this.#opening = this.#openLater();
    }
  }

  async #openLater(): Promise<void> {
    const { signal } = this.#closing;
    for (let tries = 0; ; tries += 1) {
      await pause(backoffMs(tries, 250, RETRY_MS), undefined, { signal }).catch(() => undefined);
      if (signal.aborted) return;
      try {
        this.#use(await openLine(this.#settings, this.#log));
        return this.#log({ type: "connect" }, "doorbell.connection");
      } catch (error) {
        const isNew = this.#answers.because(error);
        if (!isNatsAway(error) && isNew) this.#log({ err: error }, "doorbell.refused");
      }
    }
  }

  #use(line: Line): void {
    this.#line = line;
    this.#answers.because(undefined);
    this.#lost = new AbortController();
    void this.#follow(line.connection);
  }

  connected(): boolean {
    return !this.#lost.signal.aborted;
  }

  lost(): AbortSignal {
    return this.#lost.signal;
  }

  async #follow(connection: NatsConnection): Promise<void> {
    for await (const { type, permissionContext: refused } of connection.status()) {
      if (refused?.operation === "publish") this.#answers.refused(refused.subject);
      if (type === Events.Disconnect) this.#lost.abort();
      if (type === Events.Disconnect) this.#answers.because(undefined);
      if (type === Events.Reconnect) this.#lost = new AbortController();
      if (type === Events.Disconnect || type === Events.Reconnect) {
        this.#log({ type }, "doorbell.connection");
      }
    }
  }

  /** Others' rings are the broker's to count: nothing is known to wait here. */
  waiting(): number {
    return 0;
  }

  /**
   * A re-ring has an id of its own, or the broker would take it for a duplicate. Which it may while
   * others wait in front of it: else what waits long would fill the stream with its repetitions.
   */
  ring(ring: Ring): void {
    // The client would keep it until NATS is back; by then its stream has been rung again.
    if (!this.#line || !this.connected()) return void (this.counters.lost += 1);
    const workClass = classOf(ring.kind);
    const { subject } = laneOf(this.#settings, workClass);
    const msgID = `${ring.command_id}:${ring.delivery}:${this.#occasion(workClass)}`;
    this.#line.client.publish(subject, codec.encode(ring), { msgID }).then(
      () => {
        this.counters.rung += 1;
      },
      (error: unknown) => this.#ringLost(error),
    );
  }

  #occasion(workClass: WorkClass): string {
    const lane = this.#lanes[workClass];
    const now = Date.now();
    if (now - lane.seenAt > SEEN_MS) {
      lane.seenAt = now;
      void this.#line?.backlog(workClass).then(
        waiting => (lane.waiting = waiting),
        () => (lane.waiting = 0),
      );
    }
    if (lane.waiting > 0) return `w${Math.floor(now / RING_SAME_MS)}`;
    this.#rings += 1;
    return `${this.#bell}-${this.#rings}`;
  }

  #ringLost(error: unknown): void {
    this.counters.lost += 1;
    if (this.counters.lost % 100 === 1)
      this.#log({ err: error, lost: this.counters.lost }, "ring.lost");
    void this.#repair();
  }

  look({ work_class, max }: Pull): Promise<Rung[]> {
    return this.#asked({ ...this.#lane(work_class), batch: max }, []);
  }

  async fetch({ work_class, max }: Pull, signal: AbortSignal): Promise<Rung[]> {
    const { fetchTimeoutMs: expiresMs, fetchHeartbeatMs: heartbeatMs } = this.#settings.worker;
    const wish = { ...this.#lane(work_class), batch: max, wait: { expiresMs, heartbeatMs } };
    const rungs = await this.#asked(wish, [signal]);
    if (rungs.length === 0 && !signal.aborted) await this.#repair();
    return rungs;
  }

  #lane(workClass: WorkClass) {
    const { consumer } = laneOf(this.#settings, workClass);
    return { stream: this.#settings.nats.stream, consumer };
  }

  unanswered(workClass: WorkClass): string | undefined {
    return this.#answers.why(this.#lane(workClass).consumer);
  }

  async lanes(): Promise<LaneCounts[]> {
    const lost = this.lost();
    if (!this.#line || lost.aborted) return [];
    return unlessLost(this.#line.lanes(), lost);
  }

  async #asked(wish: PullWish, ends: AbortSignal[]): Promise<Rung[]> {
    const lost = this.lost();
    const { consumer } = wish;
    if (!this.#line || lost.aborted) {
      this.#answers.failed(consumer, "NATS cannot be reached");
      return [];
    }
    try {
      const { messages, isAnswered } = await pullOnce(this.#line.connection, wish, [...ends, lost]);
      if (isAnswered) this.#answers.answered(consumer);
      return messages.flatMap(message => this.#rungOf(message));
    } catch (error) {
      const isRestored = await this.#repair();
      // What was made again, or comes back with its connection, is judged by the next pull.
      if (isRestored || lost.aborted) return [];
      if (this.#answers.failed(consumer, error)) {
        this.#log({ err: error }, "doorbell.pull_failed");
      }
      return [];
    }
  }

  #rungOf(message: Pulled): Rung[] {
    const ring = this.#read(message);
    if (ring) {
      return [{ ...ring, ack: message.ack, giveBack: () => message.nak(GIVEN_BACK_MS) }];
    }
    message.ack();
    return [];
  }

  /** The ring of a message; nothing for one that is none, or that nobody has taken for so long. */
  #read(message: Pulled): Ring | undefined {
    if (message.redelivered >= this.#settings.nats.maxDeliver) {
      this.counters.given_up += 1;
      return undefined;
    }
    try {
      if (message.data.length > RING_BYTES_MAX) throw new Error("too large");
      const ring = codec.decode(message.data);
      const texts = [ring.execution_id, ring.stream_id, ring.command_id, ring.actor, ring.step];
      if (!texts.every(text => typeof text === "string" && text !== "")) throw new Error("no ring");
      if (!ACTOR_KINDS.includes(ring.actor)) throw new Error("no actor of ours");
      return ring;
    } catch {
      this.counters.malformed += 1;
      return undefined;
    }
  }

  /**
   * A vanished stream or consumer is made again; what it held is rung again from Postgres. Ends at
   * once when the connection is lost: nobody is there to ask. Says whether anything was missing.
   */
  #repair(): Promise<boolean> {
    const lost = this.lost();
    if (!this.#line || lost.aborted) return Promise.resolve(false);
    this.#repairing ??= unlessLost(this.#line.restore(), lost)
      .then(isMissing => {
        this.#answers.because(undefined);
        if (isMissing) this.#log({}, "doorbell.restored");
        return isMissing;
      })
      .catch((error: unknown) => {
        const isNew = !lost.aborted && this.#answers.because(error);
        if (isNew) this.#log({ err: error }, "doorbell.absent");
        return false;
      })
      .finally(() => {
        this.#repairing = undefined;
      });
    return this.#repairing;
  }

  async close(): Promise<void> {
    this.#closing.abort();
    await this.#opening;
    // A connection that is lost has nobody to take what is left in it.
    await (this.connected() ? this.#line?.connection.drain() : this.#line?.connection.close());
  }
}
