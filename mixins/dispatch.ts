// Rings on their way to workers: to one that has room first, to all when it does not take them. A
// hint in both cases: what is lost is rung again, to all, when its stream is woken.
import type { WorkerCapacity } from "../schemas/worker-capacity.ts";
import { isUrgent, type Ring } from "../schemas/decider.ts";
import { COMMAND_TERMINALS, type StoredEvent } from "../schemas/events.ts";
import { classOf, type WorkClass } from "../schemas/work-class.ts";
import type { CapacityRegistry } from "./capacity.ts";
import type { Clock } from "./clock.ts";
import type { Doorbell } from "./notifications.ts";
import type { Offers } from "./offers.ts";

export interface DispatchCounters {
  /** Given to a worker when they were issued, without a ring. */
  assigned: number;
  targeted: number;
  broadcast: number;
  /** Offered to all because the worker that was meant did not take it in time. */
  reoffered: number;
}

/** Whose a command is. */
export type Claimant = Pick<WorkerCapacity, "worker_id" | "incarnation">;

export interface Dispatch {
  readonly counters: DispatchCounters;
  /** `again`: it was rung before, and nobody has claimed it since. */
  ring(ring: Ring, again: boolean): void;
  /**
   * A worker for a command that is about to be issued, which is its own then; its slot counts as
   * taken from now on. Undefined when nobody who can be reached is known to have room to spare.
   */
  assign(ring: Ring, isReachable: (workerId: string) => boolean): Claimant | undefined;
  /** It was not issued like that. */
  unassign(commandId: string): void;
  hear(capacity: WorkerCapacity): void;
  /** A worker is gone: what it was meant to take is for all. */
  leave(workerId: string): void;
  /** Learns from committed facts who took or ended what. */
  settle(events: readonly StoredEvent[]): void;
  /** Commands that nobody known can run, by what they need: told once each time it is asked. */
  unserved(): Ring[];
}

export interface DispatchPorts {
  doorbell: Pick<Doorbell, "ring">;
  offers: Offers;
  registry: CapacityRegistry;
  clock: Pick<Clock, "now" | "after">;
  isTargeted: boolean;
  patienceMs: number;
}

interface Sent {
  ring: Ring;
  to: string;
  at: number;
}

/** Commands remembered as unserved between two looks at most. */
const UNSERVED_MAX = 1_000;
/** Workers that one command is offered to by name at most. */
const NAMED_MAX = 16;
/** Facts after which whoever held the command has its slot again. */
const ENDS: ReadonlySet<string> = new Set([...COMMAND_TERMINALS, "command.released"]);

export function createDispatch(ports: DispatchPorts): Dispatch {
  return new Dispatcher(ports);
}

class Dispatcher implements Dispatch {
  readonly counters = { assigned: 0, targeted: 0, broadcast: 0, reoffered: 0 };
  readonly #ports: DispatchPorts;
  /** By command, the oldest first. */
  readonly #sent = new Map<string, Sent>();
  /** Commands that are being issued as a worker's own, with the worker. */
  readonly #assigned = new Map<string, { ring: Ring; to: string }>();
  readonly #unserved = new Map<string, Ring>();
  /** Items that are for all, the oldest first; taken ones are dropped when it is asked for them. */
  readonly #forAll: Record<WorkClass, Set<string>> = { general: new Set(), database: new Set() };
  #isLooking = false;

  constructor(ports: DispatchPorts) {
    this.#ports = ports;
  }

  ring(ring: Ring, again: boolean): void {
    const { offers, registry, clock, doorbell, isTargeted } = this.#ports;
    offers.add(ring);
    const isByName = isTargeted && !again && !this.#isBehind(ring);
    const to = isByName ? registry.choose(ring) : undefined;
    if (to === undefined) return this.#toAll(ring);
    this.counters.targeted += 1;
    this.#sent.delete(ring.command_id);
    this.#sent.set(ring.command_id, { ring, to, at: clock.now() });
    doorbell.ring(ring, to);
    this.#lookLater();
  }

  assign(ring: Ring, isReachable: (workerId: string) => boolean): Claimant | undefined {
    const { isTargeted, registry } = this.#ports;
    const chosen = isTargeted ? registry.spare(ring, isReachable) : undefined;
    if (!chosen) return undefined;
    const { worker_id, incarnation } = chosen;
    this.#assigned.set(ring.command_id, { ring, to: worker_id });
    return { worker_id, incarnation };
  }

