// Workers' events out of their stream, at a server: no more at a time than it may hold, and none
// acknowledged before whoever takes them says so.
import { setTimeout as wait } from "node:timers/promises";
import type { Settings } from "../schemas/env.ts";
import { backoffMs } from "./clock.ts";
import { EVENT_CONSUMER, reconcileEventStream } from "./event-stream.ts";
import type { NatsPort } from "./jetstream.ts";
import { pullEach, type Pulled } from "./jetstream-pull.ts";
import { unlessLost } from "./unless-lost.ts";

/** One pull; an idle one says every few seconds that it is still open. */
const PULL = { expiresMs: 30_000, heartbeatMs: 5_000 };
const AWAY_MS = 250;
/** Messages held at a time; each may carry many events. */
const MESSAGES_MAX = 512;

export interface EventIntakeOptions {
  nats: NatsPort;
  settings: Pick<Settings, "events">;
  /** Settles each message, by itself: acknowledges it, or gives it back. Never throws. */
  take(messages: Pulled[]): Promise<void>;
  warn(error: unknown, what: string): void;
}

export class EventIntake {
  readonly #options: EventIntakeOptions;
  readonly #ending = new AbortController();
  #gathered: Pulled[] = [];
  #held = 0;
  #roomFor = () => {};
  #running: Promise<void> = Promise.resolve();
  /** The connection over which the stream was seen to be there, by its end. */
  #checked: AbortSignal | undefined;

  constructor(options: EventIntakeOptions) {
    this.#options = options;
  }

  /** Messages taken and not settled yet. */
  get held(): number {
    return this.#held;
  }

  start(): void {
    this.#running = this.#run();
  }

  /** Takes no more; resolves when what was taken is settled. */
  async stop(): Promise<void> {
    this.#ending.abort();
    this.#roomFor();
    await this.#running;
    while (this.#held > 0) await new Promise<void>(resolve => (this.#roomFor = resolve));
  }

  async #run(): Promise<void> {
    const { nats, warn } = this.#options;
    const { signal } = this.#ending;
    let failures = 0;
    while (!signal.aborted) {
      const lost = nats.lost();
      try {
        if (lost.aborted) await pause(AWAY_MS, signal);
        else await this.#pull(lost);
        failures = 0;
      } catch (error) {
        if (signal.aborted || lost.aborted) continue;
        failures += 1;
        if (failures % 20 === 1) warn(error, "events.pull_failed");
        await pause(backoffMs(failures, 100, 5_000), signal);
      }
    }
  }

  /** One pull; what it brings is settled side by side with the next one. */
  async #pull(lost: AbortSignal): Promise<void> {
    const { nats, settings } = this.#options;
    const batch = await this.#room();
    const line = nats.line();
    if (!line || batch === 0) return;
    if (this.#checked !== lost) await this.#repair(lost);
    const { stream } = settings.events;
    const wish = { stream, consumer: EVENT_CONSUMER, batch, wait: PULL, lasts: true } as const;
    const ends = [lost, this.#ending.signal];
    try {
      await pullEach(line.connection, wish, ends, message => this.#gather(message));
    } catch (error) {
      await this.#repair(lost);
      throw error;
    }
  }

  async #repair(lost: AbortSignal): Promise<void> {
    const line = this.#options.nats.line();
    if (!line || lost.aborted) return;
    const manager = await line.connection.jetstreamManager();
    await unlessLost(reconcileEventStream(manager, this.#options.settings), lost);
    this.#checked = lost;
  }

  /** Waits until there is room for more; 0 at the end. */
  async #room(): Promise<number> {
    while (this.#held >= MESSAGES_MAX && !this.#ending.signal.aborted) {
      await new Promise<void>(resolve => (this.#roomFor = resolve));
    }
    return this.#ending.signal.aborted ? 0 : MESSAGES_MAX - this.#held;
  }

  /** Messages of one turn of the event loop are taken together. */
  #gather(message: Pulled): void {
    this.#held += 1;
    this.#gathered.push(message);
    if (this.#gathered.length > 1) return;
    setImmediate(() => {
      const messages = this.#gathered;
      this.#gathered = [];
      void this.#options.take(messages).finally(() => {
        this.#held -= messages.length;
        this.#roomFor();
      });
    });
  }
}

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await wait(ms, undefined, { signal }).catch(() => undefined);
}
