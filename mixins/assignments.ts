// Commands that are issued as held by a worker with room to spare: neither a ring nor a claim
// stands before their run. What the worker does not take is given back, and rung.
import type { Assignment, Ring } from "../schemas/decider.ts";
import { Unavailable } from "../schemas/errors.ts";
import type { NewEvent } from "../schemas/events.ts";
import type { Grant } from "../schemas/frozen-scope.ts";
import { needing } from "../schemas/needs.ts";
import type { ActorPorts } from "./actor.ts";
import type { Claimant } from "./dispatch.ts";
import type { StreamName } from "./event-store.ts";

/** Who can be given commands, and the way there. */
export interface AssignPorts {
  /** A worker with room to spare, whose slot counts as taken from now on. */
  choose(ring: Ring): Claimant | undefined;
  /** It was not issued like that. */
  forget(commandId: string): void;
  /** Brings a worker what it was given, and tells what it says to that. */
  bring(holder: Assignment["holder"], grant: Grant): Promise<Brought>;
}

/** `silent`: it does not answer, and may have taken it or not. */
export type Brought = "taken" | "refused" | "silent";

type Ports = Pick<ActorPorts<never, never, never>, "assign" | "kind" | "ids">;
/** An input to the stream itself. */
type Tell = (input: { type: "claim" | "release" } & Record<string, unknown>) => Promise<unknown>;

/** What one stream gives to workers that have not asked. */
export class Assignments {
  readonly #ports: Ports;
  readonly #name: StreamName;
  readonly #tell: Tell;
  /** Of the turn that is not committed yet. */
  readonly #made: string[] = [];
  /** Committed here, and nobody told yet. */
  readonly #untold = new Set<string>();

  constructor(ports: Ports, name: StreamName, tell: Tell) {
    this.#ports = ports;
    this.#name = name;
    this.#tell = tell;
  }

  /** The facts of a decision; commands that nobody has asked for are given to whom they can be. */
  issue(events: NewEvent[]): NewEvent[] {
    return this.#ports.assign ? events.map(event => this.#issue(event)) : events;
  }

  #issue(event: NewEvent): NewEvent {
    const { assign, kind: actor, ids } = this.#ports;
    if (event.event_type !== "command.issued" || event.meta.claim_id !== undefined) return event;
    const { command_id, step, kind, requires } = event.meta;
    const more = { ...needing(requires), delivery: 0 };
    const ring = { ...this.#name, actor, command_id, step, kind, ...more };
    const worker = assign?.choose(ring);
    if (!worker) return event;
    this.#made.push(command_id);
    const claim = { ...worker, delivery: 1, claim_id: ids.next(), assigned: true };
    return { ...event, meta: { ...event.meta, ...claim } };
  }

  /** The turn is over: what it has issued is committed, or never was issued. */
  settle(isCommitted: boolean): void {
    for (const id of this.#made.splice(0)) {
      if (isCommitted) this.#untold.add(id);
      else this.#ports.assign?.forget(id);
    }
  }

  /**
   * Tells a holder. One that does not answer has been told of it at most this once, or else its
   * lease says what becomes of it: then this rejects, and it is told again.
   */
  async tell({ command_id, delivery, holder }: Assignment): Promise<void> {
    const isFirst = this.#untold.delete(command_id);
    const { worker_id, incarnation, claim_id } = holder;
    // Its claim is in the log: it is answered, with no new fact (design §5 rule 4).
    const claim = { type: "claim" as const, command_id, worker_id, incarnation, claim_id };
    const { grant } = (await this.#tell(claim)) as { grant?: Grant };
    const brought = grant && (await this.#ports.assign?.bring(holder, grant));
    if (brought === "silent" && !isFirst) {
      throw new Unavailable(`worker ${worker_id} does not say whether it has ${command_id}`);
    }
    if (brought === "silent" || brought === "refused") {
      await this.#tell({ type: "release", command_id, delivery, worker_id });
    }
  }
}
