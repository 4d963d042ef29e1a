// The doorbell over JetStream: one stream of rings, and for each class of work one durable pull
// consumer for the pool of workers.
import { setTimeout as pause } from "node:timers/promises";
import {
  connect,
  Events,
  JSONCodec,
  type JetStreamClient,
  type JetStreamManager,
  type NatsConnection,
} from "nats";
import { ACTOR_KINDS, type Ring } from "../schemas/decider.ts";
import type { Settings } from "../schemas/env.ts";
import { isWord } from "../schemas/needs.ts";
import { classOf, type WorkClass } from "../schemas/work-class.ts";
import { backoffMs } from "./clock.ts";
import {
  addOwnConsumers,
  laneOf,
  ownLaneOf,
  reconcileJetStream,
  restoreJetStream,
  RING_BYTES_MAX,
} from "./jetstream-config.ts";
import { pullOnce, type Pulled, type PullWish } from "./jetstream-pull.ts";
import { isNatsAway } from "./nats-away.ts";
import type { Doorbell, Pull, Rung } from "./notifications.ts";
import { RingOccasions } from "./ring-occasions.ts";
import { unlessLost } from "./unless-lost.ts";

/** The longest pause between two looks for a NATS that was away at the start. */
const RETRY_MS = 2_000;
/** A ring that was given back is not offered to the same worker again at once. */
const GIVEN_BACK_MS = 250;

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

const codec = JSONCodec<Ring>();

/** What a doorbell does over one connection, which reconnects by itself. */
interface Line {
  connection: NatsConnection;
  client: JetStreamClient;
  manager: JetStreamManager;
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
    return { connection, client: connection.jetstream(), manager };
  } catch (error) {
    await connection.close();
    throw error;
  }
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
  #repairing: Promise<void> | undefined;
  /** The worker whose own rings come here, and whether their consumers were made. */
  #own: string | undefined;

  constructor(settings: Settings, log: Log) {
    this.#settings = settings;
    this.#log = log;
    this.#occasions = new RingOccasions(settings.nats.stream);
    this.#lost.abort();
  }

  async open(): Promise<void> {
    try {
      this.#use(await openLine(this.#settings, this.#log));
    } catch (error) {
      if (!isNatsAway(error)) throw error;
      this.#log({ err: error }, "doorbell.away");
      this.#opening = this.#openLater();
    }
  }

  async #openLater(): Promise<void> {
    const { signal } = this.#closing;
    let said: string | undefined;
    for (let tries = 0; ; tries += 1) {
      await pause(backoffMs(tries, 250, RETRY_MS), undefined, { signal }).catch(() => undefined);
      if (signal.aborted) return;
      try {
        this.#use(await openLine(this.#settings, this.#log));
        return this.#log({ type: "connect" }, "doorbell.connection");
      } catch (error) {
        const message = String(error);
        if (!isNatsAway(error) && message !== said) this.#log({ err: error }, "doorbell.refused");
        said = message;
      }
    }
  }

  #use(line: Line): void {
    this.#line = line;
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
    for await (const { type } of connection.status()) {
      if (type === Events.Disconnect) this.#lost.abort();
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
    const msgID = `${ring.command_id}:${ring.delivery}:${whom}${occasion}`;
    this.#line.client.publish(subject, codec.encode(ring), { msgID }).then(
      () => {
        this.counters.rung += 1;
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
    this.#own = workerId;
    await this.#repair();
  }

  /** What names this worker comes first: nobody else takes it. */
  async look({ work_class, max }: Pull): Promise<Rung[]> {
    const rungs: Rung[] = [];
    for (const lane of this.#lanes(work_class)) {
      if (rungs.length < max) {
        rungs.push(...(await this.#asked({ ...lane, batch: max - rungs.length }, [])));
      }
    }
    return rungs;
  }

  async fetch({ work_class, max }: Pull, signal: AbortSignal): Promise<Rung[]> {
    const { fetchTimeoutMs: expiresMs, fetchHeartbeatMs: heartbeatMs } = this.#settings.worker;
    const wait = { expiresMs, heartbeatMs };
    const end = new AbortController();
    const asked = this.#lanes(work_class).map(lane =>
      this.#asked({ ...lane, batch: max, wait }, [signal, end.signal]).finally(() => end.abort()),
    );
    const rungs = (await Promise.all(asked)).flat();
    if (rungs.length === 0 && !signal.aborted) await this.#repair();
    // Of two that came at the same time one has no room.
    for (const surplus of rungs.splice(max)) surplus.giveBack();
    return rungs;
  }

  #lanes(workClass: WorkClass): { stream: string; consumer: string }[] {
    const { stream } = this.#settings.nats;
    const own = this.#own && ownLaneOf(this.#settings, workClass, this.#own);
    const pool = laneOf(this.#settings, workClass);
    return [...(own ? [own] : []), pool].map(({ consumer }) => ({ stream, consumer }));
  }

  async #asked(wish: PullWish, ends: AbortSignal[]): Promise<Rung[]> {
    const lost = this.lost();
    if (!this.#line || lost.aborted) return [];
    try {
      const pulled = await pullOnce(this.#line.connection, wish, [...ends, lost]);
      return pulled.flatMap(message => this.#rungOf(message));
    } catch (error) {
      if (!lost.aborted) this.#log({ err: error }, "doorbell.pull_failed");
      await this.#repair();
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
      if (!(ring.requires ?? []).every(isWord)) throw new Error("no words");
      if (!ACTOR_KINDS.includes(ring.actor)) throw new Error("no actor of ours");
      return ring;
    } catch {
      this.counters.malformed += 1;
      return undefined;
    }
  }

  /**
   * A vanished stream or consumer is made again; what it held is rung again from Postgres. Ends at
   * once when the connection is lost: nobody is there to ask.
   */
  #repair(): Promise<void> {
    const lost = this.lost();
    if (!this.#line || lost.aborted) return Promise.resolve();
    this.#repairing ??= unlessLost(this.#restore(this.#line), lost)
      .then(isMissing => {
        if (isMissing) this.#log({}, "doorbell.restored");
      })
      .catch((error: unknown) => {
        if (!lost.aborted) this.#log({ err: error }, "doorbell.absent");
      })
      .finally(() => {
        this.#repairing = undefined;
      });
    return this.#repairing;
  }

  async #restore({ manager }: Line): Promise<boolean> {
    const isMissing = await restoreJetStream(manager, this.#settings);
    if (this.#own) await addOwnConsumers(manager, this.#settings, this.#own);
    return isMissing;
  }

  async close(): Promise<void> {
    this.#closing.abort();
    await this.#opening;
    // A connection that is lost has nobody to take what is left in it.
    await (this.connected() ? this.#line?.connection.drain() : this.#line?.connection.close());
  }
}
