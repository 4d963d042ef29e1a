// The commands that a worker claims, runs, or has still to report, each with what ends it.
import { abandoned } from "../../schemas/command-failures.ts";
import type { StoredEvent } from "../../schemas/events.ts";

/** Why a run is ended whose command is over: its work is of no use to anybody. */
export class CommandAbandoned extends Error {}

export class Held {
  readonly #controllers = new Map<string, AbortController>();

  get ids(): string[] {
    return [...this.#controllers.keys()];
  }

  has(commandId: string): boolean {
    return this.#controllers.has(commandId);
  }

  /** Holds it from now on, if it did not yet; what ends its run. */
  add(commandId: string): AbortSignal {
    const controller = this.#controllers.get(commandId) ?? new AbortController();
    this.#controllers.set(commandId, controller);
    return controller.signal;
  }

  drop(commandId: string): void {
    this.#controllers.delete(commandId);
  }

  /** Ends everything that runs: the worker has no time left. */
  endAll(): void {
    for (const controller of this.#controllers.values())
      controller.abort(new Error("worker stops"));
  }

  /** Ends work that is of no use to anybody: its command is over. How many ran here. */
  abandon(commandIds: string[]): number {
    const running = commandIds.flatMap(id => this.#controllers.get(id) ?? []);
    for (const controller of running) controller.abort(new CommandAbandoned());
    return running.length;
  }

  /** The same, of what facts say. */
  heed(events: StoredEvent[]): void {
    for (const event of events) {
      const command = abandoned(event);
      if (command) this.abandon([command.command_id]);
    }
  }
}
