// What a worker asks for with an outcome: the command that its slot could run next.
import { randomUUID } from "node:crypto";
import type { Clock } from "../../mixins/clock.ts";
import type { Doorbell } from "../../mixins/notifications.ts";
import type { NextClaim } from "../../schemas/command.ts";
import { isUrgent, type ActorKind } from "../../schemas/decider.ts";
import { WORK_CLASSES } from "../../schemas/work-class.ts";
import type { WorkerIdentity } from "./identity.ts";
import type { Ledger, Slot } from "./ledger.ts";

/** Commands one slot takes from hand to hand before it looks what else waits. */
const HANDED_MAX = 32;
/**
 * Items of loops for no longer, and none after one that took so long: a loop must not keep slots
 * from everybody else, and to items that are slow, or wait for a limit, a look costs little.
 */
const HANDED_MS = 1_000;
const QUICK_MS = 250;

/** The commands of one slot, from hand to hand. */
export class Hands {
  readonly #clock: Pick<Clock, "now">;
  readonly #begun: number;
  #count = 0;
  #last: number;

  constructor(clock: Pick<Clock, "now">) {
    this.#clock = clock;
    this.#begun = this.#last = clock.now();
  }

  /** One more command begins. */
  begin(): void {
    this.#count += 1;
    this.#last = this.#clock.now();
  }

  /** Whether the slot may take another one, now that this one has run. */
  goOn(actor: ActorKind): boolean {
    const now = this.#clock.now();
    const isQuick = now - this.#last < QUICK_MS && now - this.#begun < HANDED_MS;
    return this.#count <= HANDED_MAX && (isQuick || isUrgent({ actor }));
  }
}

interface Asking {
  doorbell: Pick<Doorbell, "waiting" | "urgent">;
  slots: Ledger;
  me: WorkerIdentity;
  offers: string[];
}

/**
 * Whoever waits for this slot goes first: a long loop must not keep a short run waiting. The slot
 * is one of the database class until the answer says what is to come, where there is room.
 */
export function nextClaim(
  slot: Slot,
  actor: ActorKind,
  { doorbell, slots, me, offers }: Asking,
): NextClaim | undefined {
  if (slots.isClosed) return undefined;
  const takesAll = slots.move(slot.workClass, "database", 1);
  if (takesAll) slot.workClass = "database";
  const classes = takesAll ? WORK_CLASSES : (["general"] as const);
  const others = isUrgent({ actor }) ? "urgent" : "waiting";
  if (classes.some(one => doorbell[others](one) > 0)) return undefined;
  const { worker_id, incarnation } = me;
  const claim = { worker_id, incarnation, claim_id: randomUUID(), offers };
  return { ...claim, ...(!takesAll && { only: "general" }) };
}
