// Who uses the runtime: starts runs, cancels some, and redrives what failed. Asks again until it is
// answered.
import { errorType } from "../../schemas/errors.ts";
import { EXECUTION_TERMINALS, type StoredEvent } from "../../schemas/events.ts";
import type { SimBroker } from "./broker.ts";
import type { Story } from "./stories.ts";
import type { World } from "./world.ts";

const PATIENCE_MS = 4_000;

/** One run as its client knows it. */
export interface Run {
  story: Story;
  executionId?: string;
  wasCancelled: boolean;
  wasRedriven: boolean;
}

export interface Wish {
  story: Story;
  key: string;
  startAt: number;
  /** Milliseconds after its start. */
  cancelAfter?: number;
  /** The same; and how long it is to be held then. */
  pauseAfter?: { begin: number; hold: number };
  redrives: boolean;
}

const ENDS: ReadonlySet<string> = new Set(EXECUTION_TERMINALS);
const isEnd = ({ event_type }: StoredEvent) => ENDS.has(event_type);
const PAUSES: ReadonlySet<string> = new Set([
  "execution.pause_requested",
  "execution.paused",
  "execution.resumed",
]);

export class Client {
  readonly runs: Run[] = [];
  /** Wishes that are not fulfilled. */
  #open = 0;
  readonly #world: World;
  readonly #broker: SimBroker;

  constructor(world: World) {
    this.#world = world;
    this.#broker = world.boot("client", "client").broker;
  }

  get isDone(): boolean {
    return this.#open === 0;
  }

  wish(wish: Wish): void {
    this.#open += 1;
    const run: Run = { story: wish.story, wasCancelled: false, wasRedriven: false };
    this.runs.push(run);
    const { scheduler } = this.#world;
    const go = () => void this.#fulfil(wish, run).finally(() => (this.#open -= 1));
    scheduler.after(wish.startAt, "client:start", go, this.#broker.owner);
  }

  async #fulfil(wish: Wish, run: Run): Promise<void> {
    const { story, key, cancelAfter, pauseAfter, redrives } = wish;
    const params = { path: story.path, idempotency_key: key };
    const started = await this.#ask<{ execution_id: string }>("executions.start", params);
    const execution_id = started?.execution_id;
    if (execution_id === undefined) return;
    run.executionId = execution_id;
    const held = pauseAfter && this.#hold(execution_id, pauseAfter);
    if (cancelAfter !== undefined) {
      await this.#pause(cancelAfter);
      run.wasCancelled = true;
      await this.#ask("executions.cancel", { execution_id, reason: "the client asks" });
    } else if (redrives && story.expected === "FAILED") {
      await held;
      await this.#seeThrough(execution_id);
      if (this.#world.scheduler.chance(0.5)) this.#world.tools.mended.add(execution_id);
      run.wasRedriven = true;
      await this.#ask("executions.redrive", { execution_id, generation: 0 });
    }
    await held;
    await this.#seeThrough(execution_id);
    // A request that comes late is of the end that it has seen.
    if (run.wasRedriven) await this.#ask("executions.redrive", { execution_id, generation: 0 });
  }

  /** Pauses a run for a while. */
  async #hold(execution_id: string, { begin, hold }: { begin: number; hold: number }) {
    await this.#pause(begin);
    await this.#ask("executions.pause", { execution_id, reason: "the client asks" });
    await this.#pause(hold);
    await this.#ask("executions.resume", { execution_id, adopt: false });
  }

  /** To its end. A request to pause that comes late is taken back like the first one. */
  async #seeThrough(execution_id: string): Promise<void> {
    while (!this.#isOver(execution_id)) {
      await this.#pause(500);
      if (!this.#isHeld(execution_id)) continue;
      await this.#ask("executions.resume", { execution_id, adopt: false });
    }
  }

  #isHeld(executionId: string): boolean {
    const last = this.#world.tables.events
      .get(executionId)
      ?.findLast(({ event_type }) => PAUSES.has(event_type));
    return last !== undefined && last.event_type !== "execution.resumed";
  }

  #isOver(executionId: string): boolean {
    const events = this.#world.tables.events.get(executionId) ?? [];
    const last = events.findLast(one => isEnd(one) || one.event_type === "execution.redriven");
    return last !== undefined && isEnd(last);
  }

  /** Undefined when it is refused. */
  async #ask<T>(action: string, params: object): Promise<T | undefined> {
    for (;;) {
      try {
        return await this.#broker.call<T>(action, params, { timeout: PATIENCE_MS });
      } catch (error) {
        if (errorType(error) === "REJECTED") return undefined;
        await this.#pause(this.#world.scheduler.between(100, 800));
      }
    }
  }

  #pause(ms: number): Promise<void> {
    const { scheduler } = this.#world;
    return new Promise(resolve => {
      scheduler.after(ms, "client:wait", resolve, this.#broker.owner);
    });
  }
}
