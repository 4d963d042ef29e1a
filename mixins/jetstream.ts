// The doorbell over JetStream: one stream of rings, one durable pull consumer for the pool of
// workers.
import { randomUUID } from "node:crypto";
import { setTimeout as pause } from "node:timers/promises";
import {
  connect,
  Events,
  JSONCodec,
  type JetStreamClient,
  type JsMsg,
  type NatsConnection,
  type PullOptions,
} from "nats";
import type { Ring } from "../schemas/decider.ts";
import type { Settings } from "../schemas/env.ts";
import { backoffMs } from "./clock.ts";
import { reconcileJetStream, RING_BYTES_MAX } from "./jetstream-config.ts";
import { isNatsAway } from "./nats-away.ts";
import type { Doorbell, Rung } from "./notifications.ts";
import { unlessLost } from "./unless-lost.ts";

/** The longest pause between two looks for a NATS that was away at the start. */
const RETRY_MS = 2_000;

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
  reconcile(): Promise<void>;
}

/**
 * Connects, and brings stream and consumer to their configuration, in place; never deletes them.
 * A NATS that is away is waited for in the background. Throws what waiting does not cure: Rejected
 * with the remedy for a stream whose retention cannot serve, NATS' own error for a refused login.
 */
export async function openJetStream(
  settings: Settings,
  log: (fields: object, message: string) => void,
): Promise<JetStreamDoorbell> {
  const doorbell = new PullDoorbell(settings, log);
  await doorbell.open();
  return doorbell;
}

async function openLine(settings: Settings): Promise<Line> {
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
    const reconcile = () => reconcileJetStream(manager, settings);
    await reconcile();
    return { connection, client: connection.jetstream(), reconcile };
  } catch (error) {
    await connection.close();
    throw error;
  }
}

class PullDoorbell implements JetStreamDoorbell {
  readonly counters = { rung: 0, lost: 0, malformed: 0 };
  readonly #settings: Settings;
  readonly #log: (fields: object, message: string) => void;
  /** Tells this process's rings from every other's: none is taken for a duplicate of another. */
  readonly #bell = randomUUID();
  readonly #closing = new AbortController();
  #line: Line | undefined;
  #rings = 0;
  /** Aborted while there is no connection. */
  #lost = new AbortController();
  #opening: Promise<void> = Promise.resolve();
  #repairing: Promise<void> | undefined;

  constructor(settings: Settings, log: (fields: object, message: string) => void) {
    this.#settings = settings;
    this.#log = log;
    this.#lost.abort();
  }

  async open(): Promise<void> {
    try {
      this.#use(await openLine(this.#settings));
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
        this.#use(await openLine(this.#settings));
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

  /** A re-ring has an id of its own, or the broker would take it for a duplicate. */
  ring(ring: Ring): void {
    // The client would keep it until NATS is back; by then its stream has been rung again.
    if (!this.#line || !this.connected()) return void (this.counters.lost += 1);
    this.#rings += 1;
    const msgID = `${ring.command_id}:${ring.delivery}:${this.#bell}-${this.#rings}`;
    this.#line.client.publish(this.#settings.nats.subject, codec.encode(ring), { msgID }).then(
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

  async fetch(max: number, signal: AbortSignal): Promise<Rung[]> {
    const lost = this.lost();
    if (!this.#line || lost.aborted) return [];
    const { client } = this.#line;
    const { fetchTimeoutMs: expires, fetchHeartbeatMs: idle_heartbeat } = this.#settings.worker;
    const ends = [signal, lost];
    try {
      const there = await this.#pull(client, { batch: max, no_wait: true }, ends);
      if (there.length > 0) return there;
      // Two beats that do not come end it: a consumer that is gone is only silent.
      const first = await this.#pull(client, { batch: 1, expires, idle_heartbeat }, ends);
      if (first.length === 0 && !signal.aborted) await this.#repair();
      return first;
    } catch (error) {
      if (!lost.aborted) this.#log({ err: error }, "doorbell.pull_failed");
      await this.#repair();
      return [];
    }
  }

  async #pull(
    client: JetStreamClient,
    options: Partial<PullOptions>,
    ends: AbortSignal[],
  ): Promise<Rung[]> {
    const { stream, consumer } = this.#settings.nats;
    const rungs: Rung[] = [];
    const messages = client.fetch(stream, consumer, options);
    const stop = () => messages.stop();
    for (const end of ends) end.addEventListener("abort", stop, { once: true });
    try {
      for await (const message of messages) {
        const ring = this.#read(message);
        if (ring) rungs.push({ ...ring, ack: () => message.ack() });
        else message.ack();
      }
    } finally {
      for (const end of ends) end.removeEventListener("abort", stop);
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

  /**
   * A vanished stream or consumer is made again; what it held is rung again from Postgres. Ends at
   * once when the connection is lost: nobody is there to ask.
   */
  #repair(): Promise<void> {
    const lost = this.lost();
    if (!this.#line || lost.aborted) return Promise.resolve();
    this.#repairing ??= unlessLost(this.#line.reconcile(), lost)
      .catch((error: unknown) => {
        if (!lost.aborted) this.#log({ err: error }, "doorbell.absent");
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
