// What one process knows of a stream: its state at a version, which is a prefix of the log.
import type { Machine } from "../schemas/decider.ts";
import type { EventStore, StreamName } from "./event-store.ts";

const READ_PAGE = 5_000;
/** A snapshot at most every so many events (design §6). */
const SNAPSHOT_EVENTS = 2_000;

type Fold<State> = Pick<
  Machine<State, never, unknown>,
  "initial" | "fork" | "evolve" | "freeze" | "thaw"
>;

export class Replica<State> {
  readonly #machine: Fold<State>;
  readonly #store: EventStore;
  readonly #name: StreamName;
  /** Undefined when nothing is known: the log must be read. */
  state: State | undefined;
  version = 0;
  #snapshotVersion = 0;

  constructor(machine: Fold<State>, store: EventStore, name: StreamName) {
    this.#machine = machine;
    this.#store = store;
    this.#name = name;
  }

  /** A stream that is about to be made; if it is there already, its first append conflicts. */
  assumeNew(): void {
    this.state = this.#machine.initial();
    this.version = 0;
  }

  /** Snapshot, then the tail of the log. */
  async load(): Promise<void> {
    const snapshot = await this.#store.readSnapshot(this.#name.stream_id);
    const state = snapshot ? this.#machine.thaw(snapshot.state) : this.#machine.initial();
    const version = snapshot?.version ?? 0;
    await this.#fold(state, version);
    this.#snapshotVersion = version;
  }

  /** Folds what others appended since. Nothing has changed if the reading fails half-way. */
  async catchUp(): Promise<void> {
    if (this.state !== undefined) await this.#fold(this.#machine.fork(this.state), this.version);
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
    const due = Math.max(SNAPSHOT_EVENTS, this.version / 32);
    if (this.version - this.#snapshotVersion < due) return;
    this.#snapshotVersion = this.version;
    const { stream_id } = this.#name;
    await this.#store.writeSnapshot(stream_id, this.version, this.#machine.freeze(state));
  }

  forget(): void {
    this.state = undefined;
  }
}
