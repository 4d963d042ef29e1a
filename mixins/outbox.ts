// What a stream has yet to say: rings and messages, sent after commits and loads, again on wake.
import type { Assignment, Effect, Machine } from "../schemas/decider.ts";
import { errorType } from "../schemas/errors.ts";
import type { ActorPorts } from "./actor.ts";
import type { StreamName } from "./event-store.ts";

/** A wake that comes a little before its time repeats what is nearly due. */
const EARLY_MS = 500;

type Ports = Pick<ActorPorts<never, never, never>, "ring" | "deliver" | "warn" | "settings">;
interface Ways {
  /** Tells the holder of a command. */
  assign(assignment: Assignment): Promise<void>;
  /** Called after each message that its receiver has taken. */
  acknowledged(): void;
}
type Pending<State> = Pick<Machine<State, never, unknown>, "pending">;

/**
 * Effects are a function of the state (design §5 rule 3): nothing here is needed to be right, it
 * only remembers what need not be repeated yet.
 */
export class Outbox<State> {
  readonly #machine: Pending<State>;
  readonly #ports: Ports;
  readonly #name: StreamName;
  readonly #ways: Ways;
  /** What is pending in a state that `owes` was asked of: `send` comes next, and drops it. */
  #found: { state: State; pending: Effect[] } | undefined;
  #sent = new Map<string, number>();
  #acked = new Set<string>();

  constructor(machine: Pending<State>, ports: Ports, name: StreamName, ways: Ways) {
    this.#machine = machine;
    this.#ports = ports;
    this.#name = name;
    this.#ways = ways;
  }

  /** Sends what is pending and was not sent before; on wake also what was sent a while ago. */
  send(state: State, now: number, woken: boolean): void {
    const pending = this.#pendingIn(state);
    this.#found = undefined;
    const repeatBefore = now - this.#ports.settings.rering_ms + EARLY_MS;
    const sent = new Map<string, number>();
    for (const effect of pending) {
      const before = this.#sent.get(effect.key);
      const due = before === undefined || (woken && before <= repeatBefore);
      sent.set(effect.key, due ? now : before);
      if (due && !this.#acked.has(effect.key)) this.#send(effect, before !== undefined);
    }
    this.#sent = sent;
    for (const key of this.#acked) if (!sent.has(key)) this.#acked.delete(key);
  }

  /** Something is pending that nobody has acknowledged. */
  owes(state: State): boolean {
    const pending = this.#pendingIn(state);
    this.#found = { state, pending };
    for (const effect of pending) {
      if (!this.#acked.has(effect.key)) return true;
    }
    return false;
  }

  /** A turn asks twice of its state, which changes no more then. */
  #pendingIn(state: State): Effect[] {
    if (this.#found?.state === state) return this.#found.pending;
    return [...this.#machine.pending(state)];
  }

  forget(): void {
    this.#found = undefined;
    this.#sent = new Map();
    this.#acked = new Set();
  }

  #send(effect: Effect, again: boolean): void {
    if (effect.kind === "ring") return this.#ports.ring(effect.ring, again);
    const told =
      effect.kind === "message"
        ? this.#ports.deliver(effect.to, effect.input)
        : this.#ways.assign(effect);
    told.then(
      () => this.#take(effect.key),
      (error: unknown) => {
        // Who does not exist need not know.
        if (isUnknown(error)) this.#take(effect.key);
        else this.#ports.warn(error, this.#name);
      },
    );
  }

  #take(key: string): void {
    this.#acked.add(key);
    this.#ways.acknowledged();
  }
}

function isUnknown(error: unknown): boolean {
  const data = (error as { data?: { reason?: unknown } } | null)?.data;
  return errorType(error) === "REJECTED" && data?.reason === "unknown";
}
