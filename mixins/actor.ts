// The actor runtime: one mailbox per stream, loaded on demand, forgotten when idle.
import type {
  ActorKind,
  ActorSettings,
  Address,
  Machine,
  MessageInput,
  Needs,
  Ring,
  TurnContext,
} from "../schemas/decider.ts";
import type { ResultReference, StoredEvent } from "../schemas/events.ts";
import type { IdSource } from "../schemas/ids.ts";
import type { AssignPorts } from "./assignments.ts";
import type { Clock } from "./clock.ts";
import type { EventStore, StreamName } from "./event-store.ts";
import type { Forward } from "./forwarding.ts";
import { Mailbox } from "./mailbox.ts";
import type { StartRow } from "./postgres/event.ts";

/** Values behind references, for decisions that ask (`Needs`). */
export interface Values {
  readonly loaded: TurnContext["loaded"];
  readonly stored: ReadonlyMap<string, ResultReference>;
  provide(needs: Needs, stream: StreamName, context: TurnContext): Promise<void>;
}

/** Everything a mailbox touches; each is a port, so that a simulation can put its own. */
export interface ActorPorts<State, Input, Answer> {
  kind: ActorKind;
  owner: string;
  store: EventStore;
  clock: Clock;
  ids: IdSource;
  /** Ids of streams that a decision makes; `ids` when absent. */
  streamIds?: IdSource;
  settings: ActorSettings;
  values: Values;
  counters: ActorCounters;
  /** `again`: it was rung before, and nobody has claimed it since. */
  ring(ring: Ring, again: boolean): void;
  deliver(to: Address, input: MessageInput): Promise<unknown>;
  /** Absent where commands wait for a worker to ask. */
  assign?: AssignPorts;
  /** Of these commands, those a worker says it holds; undefined when it cannot be asked. */
  holds(workerId: string, incarnation: string, commandIds: string[]): Promise<string[] | undefined>;
  /** Told of every commit, in order per stream, with the state after it: the projection's hint. */
  committed(events: StoredEvent[], state: State): void;
  /** Events between two snapshots at least; as `Replica` has it when absent. */
  snapshotEvents?: number;
  mustProve?(input: Input): boolean;
  /** Sends entries to the node that decided last; gives back what has to be decided here. */
  forward?: Forward;
  warn(error: unknown, stream: StreamName): void;
  failed(error: unknown, stream: StreamName, failures: number): void;
  stopping(): boolean;
  /** The database could not be reached just now. */
  outage(): void;
  /** Milliseconds: since when workers could show that they live. */
  graceFrom(): number;
  /** A mailbox has nothing to do; `over` when its stream has ended. */
  rested(mailbox: Mailbox<State, Input & { type: string }, Answer>, over: boolean): void;
}

export interface ActorCounters {
  conflicts: number;
  refusals: number;
  loads: number;
}

export type ActorOptions<State, Input, Answer> = Omit<
  ActorPorts<State, Input, Answer>,
  "counters" | "stopping" | "outage" | "graceFrom" | "rested"
> & { machine: Machine<State, Input, Answer> };

/** Mailboxes kept at most; the least recently used idle ones go first. */
const MAILBOXES_MAX = 20_000;
const IDLE_MS = 60_000;

export interface ActorHost<Input, Answer, State = unknown> {
  readonly counters: ActorCounters;
  /**
   * Resolves once the input's facts are committed, or were already there. What another node has
   * forwarded is decided here, however many rivals there are.
   */
  send(stream: StreamName, input: Input, start?: StartRow, forwarded?: boolean): Promise<Answer>;
  /** Calls `changed` with the state after commits of a stream; the returned function stops that. */
  watch(stream: StreamName, changed: (state: State) => void): () => void;
  /** What this node saw of a stream last, and still has in memory; others may have gone on. */
  lastSeen(stream: StreamName): State | undefined;
  size(): number;
  /** No new turns wait for an absent database any more; in-flight ones finish. */
  stop(): Promise<void>;
}

// A stream under the name of another execution is not that stream: it is refused when loaded.
const keyOf = ({ execution_id, stream_id }: StreamName) => `${execution_id}/${stream_id}`;
const isBusy = (box: { busy: boolean }) => box.busy;

/** Makes the host of one kind of actor on this node. */
export function createActorHost<State, Input extends { type: string }, Answer>(
  options: ActorOptions<State, Input, Answer>,
): ActorHost<Input, Answer, State> {
  type Box = Mailbox<State, Input, Answer>;
  const boxes = new Map<string, Box>();
  const keys = new WeakMap<Box, string>();
  const counters = { conflicts: 0, refusals: 0, loads: 0 };
  let stopped = false;
  const stops: (() => void)[] = [];
  let graceFrom = options.clock.now();

  const ports: ActorPorts<State, Input, Answer> = {
    ...options,
    counters,
    stopping: () => stopped,
    outage: () => void (graceFrom = options.clock.now()),
    graceFrom: () => graceFrom,
    rested: (box, over) => {
      if (over && box.idle) drop(box);
      else if (boxes.size > MAILBOXES_MAX) forgetIdle(0);
      for (const look of stops.splice(0)) look();
    },
  };

  function drop(box: Box): void {
    const key = keys.get(box);
    if (key !== undefined && boxes.get(key) === box) boxes.delete(key);
  }

  function forgetIdle(olderThanMs: number): void {
    const before = options.clock.now() - olderThanMs;
    for (const [key, box] of boxes) {
      if (box.idle && box.usedAt <= before) boxes.delete(key);
      if (olderThanMs === 0 && boxes.size <= MAILBOXES_MAX * 0.9) break;
    }
  }

  let cancelSweep = options.clock.after(IDLE_MS, sweep);
  function sweep(): void {
    forgetIdle(IDLE_MS);
    if (!stopped) cancelSweep = options.clock.after(IDLE_MS, sweep);
  }

  function boxOf({ execution_id, stream_id }: StreamName): Box {
    const key = keyOf({ execution_id, stream_id });
    let box = boxes.get(key);
    if (!box) {
      counters.loads += 1;
      box = new Mailbox(options.machine, ports, { execution_id, stream_id });
      keys.set(box, key);
      boxes.set(key, box);
    }
    return box;
  }

  return {
    counters,
    async send(stream, input, start, forwarded) {
      return boxOf(stream).push(input, start, forwarded);
    },
    watch: (stream, changed) => boxOf(stream).watch(changed),
    lastSeen: stream => boxes.get(keyOf(stream))?.state,
    size: () => boxes.size,
    async stop() {
      stopped = true;
      cancelSweep();
      while ([...boxes.values()].some(isBusy)) await new Promise<void>(look => stops.push(look));
    },
  };
}
