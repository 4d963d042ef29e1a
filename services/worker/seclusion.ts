// The last delivery of a command whose workers have died runs by itself: whoever was only beside a
// command that kills its workers gets off then, and nobody is given up for another one's deed.
import type { Clock } from "../../mixins/clock.ts";
import type { Rung } from "../../mixins/notifications.ts";
import type { ActorKind } from "../../schemas/decider.ts";
import type { Ledger } from "./ledger.ts";

/**
 * So long nothing else is begun before it. What has run for as long without a death may go on
 * beside it: a long command must not keep it waiting for ever, nor slots empty for hours.
 */
const QUIET_MAX_MS = 10_000;

export interface SeclusionPorts {
  ledger: Ledger;
  clock: Clock;
  /** Deliveries that may end by the worker's death. */
  maxAttempts: number;
}

/** What becomes of rings that have a slot each. */
export interface Admitting {
  /** Resolves when they have run; what they had is given. */
  claim(actor: ActorKind, rings: Rung[]): Promise<void>;
  /** So many slots are not needed. */
  ended(count: number): void;
  signal: AbortSignal;
}

export class Seclusion {
  readonly #ports: SeclusionPorts;
  /** Commands that are alone now: one, or more while others of them wait. */
  readonly #alone = new Set<string>();

  constructor(ports: SeclusionPorts) {
    this.#ports = ports;
  }

  /** Claims and runs what came: side by side, but for one that must be alone at last. */
  async admit(rings: Rung[], admitting: Admitting): Promise<void> {
    const { claim } = admitting;
    if (this.#ports.ledger.isClosed) return giveBack(rings, admitting);
    const [alone, ...others] = rings.filter(ring => this.#isLast(ring));
    giveBack(others, admitting);
    const together = rings.filter(ring => !this.#isLast(ring));
    const groups = Map.groupBy(together, ring => ring.actor);
    const work = [...groups].map(([actor, group]) => claim(actor, group));
    if (alone) work.push(this.#claimAlone(alone, admitting));
    await Promise.all(work);
  }

  #isLast({ deaths = 0 }: Rung): boolean {
    return deaths > 0 && deaths + 1 >= this.#ports.maxAttempts;
  }

  /** Nothing else gets a slot from now until it has ended. */
  async #claimAlone(ring: Rung, admitting: Admitting): Promise<void> {
    const { ledger, clock } = this.#ports;
    const { signal, claim } = admitting;
    const patience = new AbortController();
    ledger.close();
    const cancel = clock.after(QUIET_MAX_MS, () => patience.abort());
    try {
      await ledger.quiet(AbortSignal.any([signal, patience.signal]));
      this.#alone.add(ring.command_id);
      if (signal.aborted) giveBack([ring], admitting);
      else await claim(ring.actor, [ring]);
    } finally {
      cancel();
      this.#alone.delete(ring.command_id);
      ledger.open();
    }
  }

  /**
   * Around a wait of a command that gives its slot away meanwhile: one that is alone lets others
   * in, as it may wait for them.
   */
  async waiting<T>(commandId: string, wait: Promise<T>): Promise<T> {
    if (!this.#alone.has(commandId)) return wait;
    const { ledger } = this.#ports;
    ledger.open();
    try {
      return await wait;
    } finally {
      ledger.close();
    }
  }
}

function giveBack(rings: Rung[], { ended }: Admitting): void {
  for (const ring of rings) ring.giveBack();
  ended(rings.length);
}
