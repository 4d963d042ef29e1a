// The doorbell over JetStream: one stream of rings, one durable pull consumer for the pool of
// workers.
import { randomUUID } from "node:crypto";
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
import { reconcileJetStream, RING_BYTES_MAX } from "./jetstream-config.ts";
import type { Doorbell, Rung } from "./notifications.ts";

/** A pull that waits, and the one that takes what is there. */
const WAIT_MS = 5_000;

export interface JetStreamDoorbell extends Doorbell {
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
  const reconcile = () => reconcileJetStream(manager, settings);
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
  #connected = true;
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
    void this.#follow();
  }

  connected(): boolean {
    return this.#connected;
  }

  async #follow(): Promise<void> {
    for await (const { type } of this.#connection.status()) {
      if (type === Events.Disconnect) this.#connected = false;
      if (type === Events.Reconnect) this.#connected = true;
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
    if (!this.#connected) return void (this.counters.lost += 1);
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
    if (!this.#connected) return [];
    try {
      const there = await this.#pull({ batch: max, no_wait: true }, signal);
      if (there.length > 0) return there;
      const first = await this.#pull({ batch: 1, expires: WAIT_MS }, signal);
      // A pull on a consumer that is gone is only silent: an idle worker looks for it.
      if (first.length === 0 && !signal.aborted) await this.#repair();
      return first;
    } catch (error) {
      this.#log({ err: error }, "doorbell.pull_failed");
      if (this.#connected) await this.#repair();
      return [];
    }
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