  unassign(commandId: string): void {
    const meant = this.#assigned.get(commandId);
    this.#assigned.delete(commandId);
    if (meant) this.#ports.registry.count(meant.to, meant.ring.kind, -1);
  }

  hear(capacity: WorkerCapacity): void {
    const { registry } = this.#ports;
    registry.hear(capacity);
    // It has not seen these yet, or not said so.
    for (const { to, ring } of [...this.#sent.values(), ...this.#assigned.values()]) {
      if (to === capacity.worker_id) registry.count(to, ring.kind, 1);
    }
  }

  leave(workerId: string): void {
    this.#ports.registry.drop(workerId);
    for (const one of this.#sent.values()) if (one.to === workerId) this.#retire(one);
  }

  settle(events: readonly StoredEvent[]): void {
    for (const event of events) this.#learn(event);
  }

  unserved(): Ring[] {
    const rings = [...this.#unserved.values()];
    this.#unserved.clear();
    return rings.filter(ring => this.#ports.offers.has(ring.command_id));
  }

  /** Items take their turn: by name they would overtake all that others have waiting. */
  #isBehind(ring: Ring): boolean {
    if (isUrgent(ring)) return false;
    const waiting = this.#forAll[classOf(ring.kind)];
    for (const id of waiting) {
      if (this.#ports.offers.has(id)) return true;
      waiting.delete(id);
    }
    return false;
  }

  #toAll(ring: Ring): void {
    const { registry, doorbell, isTargeted } = this.#ports;
    this.counters.broadcast += 1;
    const able = ring.requires ? registry.serving(ring) : [];
    // In the pool it would come to workers that must leave it: it goes to all that can have it.
    if (able.length > 0) for (const id of able.slice(0, NAMED_MAX)) doorbell.ring(ring, id);
    else {
      if (isTargeted && !isUrgent(ring)) this.#forAll[classOf(ring.kind)].add(ring.command_id);
      doorbell.ring(ring);
    }
    // Nobody known can run it; somebody unknown may, so it is rung all the same.
    const isUnserved = ring.requires !== undefined && able.length === 0;
    if (isUnserved && this.#unserved.size < UNSERVED_MAX) {
      this.#unserved.set(ring.command_id, ring);
    }
  }

  readonly #look = (): void => {
    const { clock, patienceMs } = this.#ports;
    this.#isLooking = false;
    const now = clock.now();
    for (const one of this.#sent.values()) {
      if (one.at + patienceMs > now) break;
      this.#retire(one);
    }
    this.#lookLater();
  };

  #lookLater(): void {
    if (this.#isLooking || this.#sent.size === 0) return;
    this.#isLooking = true;
    this.#ports.clock.after(this.#ports.patienceMs / 2, this.#look);
  }

  /** It was not taken in time, or never will be. */
  #retire({ ring, to }: Sent): void {
    const { offers, registry } = this.#ports;
    this.#sent.delete(ring.command_id);
    if (!offers.has(ring.command_id)) return;
    registry.count(to, ring.kind, -1);
    this.counters.reoffered += 1;
    this.#toAll(ring);
  }

  #learn(event: StoredEvent): void {
    const { registry } = this.#ports;
    const { worker_id, command_id } = event.meta as { worker_id?: string; command_id?: string };
    if (!worker_id || !command_id) return;
    if (isEnd(event)) return registry.count(worker_id, undefined, -1);
    if (!isClaim(event)) return;
    if (this.#assigned.delete(command_id)) {
      this.counters.assigned += 1;
      return;
    }
    const meant = this.#sent.get(command_id);
    this.#sent.delete(command_id);
    if (meant?.to === worker_id) return;
    if (meant) registry.count(meant.to, meant.ring.kind, -1);
    registry.count(worker_id, undefined, 1);
  }
}

function isClaim({ event_type, meta }: StoredEvent): boolean {
  return (
    event_type === "command.claimed" || (event_type === "command.issued" && "claim_id" in meta)
  );
}

function isEnd({ event_type, meta }: StoredEvent): boolean {
  if (event_type === "frame.committed") return (meta as { final: boolean }).final;
  return ENDS.has(event_type);
}
