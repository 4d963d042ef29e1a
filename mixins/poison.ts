// Turns that fail for a reason of ours: counted, logged, and after a few the stream is parked
// (design §5 rule 7).
import { Unavailable, errorType } from "../schemas/errors.ts";
import type { ActorPorts } from "./actor.ts";
import type { StreamName } from "./event-store.ts";

/** Turns that may fail before the stream is parked. */
const FAILURES_MAX = 3;

type Ports = Pick<ActorPorts<never, never, never>, "store" | "failed" | "warn">;

/** A turn that met a bug of ours, with the input that met it when that is known. */
export class TurnFailure extends Error {
  readonly entry: unknown;
  /** It would fail the same way again: the stream is parked at once. */
  readonly final: boolean;

  constructor(cause: unknown, what: { entry?: unknown; final?: boolean }) {
    super("a turn failed", { cause });
    this.entry = what.entry;
    this.final = what.final ?? false;
  }
}

export class Poison {
  readonly #ports: Ports;
  readonly #name: StreamName;
  #failures = 0;

  constructor(ports: Ports, name: StreamName) {
    this.#ports = ports;
    this.#name = name;
  }

  /** A turn went well. */
  forget(): void {
    this.#failures = 0;
  }

  /**
   * Counts a failed turn; says which input is guilty, if only one is, and what its sender is told.
   */
  async note(error: unknown): Promise<{ guilty: unknown; answer: unknown }> {
    const failure = error instanceof TurnFailure ? error : undefined;
    const cause = failure?.cause ?? error;
    const guilty = failure?.entry;
    if (isForeign(cause)) this.#ports.warn(cause, this.#name);
    if (errorType(cause) !== "") return { guilty, answer: cause };
    this.#failures += failure?.final ? FAILURES_MAX : 1;
    this.#ports.failed(cause, this.#name, this.#failures);
    const { stream_id } = this.#name;
    const text = cause instanceof Error ? cause.message : String(cause);
    if (this.#failures >= FAILURES_MAX) await this.#park(text);
    const answer = new Unavailable(`stream ${stream_id} cannot take this: ${text}`, { stream_id });
    return { guilty, answer };
  }

  async #park(text: string): Promise<void> {
    try {
      await this.#ports.store.park(this.#name.stream_id, text);
    } catch (error) {
      this.#ports.warn(error, this.#name);
    }
  }
}

/** The log holds what only a newer build knows: waiting does not help. */
export function isForeign(error: unknown): boolean {
  return (error as { data?: { event_type?: unknown } } | null)?.data?.event_type !== undefined;
}
