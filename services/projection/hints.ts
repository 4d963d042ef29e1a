// Committed events on their way to the node that keeps the projection: hints, which make its rows
// follow at once, and whatever holds back the watermark of the log.
import type { ServiceBroker } from "moleculer";
import { splitBySize } from "../../mixins/json-size.ts";
import { isOffered, isUnreachable } from "../../mixins/routing.ts";
import type { Runtime } from "../../mixins/runtime.ts";
import { errorType } from "../../schemas/errors.ts";
import type { StoredEvent } from "../../schemas/events.ts";
import { foldable, isAwaited, newestOf } from "./fold.ts";

/** Hints of one commit after the other go out together; what is awaited does not wait. */
const GATHER_MS = 25;
/** One message: well below what NATS takes. */
const HINT_BYTES_MAX = 200_000;
const HINT_EVENTS_MAX = 1_000;
/** Messages on their way; meanwhile the next ones gather. */
const IN_FLIGHT_MAX = 4;
/** Hints kept while nobody takes them; of more than these only the newest of each stream. */
const QUEUE_MAX = 10_000;
/** A holder that does not say within this that its rows are written is asked again. */
const TAKE_MS = 2_000;
const RETRY_MS = 250;
/** How long the name of the holder is used before it is looked up again. */
const HOLDER_KEPT_MS = 1_000;
/** A node that stops waits so long for its last hints. */
const FAREWELL_MS = 1_000;

export const TAKE_ACTION = "projection.hint";

/** What the holder answers: false when it is not, or no longer, the holder. */
export interface Taken {
  taken: boolean;
}

/** Sends this node's commits to the holder of one shard. A hint that is lost costs time only. */
export class HintSender {
  readonly counters = { sent: 0, failed: 0, refused: 0, thinned: 0 };
  readonly #runtime: Runtime;
  readonly #broker: ServiceBroker;
  readonly #shard: number;
  #queue: StoredEvent[] = [];
  #inFlight = new Set<Promise<void>>();
  #cancelTimer: (() => void) | undefined;
  #urgent = false;
  #stopped = false;
  #retryAt = 0;
  #holder: { node: string | undefined; until: number } = { node: undefined, until: 0 };

  constructor(runtime: Runtime, broker: ServiceBroker, shard: number) {
    this.#runtime = runtime;
    this.#broker = broker;
    this.#shard = shard;
  }

  push(events: readonly StoredEvent[]): void {
    // Without a transporter there is nobody to tell.
    if (!this.#broker.transit) return;
    for (const event of events) this.#queue.push(foldable(event));
    if (this.#queue.length > QUEUE_MAX) {
      const before = this.#queue.length;
      this.#queue = newestOf(this.#queue).slice(-QUEUE_MAX);
      this.counters.thinned += before - this.#queue.length;
    }
    if (events.some(isAwaited)) this.#hurry();
    else this.#flushAfter(GATHER_MS);
  }

  /** What waits here, for a node that keeps the projection itself by now. */
  take(): StoredEvent[] {
    return this.#queue.splice(0);
  }

  /** The node that keeps the shard, as far as is known. Throws Unavailable. */
  async holder(): Promise<string | undefined> {
    const { clock, rows } = this.#runtime;
    if (clock.now() >= this.#holder.until) {
      const node = await rows.holder(this.#shard);
      this.#holder = { node, until: clock.now() + HOLDER_KEPT_MS };
    }
    return this.#holder.node;
  }

  /** Sends what is left, if somebody takes it soon. */
  async stop(): Promise<void> {
    this.#flush();
    this.#stopped = true;
    this.#cancelTimer?.();
    if (this.#inFlight.size === 0) return;
    const farewell = this.#runtime.clock.sleep(FAREWELL_MS);
    await Promise.race([Promise.all(this.#inFlight), farewell]);
  }

  /** After what else is committed in this turn of the event loop. */
  #hurry(): void {
    if (this.#urgent) return;
    this.#urgent = true;
    setImmediate(() => {
      this.#urgent = false;
      this.#flush();
    });
  }

  #flushAfter(ms: number): void {
    if (this.#stopped) return;
    this.#cancelTimer ??= this.#runtime.clock.after(ms, () => {
      this.#cancelTimer = undefined;
      this.#flush();
    });
  }

  #flush(): void {
    const room = IN_FLIGHT_MAX - this.#inFlight.size;
    if (this.#queue.length === 0 || room === 0) return;
    const wait = this.#retryAt - this.#runtime.clock.now();
    if (wait > 0) return this.#flushAfter(wait);
    const next = this.#queue.splice(0, room * HINT_EVENTS_MAX);
    const groups = splitBySize(next, HINT_BYTES_MAX, HINT_EVENTS_MAX);
    for (const group of groups.splice(0, room)) this.#dispatch(group);
    this.#queue = [...groups.flat(), ...this.#queue];
  }

  #dispatch(group: StoredEvent[]): void {
    const sending = this.#send(group).then(isTaken => {
      this.#inFlight.delete(sending);
      if (!isTaken) this.#keep(group);
      if (this.#queue.length > 0) this.#flushAfter(isTaken ? 0 : RETRY_MS);
    });
    this.#inFlight.add(sending);
  }

  /** Nobody took it: it goes first, when the next holder is known. */
  #keep(group: StoredEvent[]): void {
    const { clock } = this.#runtime;
    this.counters.failed += 1;
    this.#queue = [...group, ...this.#queue];
    this.#retryAt = clock.now() + RETRY_MS;
    this.#holder.until = 0;
  }

  async #send(events: StoredEvent[]): Promise<boolean> {
    try {
      const nodeID = await this.holder();
      if (nodeID === undefined || !isOffered(this.#broker, TAKE_ACTION, nodeID)) return false;
      const options = { nodeID, timeout: TAKE_MS };
      const { taken } = await this.#broker.call<Taken, object>(TAKE_ACTION, { events }, options);
      if (!taken) return false;
      this.counters.sent += 1;
      // What is awaited is written by now: whoever waits for it in this process may look.
      this.#runtime.shown.push(new Map(events.map(event => [event.execution_id, undefined])));
      return true;
    } catch (error) {
      if (isUnreachable(error) || errorType(error) === "UNAVAILABLE") return false;
      // It cannot be taken at all: the log brings what it said.
      this.counters.refused += 1;
      this.#broker.logger.warn({ err: error, events: events.length }, "projection.hint_refused");
      return true;
    }
  }
}
