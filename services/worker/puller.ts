// Work on its way to a worker: asked for only when there is room, and never more than fits. Each
// class is pulled by itself, so that one that is full never holds the other back.
import type { Clock } from "../../mixins/clock.ts";
import type { Doorbell, Pull, Rung } from "../../mixins/notifications.ts";
import type { ServerLink } from "../../mixins/server-link.ts";
import type { Ring } from "../../schemas/decider.ts";
import { classOf, type WorkClass } from "../../schemas/work-class.ts";
import type { Admission, CapacityGate } from "./gate/gate.ts";
import type { Ledger } from "./ledger.ts";

/** Pause after a pull that failed. */
const PAUSE_MS = 1_000;
/** Between two looks while neither the doorbell nor a server can be reached. */
const QUIET_MS = 500;
/** Between two looks for work that may not keep a slot while it waits. */
const LOOK_MS = 100;
/** The same, growing, where others were asked whether there is room: none of it is kept waiting. */
const GATED_MIN_MS = 250;
const GATED_MAX_MS = 1_000;

export interface PullPorts {
  clock: Clock;
  doorbell: Doorbell;
  link: ServerLink;
  ledger: Ledger;
  gate: CapacityGate;
  /** Room that others gave must not wait for work. */
  isGated: boolean;
  /** Takes these over, each with a slot of its class. */
  take(rings: Rung[], workClass: WorkClass): void;
  /** Whether a pull was answered: `why` not, or undefined. */
  pulled(workClass: WorkClass, why: string | undefined): void;
  failed(error: unknown): void;
}

/** Pulls one class of work until `signal` aborts; then none is on its way any more. */
export async function pullClass(
  workClass: WorkClass,
  ports: PullPorts,
  signal: AbortSignal,
): Promise<void> {
  const { gate, clock } = ports;
  for (let empty = 0; !signal.aborted;) {
    let pause = 0;
    let hold: Hold | undefined;
    try {
      hold = new Hold(ports, workClass, await gate.acquire(signal));
      signal.throwIfAborted();
      const found = await pullInto(hold, ports, signal);
      empty = found ? 0 : empty + 1;
      if (found === undefined) pause = ports.isGated ? gatedMs(empty) : LOOK_MS;
    } catch (error) {
      if (signal.aborted) break;
      ports.failed(error);
      pause = PAUSE_MS;
    } finally {
      hold?.giveBack();
    }
    if (pause > 0 && !signal.aborted) await clock.sleep(pause);
  }
}

function gatedMs(empty: number): number {
  return Math.min(GATED_MAX_MS, GATED_MIN_MS * empty);
}

/** Slots that are taken and have no work yet. */
class Hold {
  readonly workClass: WorkClass;
  readonly #ledger: Ledger;
  readonly #admission: Admission;
  #count: number;

  constructor({ ledger }: PullPorts, workClass: WorkClass, admission: Admission) {
    this.workClass = workClass;
    this.#ledger = ledger;
    this.#admission = admission;
    this.#count = admission.budget;
  }

  get count(): number {
    return this.#count;
  }

  /** These have work: they are its own now, in its class; false when there is no room in that. */
  moveTo(workClass: WorkClass, count: number): boolean {
    if (!this.#ledger.move(this.workClass, workClass, count)) return false;
    this.#count -= count;
    this.#ledger.use(this.workClass, count);
    this.#admission.use(count);
    return true;
  }

  giveBack(keep = 0): void {
    const spare = Math.max(0, this.#count - keep);
    this.#count -= spare;
    if (spare > 0) this.#admission.release(spare);
  }
}

/** How many came; undefined when nothing is there and slots may not wait for it. */
async function pullInto(
  hold: Hold,
  ports: PullPorts,
  signal: AbortSignal,
): Promise<number | undefined> {
  const { doorbell, ledger, isGated } = ports;
  const { workClass: work_class } = hold;
  const pull = { work_class, max: hold.count };
  const there = doorbell.connected() ? await doorbell.look(pull) : await asked(pull, ports, signal);
  if (doorbell.connected()) ports.pulled(work_class, doorbell.unanswered(work_class));
  if (there.length > 0) return admit(there, hold, ports, signal);
  const isHeard = doorbell.connected();
  if (isGated && isHeard) return undefined;
  hold.giveBack(1);
  const come = await ledger.idle(work_class, signal, yields => wait(work_class, ports, yields));
  // It may have been a long wait.
  if (come && come.length > 0 && !(await ports.gate.isOpen(signal))) {
    for (const ring of come) ring.giveBack();
    return undefined;
  }
  return come && admit(come, hold, ports, signal);
}

/** What the doorbell brings; when it is silent, what the servers know to wait. */
async function wait(
  work_class: WorkClass,
  { doorbell, link, clock, pulled }: PullPorts,
  signal: AbortSignal,
): Promise<Rung[]> {
  const rung = await doorbell.fetch({ work_class, max: 1 }, signal);
  if (rung.length > 0 || signal.aborted) return rung;
  const told = await link.waiting({ work_class, max: 1 }, signal);
  if (!signal.aborted) {
    const isOverHttp = !doorbell.connected() && link.isHeardOverHttp;
    const why = isOverHttp ? undefined : doorbell.unanswered(work_class);
    pulled(work_class, why);
    // Nobody is there to wait with: the next question would be asked at once.
    if (told.length === 0 && (why !== undefined || !doorbell.connected())) {
      await clock.sleep(QUIET_MS);
    }
  }
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
    const isAdmitted = !signal.aborted && hold.moveTo(workClass, group.length);
    if (isAdmitted) ports.take(group, workClass);
    else for (const ring of group) ring.giveBack();
  }
  return rings.length;
}
