// Work on its way to a worker: asked for only when there is room, and never more than fits. Each
// class is pulled by itself, so that one that is full never holds the other back.
import type { Clock } from "../../mixins/clock.ts";
import type { Doorbell, Pull, Rung } from "../../mixins/notifications.ts";
import type { ServerLink } from "../../mixins/server-link.ts";
import type { Ring } from "../../schemas/decider.ts";
import { classOf, type WorkClass } from "../../schemas/work-class.ts";
import type { Ledger } from "./ledger.ts";

/** Pause after a pull that failed. */
const PAUSE_MS = 1_000;
/** Between two looks while neither the doorbell nor a server can be reached. */
const QUIET_MS = 500;
/** Between two looks for work that may not keep a slot while it waits. */
const LOOK_MS = 100;

export interface PullPorts {
  clock: Clock;
  doorbell: Doorbell;
  link: ServerLink;
  ledger: Ledger;
  /** Takes these over, each with a slot of its class. */
  take(rings: Rung[], workClass: WorkClass): void;
  failed(error: unknown): void;
}

/** Pulls one class of work until `signal` aborts; then none is on its way any more. */
export async function pullClass(
  workClass: WorkClass,
  ports: PullPorts,
  signal: AbortSignal,
): Promise<void> {
  const { ledger, clock } = ports;
  while (!signal.aborted) {
    const slots = await ledger.reserve(workClass, signal);
    if (slots === 0) return;
    const hold = new Hold(ledger, workClass, slots);
    let pause = 0;
    try {
      const found = await pullInto(hold, ports, signal);
      pause = found ?? LOOK_MS;
    } catch (error) {
      ports.failed(error);
      pause = PAUSE_MS;
    } finally {
      hold.giveBack();
    }
    if (pause > 0 && !signal.aborted) await clock.sleep(pause);
  }
}

/** Slots that are taken and have no work yet. */
class Hold {
  readonly #ledger: Ledger;
  readonly workClass: WorkClass;
  count: number;

  constructor(ledger: Ledger, workClass: WorkClass, count: number) {
    this.#ledger = ledger;
    this.workClass = workClass;
    this.count = count;
  }

  /** These have work: they are its own now. */
  used(count: number): void {
    this.count -= count;
    this.#ledger.use(count);
  }

  giveBack(keep = 0): void {
    const spare = Math.max(0, this.count - keep);
    this.count -= spare;
    if (spare > 0) this.#ledger.unreserve(this.workClass, spare);
  }
}

/** The pause before the next pull, milliseconds; undefined when slots may not wait for work. */
async function pullInto(
  hold: Hold,
  ports: PullPorts,
  signal: AbortSignal,
): Promise<number | undefined> {
  const { doorbell, ledger } = ports;
  const { workClass: work_class } = hold;
  const pull = { work_class, max: hold.count };
  const there = doorbell.connected() ? await doorbell.look(pull) : await asked(pull, ports, signal);
  if (there.length > 0) return admit(there, hold, ports, signal);
  hold.giveBack(1);
  const come = await ledger.idle(work_class, signal, yields => wait(work_class, ports, yields));
  return come && admit(come, hold, ports, signal);
}

/** What the doorbell brings; when it is silent, what the servers know to wait. */
async function wait(
  work_class: WorkClass,
  { doorbell, link, clock }: PullPorts,
  signal: AbortSignal,
): Promise<Rung[]> {
  const rung = await doorbell.fetch({ work_class, max: 1 }, signal);
  if (rung.length > 0 || signal.aborted) return rung;
  const told = await link.waiting({ work_class, max: 1 }, signal);
  if (told.length === 0 && !signal.aborted && !doorbell.connected()) await clock.sleep(QUIET_MS);
  return told.map(rungOf);
}

/** What the servers know to wait at this moment. */
async function asked(pull: Pull, { link }: PullPorts, signal: AbortSignal): Promise<Rung[]> {
  return (await link.waiting(pull, signal, 0)).map(rungOf);
}

/** Nobody acknowledges what a server told: it knows of the claim. */
function rungOf(ring: Ring): Rung {
  return { ...ring, ack: () => undefined, giveBack: () => undefined };
}

/** What came has a slot each. An older server rings database work where this one has no room. */
function admit(rings: Rung[], hold: Hold, ports: PullPorts, signal: AbortSignal): number {
  for (const [workClass, group] of Map.groupBy(rings, ring => classOf(ring.kind))) {
    const { length: count } = group;
    if (!signal.aborted && ports.ledger.move(hold.workClass, workClass, count)) {
      hold.used(count);
      ports.take(group, workClass);
    } else for (const ring of group) ring.giveBack();
  }
  return 0;
}
