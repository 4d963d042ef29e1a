// Which rings of a command are the same to their stream, which drops the second one of two. A
// re-ring is another one, or it would reach nobody. But while others wait in front of a command,
// all its rings of a while are one: else what waits long would fill the stream with repetitions.
import { randomUUID } from "node:crypto";
import type { JetStreamManager } from "nats";
import { RING_SAME_MS } from "./jetstream-config.ts";

/** How long a look at what waits is good for. */
const SEEN_MS = 1_000;
/** Consumers remembered at most: beyond these all are looked at anew. */
const CONSUMERS_MAX = 1_000;

interface Lane {
  waiting: number;
  seenAt: number;
}

export class RingOccasions {
  readonly #stream: string;
  /** Tells this process's rings from every other's: none is taken for a duplicate of another. */
  readonly #bell = randomUUID();
  /** What was seen to wait for each consumer. */
  readonly #lanes = new Map<string, Lane>();
  #rings = 0;

  constructor(stream: string) {
    this.#stream = stream;
  }

  /** What a ring that goes to this consumer has in its id beside its command. */
  of(consumer: string, manager: JetStreamManager): string {
    const now = Date.now();
    const lane = this.#laneOf(consumer);
    if (now - lane.seenAt > SEEN_MS) {
      lane.seenAt = now;
      void manager.consumers.info(this.#stream, consumer).then(
        ({ num_pending }) => (lane.waiting = num_pending),
        () => (lane.waiting = 0),
      );
    }
    if (lane.waiting > 0) return `w${Math.floor(now / RING_SAME_MS)}`;
    this.#rings += 1;
    return `${this.#bell}-${this.#rings}`;
  }

  #laneOf(consumer: string): Lane {
    const known = this.#lanes.get(consumer);
    if (known) return known;
    if (this.#lanes.size >= CONSUMERS_MAX) this.#lanes.clear();
    const lane = { waiting: 0, seenAt: 0 };
    this.#lanes.set(consumer, lane);
    return lane;
  }
}
