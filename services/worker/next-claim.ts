// What a worker asks for with an outcome: the command that its slot could run next.
import { randomUUID } from "node:crypto";
import type { Doorbell } from "../../mixins/notifications.ts";
import type { NextClaim } from "../../schemas/command.ts";
import { isUrgent, type ActorKind } from "../../schemas/decider.ts";
import { WORK_CLASSES } from "../../schemas/work-class.ts";
import type { WorkerIdentity } from "./identity.ts";
import type { Ledger, Slot } from "./ledger.ts";

/** Commands one slot takes from hand to hand before it looks what else waits. */
export const HANDED_MAX = 32;
/** And for no longer: a loop whose items are slow would keep all slots from everybody else. */
export const HANDED_MS = 1_000;

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
