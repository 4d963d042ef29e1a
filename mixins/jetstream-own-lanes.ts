// Rings that name one worker lie in lanes of its own. It waits at the lane of the pool alone, or of
// two pulls that wait each could bring one, and there may be room for one: knocks tell it when to
// look into its own, or bring a step for the slot that waits.
import type { Msg, NatsConnection } from "nats";
import { ringKey, type Ring } from "../schemas/decider.ts";
import type { Settings } from "../schemas/env.ts";
import { classOf, WORK_CLASSES, type WorkClass } from "../schemas/work-class.ts";
import { knockSubject, ownLaneOf } from "./jetstream-config.ts";
import { readKnock, type Lane } from "./jetstream-knocks.ts";
import type { PullWish } from "./jetstream-pull.ts";
import { keepNewest } from "./newest.ts";
import type { Pull, Rung } from "./notifications.ts";

/** A ring that was given back is not offered to the same worker again at once. */
export const GIVEN_BACK_MS = 250;

/** Steps taken from knocks whose copies are remembered at most. */
const TAKEN_MAX = 1_000;
/** Steps that came while no slot waited are there for the next look, if it is soon. */
const OFFERS_MAX = 64;
const OFFER_MS = 200;

/** A slot that waits, and the step that it was given. */
interface Visit {
  /** Aborts when it need not wait any more: it has a step, or something may be there. */
  readonly ends: AbortController;
  rung?: Rung;
}

/** What one worker knows of its own lanes. */
export class OwnLanes {
  readonly workerId: string;
  readonly #settings: Settings;
  readonly #ask: (wish: PullWish) => Promise<Rung[]>;
  /** At first what was kept before is unknown. */
  readonly #filled = new Set<WorkClass>(WORK_CLASSES);
  readonly #urgent = new Set<WorkClass>();
  readonly #visits = new Map<WorkClass, Visit>();
  /** Steps taken from knocks, the oldest first: what the stream keeps of them is a copy. */
  readonly #taken = new Set<string>();
  /** Steps that were held out and not taken yet. */
  readonly #offers = new Map<string, { ring: Ring; at: number }>();

  /** `ask` pulls what is there. */
  constructor(settings: Settings, workerId: string, ask: (wish: PullWish) => Promise<Rung[]>) {
    this.#settings = settings;
    this.workerId = workerId;
    this.#ask = ask;
  }

  /** Reconnecting subscribes again by itself. */
  hear(connection: NatsConnection): void {
    const callback = (error: unknown, message: Msg) => {
      // Who may not listen is told so here, with a message that is none.
      const knock = error ? undefined : readKnock(message.string());
      if (knock?.kind === "offer") this.#offered(knock.ring);
      if (knock?.kind === "kept") this.#kept(knock, knock.keys);
    };
    connection.subscribe(knockSubject(this.#settings, this.workerId), { callback });
  }

  #offered(ring: Ring): void {
    const visit = this.#visits.get(classOf(ring.kind));
    if (visit) {
      visit.rung = this.#take(ring);
      this.#visits.delete(classOf(ring.kind));
      visit.ends.abort();
    } else if (this.#offers.size < OFFERS_MAX) {
      this.#offers.set(ringKey(ring), { ring, at: performance.now() });
    }
  }

  /** What was held out just now; older ones are looked for in the stream. */
  #offersOf(workClass: WorkClass, max: number): Rung[] {
    const since = performance.now() - OFFER_MS;
    const rungs: Rung[] = [];
    for (const [key, { ring, at }] of this.#offers) {
      if (rungs.length >= max) break;
      if (at >= since && classOf(ring.kind) !== workClass) continue;
      this.#offers.delete(key);
      if (at >= since) rungs.push(this.#take(ring));
    }
    return rungs;
  }

  #take(ring: Ring): Rung {
    this.#taken.add(ringKey(ring));
    keepNewest(this.#taken, TAKEN_MAX);
    return { ...ring, ack: () => undefined, giveBack: () => this.#giveBack(ring) };
  }

  #kept(lane: Lane, keys: string[]): void {
    const areTaken = keys.length > 0 && keys.every(key => this.#taken.has(key));
    // Copies are found with whatever is looked for next.
    if (areTaken) this.#filled.add(lane.workClass);
    else this.fill(lane);
  }

  /** Something may be there. */
  fill({ workClass, isUrgent }: Lane): void {
    this.#filled.add(workClass);
    if (isUrgent) this.#urgent.add(workClass);
    this.#visits.get(workClass)?.ends.abort();
    this.#visits.delete(workClass);
  }

  isUrgent(workClass: WorkClass): boolean {
    return this.#urgent.has(workClass);
  }

  /** What is there, if it was told that something is. */
  async look(workClass: WorkClass, max: number): Promise<Rung[]> {
    const offered = this.#offersOf(workClass, max);
    if (offered.length > 0) return offered;
    if (!this.#filled.delete(workClass)) return [];
    const lane = { workClass, isUrgent: this.#urgent.delete(workClass) };
    const { consumer } = ownLaneOf(this.#settings, workClass, this.workerId);
    const { stream } = this.#settings.nats;
    const rungs = await this.#ask({ stream, consumer, batch: max });
    if (rungs.length >= max) this.fill(lane);
    // Nobody knocks for one that is given back.
    const comeBack = () => void setTimeout(() => this.fill(lane), 2 * GIVEN_BACK_MS).unref();
    return rungs.flatMap(rung => {
      this.#offers.delete(ringKey(rung));
      if (this.#taken.delete(ringKey(rung))) {
        rung.ack();
        return [];
      }
      const giveBack = () => {
        rung.giveBack();
        comeBack();
      };
      return [{ ...rung, giveBack }];
    });
  }

  /** As `pull`, which waits for the rings of the pool, and what comes to its own meanwhile. */
  async fetch(
    { work_class, max }: Pull,
    signal: AbortSignal,
    pull: (ends: AbortSignal[]) => Promise<Rung[]>,
  ): Promise<Rung[]> {
    for (;;) {
      const own = await this.look(work_class, max);
      if (own.length > 0 || signal.aborted) return own;
      const { visit, rungs } = await this.#visit(work_class, signal, pull);
      if (rungs.length > 0 || signal.aborted || !visit.ends.signal.aborted) return rungs;
    }
  }

  /** Lets a slot wait for both. */
  async #visit(
    workClass: WorkClass,
    signal: AbortSignal,
    pull: (ends: AbortSignal[]) => Promise<Rung[]>,
  ): Promise<{ visit: Visit; rungs: Rung[] }> {
    const visit: Visit = { ends: new AbortController() };
    const { promise: ended, resolve } = Promise.withResolvers<void>();
    visit.ends.signal.addEventListener("abort", () => resolve(), { once: true });
    if (this.#filled.has(workClass)) visit.ends.abort();
    else this.#visits.set(workClass, visit);
    const pulled = pull([signal, visit.ends.signal]);
    await Promise.race([pulled, ended]);
    if (this.#visits.get(workClass) === visit) this.#visits.delete(workClass);
    const { rung } = visit;
    if (!rung) return { visit, rungs: await pulled };
    // There is a slot for one.
    void pulled.then(late => late.forEach(one => one.giveBack()));
    return { visit, rungs: [rung] };
  }

  /** A step that was taken had no room after all: its copy counts. */
  #giveBack(ring: Ring): void {
    this.#taken.delete(ringKey(ring));
    this.fill({ workClass: classOf(ring.kind), isUrgent: true });
  }
}
