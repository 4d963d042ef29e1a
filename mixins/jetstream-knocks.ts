// Knocks: plain messages past the stream. By them a server tells one worker that a ring is kept in
// a lane of its own, or holds a step out to it, for a slot that waits to take it from the message.
// Lost, or not understood, each of them costs a broadcast.
import type { NatsConnection } from "nats";
import { isUrgent, ringKey, type Ring } from "../schemas/decider.ts";
import type { Settings } from "../schemas/env.ts";
import { classOf, WORK_CLASSES, type WorkClass } from "../schemas/work-class.ts";
import { knockSubject } from "./jetstream-config.ts";
import { ringIn } from "./jetstream-line.ts";

/** What a knock says; whatever it costs to believe a wrong one is a look. */
export type Knock = { kind: "offer"; ring: Ring } | ({ kind: "kept"; keys: string[] } & Lane);

/** Rings of a worker's own of which something is kept. */
export interface Lane {
  workClass: WorkClass;
  /** A step, which goes before the items of loops: then `keys` says which steps. */
  isUrgent: boolean;
}

const OFFER = "offer";
const LANES: ReadonlyMap<string, Lane> = new Map(
  WORK_CLASSES.flatMap(workClass =>
    [false, true].map(urgent => {
      const lane = { workClass, isUrgent: urgent };
      return [wordOf(lane), lane] as const;
    }),
  ),
);

function wordOf({ workClass, isUrgent }: Lane): string {
  return isUrgent ? `${workClass} urgent` : workClass;
}

/** A word, and JSON in a second line; undefined for anything else. */
export function readKnock(text: string): Knock | undefined {
  const end = text.indexOf("\n");
  const word = end < 0 ? text : text.slice(0, end);
  const lane = LANES.get(word);
  if (end < 0) return lane && { kind: "kept", keys: [], ...lane };
  try {
    if (word === OFFER) return { kind: "offer", ring: ringIn(Buffer.from(text.slice(end + 1))) };
    const keys: unknown = JSON.parse(text.slice(end + 1));
    if (!lane || !Array.isArray(keys)) return undefined;
    return { kind: "kept", keys: keys.filter(key => typeof key === "string"), ...lane };
  } catch {
    return undefined;
  }
}

/** Knocks at workers' doors. */
export class Knocker {
  readonly #settings: Settings;
  /** By worker and word, the keys that go with it. */
  readonly #kept = new Map<string, Map<string, string[]>>();

  constructor(settings: Settings) {
    this.#settings = settings;
  }

  /** Holds a step out to a worker. */
  offer(connection: NatsConnection, workerId: string, ring: Ring): void {
    this.#send(connection, workerId, `${OFFER}\n${JSON.stringify(ring)}`);
  }

  /** The stream has it. One message for all of a lane that is kept in a turn of the event loop. */
  kept(connection: NatsConnection, workerId: string, ring: Ring): void {
    if (this.#kept.size === 0) setImmediate(() => this.#tell(connection));
    const lane = { workClass: classOf(ring.kind), isUrgent: isUrgent(ring) };
    const words = this.#kept.get(workerId) ?? new Map<string, string[]>();
    this.#kept.set(workerId, words);
    const keys = words.get(wordOf(lane)) ?? [];
    words.set(wordOf(lane), keys);
    if (lane.isUrgent) keys.push(ringKey(ring));
  }

  #tell(connection: NatsConnection): void {
    const all = [...this.#kept];
    this.#kept.clear();
    for (const [workerId, words] of all) {
      for (const [word, keys] of words) {
        const text = keys.length > 0 ? `${word}\n${JSON.stringify(keys)}` : word;
        this.#send(connection, workerId, text);
      }
    }
  }

  #send(connection: NatsConnection, workerId: string, text: string): void {
    if (connection.isClosed() || connection.isDraining()) return;
    connection.publish(knockSubject(this.#settings, workerId), text);
  }
}
