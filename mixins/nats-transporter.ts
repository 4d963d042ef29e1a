// Moleculer's transporter over NATS for a node that starts, serves and ends while NATS is away.
import { setTimeout as pause } from "node:timers/promises";
import { Transporters } from "moleculer";
import { connect, Events } from "nats";
import { isNatsAway } from "./nats-away.ts";
import { backoffMs } from "./clock.ts";

/** Moleculer would try again after 5 seconds each, and say so each time. */
const RETRY_MS = 2_000;

type Init = Parameters<InstanceType<typeof Transporters.NATS>["init"]>;

export class PatientNats extends Transporters.NATS {
  readonly #away = Promise.withResolvers<void>();
  readonly #ending = new AbortController();
  #isUp = false;

  /** The broker starts its services once NATS was found away, and is introduced when it comes. */
  override init(...init: Init): void {
    super.init(...init);
    const [transit] = init;
    const begin = transit.connect.bind(transit);
    transit.connect = () => {
      const connected = begin();
      const late = this.#away.promise.then(() => {
        const introduced = connected.then(() => transit.discoverer.sendLocalNodeInfo());
        introduced.catch((error: unknown) => this.logger.warn({ err: error }, "nats.introduction"));
      });
      return Promise.race([connected, late]);
    };
  }

  override async connect(): Promise<void> {
    if (!(await this.#found())) return;
    await super.connect();
    this.#isUp = true;
    void this.#follow();
  }

  /** Waits for a NATS that can be connected to; false when the node ends before. */
  async #found(): Promise<boolean> {
    for (let tries = 0; !this.#ending.signal.aborted; tries += 1) {
      try {
        const trial = await connect(this.opts);
        await trial.close();
        return !this.#ending.signal.aborted;
      } catch (error) {
        if (!isNatsAway(error)) throw error;
        this.#away.resolve();
      }
      const { signal } = this.#ending;
      await pause(backoffMs(tries, 250, RETRY_MS), undefined, { signal }).catch(() => undefined);
    }
    return false;
  }

  async #follow(): Promise<void> {
    const client = this.client as Awaited<ReturnType<typeof connect>>;
    for await (const { type } of client.status()) {
      if (type === Events.Disconnect) this.#isUp = false;
      if (type === Events.Reconnect) this.#isUp = true;
    }
  }

  /** Moleculer's would wait for ever to flush what nobody takes. */
  override async disconnect(): Promise<void> {
    this.#ending.abort();
    if (this.#isUp) return super.disconnect();
    await (this.client as { close(): Promise<void> } | null)?.close();
  }
}
