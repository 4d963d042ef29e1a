// The doorbell of a world: a stream of rings that all servers publish to and all workers pull from.
import type { Doorbell, Pull, Rung } from "../../mixins/notifications.ts";
import type { Ring } from "../../schemas/decider.ts";
import { classOf } from "../../schemas/work-class.ts";
import type { Network } from "./network.ts";
import type { Owner, Scheduler } from "./scheduler.ts";
import type { Weather } from "./weather.ts";

/** A pull that finds nothing ends after this. */
const SILENCE_MS = 1_500;
/** A ring that nobody has acknowledged by then is brought again. */
const ACK_WAIT_MS = 8_000;

interface Puller {
  pull: Pull;
  owner: Owner;
  resolve: (rungs: Rung[]) => void;
}

export class Bell {
  readonly owner: Owner = { name: "nats", alive: true, frozenUntil: 0 };
  readonly #wire: { scheduler: Scheduler; network: Network; weather: Weather };
  #waiting: Ring[] = [];
  #pullers: Puller[] = [];

  constructor(wire: { scheduler: Scheduler; network: Network; weather: Weather }) {
    this.#wire = wire;
  }

  /** Everything in it is lost. */
  empty(): void {
    this.#waiting = [];
  }

  /** The doorbell as one process has it; `heard` is told of each ring that is rung. */
  of(owner: Owner, heard: (ring: Ring) => void): Doorbell {
    const { scheduler, network, weather } = this.#wire;
    const counters = { rung: 0, lost: 0, malformed: 0, given_up: 0 };
    const { signal: never } = new AbortController();
    return {
      counters,
      ring: ring => {
        heard(ring);
        const sent = JSON.parse(JSON.stringify(ring)) as Ring;
        network.send("ring", owner, this.owner, () => this.#arrive(sent));
      },
      // What waits is found by the pull that follows.
      look: () => Promise.resolve([]),
      fetch: (pull, signal) => {
        const { promise, resolve } = Promise.withResolvers<Rung[]>();
        if (signal.aborted) return Promise.resolve([]);
        const puller = { pull, owner, resolve };
        const give = () => {
          this.#pullers = this.#pullers.filter(one => one !== puller);
          resolve([]);
        };
        const silence = scheduler.after(SILENCE_MS, "pull:silence", give, owner);
        signal.addEventListener("abort", give, { once: true });
        network.send("pull", owner, this.owner, () => {
          if (silence.cancelled) return;
          this.#pullers.push(puller);
          this.#serve();
        });
        void promise.then(() => (silence.cancelled = true));
        return promise;
      },
      // All rings go to the pool: nobody is rung by name.
      attend: () => Promise.resolve(),
      waiting: () => 0,
      urgent: () => 0,
      connected: () => !weather.isNatsAway,
      lost: () => never,
      unanswered: () => undefined,
      lanes: () => Promise.resolve([]),
    };
  }

  #arrive(ring: Ring): void {
    this.#waiting.push(ring);
    this.#serve();
  }

  #serve(): void {
    for (const puller of [...this.#pullers]) {
      const { work_class, max } = puller.pull;
      const rings = this.#waiting.filter(ring => classOf(ring.kind) === work_class).slice(0, max);
      if (puller.owner.alive && rings.length === 0) continue;
      this.#pullers.splice(this.#pullers.indexOf(puller), 1);
      if (!puller.owner.alive) continue;
      this.#waiting = this.#waiting.filter(ring => !rings.includes(ring));
      const { network } = this.#wire;
      const rungs = rings.map(ring => this.#lend(ring));
      network.send("rings", this.owner, puller.owner, () => puller.resolve(rungs));
    }
  }

  #lend(ring: Ring): Rung {
    const { scheduler } = this.#wire;
    const again = scheduler.after(ACK_WAIT_MS, "redeliver", () => this.#arrive(ring));
    const ack = () => void (again.cancelled = true);
    const giveBack = () => {
      ack();
      this.#arrive(ring);
    };
    return { ...ring, ack, giveBack };
  }
}
