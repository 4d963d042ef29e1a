// Commands that were rung and that nobody has claimed yet, as this process knows them: what is told
// to a worker whom the doorbell does not reach. A hint like every ring; one lost is rung again.
import type { Ring } from "../schemas/decider.ts";
import { COMMAND_TERMINALS, type StoredEvent } from "../schemas/events.ts";
import { classOf, type WorkClass } from "../schemas/work-class.ts";
import { serves } from "../schemas/needs.ts";
import type { Clock } from "./clock.ts";
import { keepNewest } from "./newest.ts";

/** Commands remembered at most; the oldest go first, and are rung again from their streams. */
const OFFERS_MAX = 10_000;
/** One that was just told to a worker is not told to another one: its claim is on its way. */
const TOLD_MS = 2_000;

export interface Offers {
  add(ring: Ring): void;
  /** Nobody has claimed it yet, as far as is known here. */
  has(commandId: string): boolean;
  /** Forgets what these events say is claimed or over. */
  settle(events: readonly StoredEvent[]): void;
  /** Up to `max` of a class that have waited so long, the longest waiting first. */
  take(max: number, waitedMs: number, asker?: Asker): Ring[];
  /** Resolves at the next `add`, or after `ms`. */
  next(ms: number): Promise<void>;
}

/** Who asks what waits; without limits, for anything. */
export interface Asker {
  workClass?: WorkClass | undefined;
  /** What it offers (`schemas/needs.ts`). */
  words?: readonly string[] | undefined;
}

interface Offer {
  ring: Ring;
  since: number;
  toldAt: number;
}

const SETTLED: ReadonlySet<string> = new Set(["command.claimed", ...COMMAND_TERMINALS]);

const HELD_BACK: ReadonlySet<string> = new Set(["execution.pause_requested", "execution.paused"]);

export function createOffers(clock: Clock): Offers {
  const offers = new Map<string, Offer>();
  let listeners: (() => void)[] = [];

  function forgetStream(streamId: string): void {
    for (const [id, { ring }] of offers) if (ring.stream_id === streamId) offers.delete(id);
  }

  return {
    add(ring) {
      const known = offers.get(ring.command_id);
      if (known) return void (known.ring = ring);
      offers.set(ring.command_id, { ring, since: clock.now(), toldAt: -Infinity });
      keepNewest(offers, OFFERS_MAX);
      for (const listener of listeners.splice(0)) listener();
    },
    settle(events) {
      if (offers.size === 0) return;
      for (const event of events) {
        // What waits there may not be claimed: it is rung again when it may.
        const parks = event.event_type === "command.released" && event.meta.spent !== undefined;
        if (parks || HELD_BACK.has(event.event_type)) forgetStream(event.stream_id);
        if (SETTLED.has(event.event_type)) {
          offers.delete((event.meta as { command_id: string }).command_id);
        }
      }
    },
    has: commandId => offers.has(commandId),
    take(max, waitedMs, { workClass, words } = {}) {
      const now = clock.now();
      const rings: Ring[] = [];
      for (const offer of offers.values()) {
        if (rings.length >= max || now - offer.since < waitedMs) break;
        if (now - offer.toldAt < TOLD_MS) continue;
        if (workClass && classOf(offer.ring.kind) !== workClass) continue;
        if (words && !serves(words, offer.ring.requires)) continue;
        offer.toldAt = now;
        rings.push(offer.ring);
      }
      return rings;
    },
    next: ms =>
      new Promise<void>(resolve => {
        const finish = () => {
          cancel();
          listeners = listeners.filter(listener => listener !== finish);
          resolve();
        };
        const cancel = clock.after(ms, finish);
        listeners.push(finish);
      }),
  };
}
