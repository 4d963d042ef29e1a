// What one process knows of a stream: its state at a version, which is a prefix of the log.
import type { Machine } from "../schemas/decider.ts";
import { Rejected } from "../schemas/errors.ts";
import type { ActorPorts } from "./actor.ts";
import type { EventStore, StreamName } from "./event-store.ts";

const READ_PAGE = 5_000;
/** A snapshot at most every so many events (design §6), where the ports do not say. */
const SNAPSHOT_EVENTS = 2_000;

type Fold<State> = Pick<
  Machine<State, never, unknown>,
  "initial" | "fork" | "evolve" | "freeze" | "thaw"
>;

type Ports = Pick<ActorPorts<never, never, never>, "kind" | "store" | "snapshotEvents">;

export class Replica<State> {
  readonly #machine: Fold<State>;
  readonly #kind: string;
  readonly #store: EventStore;
  readonly #snapshotEvents: number;
  readonly #name: StreamName;
  /** Undefined when nothing is known: the log must be read. */
  state: State | undefined;
  version = 0;
  #snapshotVersion = 0;

  constructor(machine: Fold<State>, ports: Ports, name: StreamName) {
    this.#machine = machine;
    this.#kind = ports.kind;
    this.#store = ports.store;
    this.#snapshotEvents = ports.snapshotEvents ?? SNAPSHOT_EVENTS;
    this.#name = name;
  }

  /** A stream that is about to be made; if it is there already, its first append conflicts. */
  assumeNew(): void {
    this.state = this.#machine.initial();
    this.version = 0;
  }

  /**
   * Snapshot, then the tail of the log. Throws Rejected 404 when the id is of a stream of another
   * kind or of another execution: its facts must not be folded here.
   */
  async load(): Promise<void> {
    const head = await this.#store.readHead(this.#name.stream_id);
    if (!head) return this.assumeNew();
    if (head.kind !== this.#kind || head.execution_id !== this.#name.execution_id) {
      const { execution_id, stream_id } = this.#name;
      throw new Rejected(
        `stream ${stream_id} is not one of the ${this.#kind} of execution ${execution_id}`,
        404,
        { reason: "unknown" },
      );
    }
    const snapshot = await this.#store.readSnapshot(this.#name.stream_id);
    const state = snapshot ? this.#machine.thaw(snapshot.state) : this.#machine.initial();
    const version = snapshot?.version ?? 0;
    await this.#fold(state, version);
    this.#snapshotVersion = version;
  }

  /** Folds what others appended since. Nothing has changed if the reading fails half-way. */
  async catchUp(): Promise<void> {
    // Somebody has made it since, or there it was: whose it is, is not known yet.
    if (this.version === 0) await this.load();
    else if (this.state !== undefined)
      await this.#fold(this.#machine.fork(this.state), this.version);
  }

  async #fold(from: State, since: number): Promise<void> {
    let state = from;
    let version = since;
    for (;;) {
      const events = await this.#store.readEvents(this.#name, version, READ_PAGE);
      for (const event of events)
        state = this.#machine.evolve(state, event, event.at, event.version);
      version = events.at(-1)?.version ?? version;
      if (events.length < READ_PAGE) break;
    }
    this.state = state;
    this.version = version;
  }

  /**
   * The state after events that were just committed. Rejects when a snapshot was due and failed.
   */
  async advance(state: State, events: number): Promise<void> {
    this.state = state;
    this.version += events;
    const due = Math.max(this.#snapshotEvents, this.version / 32);
    if (this.version - this.#snapshotVersion < due) return;
    this.#snapshotVersion = this.version;
    const { stream_id } = this.#name;
    await this.#store.writeSnapshot(stream_id, this.version, this.#machine.freeze(state));
  }

  forget(): void {
    this.state = undefined;
  }
}
