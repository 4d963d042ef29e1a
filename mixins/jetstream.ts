// The doorbell over JetStream: one stream of rings, and for each class of work one durable pull
// consumer for the pool of workers.
import { setTimeout as pause } from "node:timers/promises";
import { Events, type JetStreamClient, type NatsConnection } from "nats";
import { isUrgent, ringKey, type Ring } from "../schemas/decider.ts";
import type { Settings } from "../schemas/env.ts";
import { classOf, type WorkClass } from "../schemas/work-class.ts";
import { backoffMs } from "./clock.ts";
import { addOwnConsumers, laneOf, ownLaneOf, restoreJetStream } from "./jetstream-config.ts";
import { Knocker } from "./jetstream-knocks.ts";
import { GIVEN_BACK_MS, OwnLanes } from "./jetstream-own-lanes.ts";
import { encodeRing, openLine, readRing, type Line } from "./jetstream-line.ts";
import { pullOnce, type Pulled, type PullWish } from "./jetstream-pull.ts";
import { isNatsAway } from "./nats-away.ts";
import type { Doorbell, LaneCounts, Pull, Rung } from "./notifications.ts";
import { countLanes, PullAnswers } from "./pull-answers.ts";
import { RingOccasions } from "./ring-occasions.ts";
import { unlessLost } from "./unless-lost.ts";

/** The longest pause between two looks for a NATS that was away at the start. */
const RETRY_MS = 2_000;

type Log = (fields: object, message: string) => void;

/** The connection of this process to NATS, for whoever has more to say there than rings. */
export interface NatsPort {
  /** undefined while there is no connection. */
  line(): { connection: NatsConnection; client: JetStreamClient } | undefined;
  /** Aborts when the connection of this moment is lost; aborted while there is none. */
  lost(): AbortSignal;
}

export interface JetStreamDoorbell extends Doorbell, NatsPort {
  close(): Promise<void>;
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

class PullDoorbell implements JetStreamDoorbell {
  readonly counters = { rung: 0, lost: 0, malformed: 0, given_up: 0 };
  readonly #settings: Settings;
  readonly #log: Log;
  readonly #occasions: RingOccasions;
  readonly #closing = new AbortController();
  #line: Line | undefined;
  /** Aborted while there is no connection. */
  #lost = new AbortController();
  #opening: Promise<void> = Promise.resolve();
  #repairing: Promise<boolean> | undefined;
  readonly #answers = new PullAnswers();
  readonly #knocker: Knocker;
  /** Of the worker whose own rings come here. */
  #own: OwnLanes | undefined;

  constructor(settings: Settings, log: Log) {
    this.#settings = settings;
    this.#log = log;
    this.#occasions = new RingOccasions(settings.nats.stream);
    this.#knocker = new Knocker(settings);
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
    this.#own?.hear(line.connection);
    this.#lost = new AbortController();
    void this.#follow(line.connection);
  }

  connected(): boolean {
    return !this.#lost.signal.aborted;
  }

  lost(): AbortSignal {
    return this.#lost.signal;
  }

  line(): Line | undefined {
    return this.connected() ? this.#line : undefined;
  }

  async #follow(connection: NatsConnection): Promise<void> {
    for await (const { type, permissionContext: refused } of connection.status()) {
      if (refused?.operation === "publish") this.#answers.refused(refused.subject);
      if (refused?.operation === "subscription") this.#log(refused, "doorbell.may_not_hear");
      if (type === Events.Disconnect) this.#lost.abort();
      if (type === Events.Disconnect) this.#answers.because(undefined);
      if (type === Events.Reconnect) this.#lost = new AbortController();
      if (type === Events.Disconnect || type === Events.Reconnect) {
        this.#log({ type }, "doorbell.connection");
      }
    }
  }

  /**
   * Others' rings are the broker's to count: known are those that were knocked for, and of them the
   * steps matter, which items give way to. The rest is for slots that have nothing else.
   */
  waiting(workClass: WorkClass): number {
    return this.#own?.isUrgent(workClass) ? 1 : 0;
  }

  urgent(): number {
    return 0;
  }

