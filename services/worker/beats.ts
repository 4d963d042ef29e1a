// A worker's signs of life. Liveness is its row: owners read it when a lease has passed.
import { batched } from "../../mixins/batched.ts";
import type { Runtime } from "../../mixins/runtime.ts";
import type { JsonObject } from "../../schemas/json.ts";
import type { Gates } from "./gate/open.ts";
import type { WorkerIdentity } from "./identity.ts";

export interface BeatParts {
  runtime: Pick<Runtime, "clock" | "store" | "workers" | "settings">;
  me: WorkerIdentity;
  gates: Pick<Gates, "isAskingOthers" | "setWorkers">;
  /** What the row says at this moment. */
  told(): { status: "ready" | "draining"; capacity: JsonObject };
  /** Commands that this worker has, and what ends those that are over. */
  held(): string[];
  abort(commandIds: string[]): void;
  failed(error: unknown): void;
}

export class Beats {
  readonly #parts: BeatParts;
  #cancel = () => {};
  #isOver = false;
  /** Of two at once the older could write the row last: one is on its way, the next ones wait. */
  readonly #inTurn = batched<void, void>(async calls => {
    await this.#beat();
    return calls;
  });

  constructor(parts: BeatParts) {
    this.#parts = parts;
  }

  /** Beats now, and from then on at its pace. */
  async begin(): Promise<void> {
    await this.now();
    if (this.#isOver) return;
    const { clock, settings } = this.#parts.runtime;
    this.#cancel = clock.after(settings.worker.beatMs, () => void this.begin());
  }

  /** Once more, out of turn. Never throws. */
  now(): Promise<void> {
    return this.#inTurn();
  }

  async #beat(): Promise<void> {
    if (this.#isOver) return;
    const { runtime, me, gates, told, held, abort, failed } = this.#parts;
    const { store, workers, settings } = runtime;
    const { status, capacity } = told();
    try {
      await workers.beat({ ...me, capacity }, status);
      if (gates.isAskingOthers)
        gates.setWorkers(await workers.countReady(settings.command.leaseMs));
      // Whoever ended them has said so, once; without NATS, or by bad luck, nobody has heard it.
      const ids = held();
      if (ids.length > 0) abort(await store.findOver(ids));
    } catch (error) {
      failed(error);
    }
  }

  /** Resolves when none is on its way: what is written then stays. */
  end(): Promise<void> {
    this.#isOver = true;
    this.#cancel();
    return this.#inTurn();
  }
}