  ring(ring: Ring, to?: string): void {
    // The client would keep it until NATS is back; by then its stream has been rung again.
    if (!this.#line || !this.connected()) return void (this.counters.lost += 1);
    const workClass = classOf(ring.kind);
    const { subject, consumer } =
      to === undefined
        ? laneOf(this.#settings, workClass)
        : ownLaneOf(this.#settings, workClass, to);
    const occasion = this.#occasions.of(consumer, this.#line.manager);
    // To each worker, and to all, it is another ring.
    const whom = to === undefined ? "" : `${to}:`;
    const msgID = `${ringKey(ring)}:${whom}${occasion}`;
    const { connection, client } = this.#line;
    if (to !== undefined && isUrgent(ring)) this.#knocker.offer(connection, to, ring);
    client.publish(subject, encodeRing(ring), { msgID }).then(
      () => {
        this.counters.rung += 1;
        if (to !== undefined) this.#knocker.kept(connection, to, ring);
      },
      (error: unknown) => this.#ringLost(error),
    );
  }

  #ringLost(error: unknown): void {
    this.counters.lost += 1;
    if (this.counters.lost % 100 === 1)
      this.#log({ err: error, lost: this.counters.lost }, "ring.lost");
    void this.#repair();
  }

  async attend(workerId: string): Promise<void> {
    const ask = (wish: PullWish) => this.#asked(wish, []);
    this.#own = new OwnLanes(this.#settings, workerId, ask);
    if (this.#line) this.#own.hear(this.#line.connection);
    await this.#repair();
  }

  /** What names this worker comes first, and at once: nobody else takes it. */
  async look({ work_class, max }: Pull): Promise<Rung[]> {
    const own = (await this.#own?.look(work_class, max)) ?? [];
    if (own.length > 0) return own;
    return this.#asked({ ...this.#laneOf(work_class), batch: max }, []);
  }

  /** It waits for the pool's rings; a knock ends that, and then its own come. */
  async fetch({ work_class, max }: Pull, signal: AbortSignal): Promise<Rung[]> {
    const { fetchTimeoutMs: expiresMs, fetchHeartbeatMs: heartbeatMs } = this.#settings.worker;
    const wish = { ...this.#laneOf(work_class), batch: max, wait: { expiresMs, heartbeatMs } };
    const pull = (ends: AbortSignal[]) => this.#asked(wish, ends);
    const rungs = await (this.#own?.fetch({ work_class, max }, signal, pull) ?? pull([signal]));
    if (rungs.length === 0 && !signal.aborted) await this.#repair();
    return rungs;
  }

  #laneOf(workClass: WorkClass): { stream: string; consumer: string } {
    const { consumer } = laneOf(this.#settings, workClass);
    return { stream: this.#settings.nats.stream, consumer };
  }

  unanswered(workClass: WorkClass): string | undefined {
    return this.#answers.why(this.#laneOf(workClass).consumer);
  }

  async lanes(): Promise<LaneCounts[]> {
    const lost = this.lost();
    if (!this.#line || lost.aborted) return [];
    return unlessLost(countLanes(this.#line.manager, this.#settings), lost);
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
    const ring = readRing(message, this.#settings, this.counters);
    if (ring) {
      return [{ ...ring, ack: message.ack, giveBack: () => message.nak(GIVEN_BACK_MS) }];
    }
    message.ack();
    return [];
  }

  /**
   * A vanished stream or consumer is made again; what it held is rung again from Postgres. Ends at
   * once when the connection is lost: nobody is there to ask. Says whether anything was missing.
   */
  #repair(): Promise<boolean> {
    const lost = this.lost();
    if (!this.#line || lost.aborted) return Promise.resolve(false);
    this.#repairing ??= unlessLost(this.#restore(this.#line), lost)
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

  async #restore({ manager }: Line): Promise<boolean> {
    const isMissing = await restoreJetStream(manager, this.#settings);
    if (this.#own) await addOwnConsumers(manager, this.#settings, this.#own.workerId);
    return isMissing;
  }

  async close(): Promise<void> {
    this.#closing.abort();
    await this.#opening;
    // A connection that is lost has nobody to take what is left in it.
    await (this.connected() ? this.#line?.connection.drain() : this.#line?.connection.close());
  }
}
