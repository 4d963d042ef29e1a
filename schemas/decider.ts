/**
 * What an actor is: one stream of events with one state machine. Machines are pure: the clock, ids
 * and settings come in the environment of the turn, and what they cannot compute they ask for.
 */
import type { Json } from "./json.ts";
import type { NewEvent, ResultReference } from "./events.ts";
import { Interrupt } from "./playbook/template-error.ts";

/**
 * A message that must reach somebody after the commit, repeated until the state no longer holds it.
 */
export type Effect =
  | { kind: "ring"; key: string; ring: Ring }
  | { kind: "message"; key: string; to: Address; input: MessageInput }
  | ({ kind: "assignment"; key: string } & Assignment);

/** A command that its holder has to be told of. */
export interface Assignment {
  command_id: string;
  delivery: number;
  holder: { worker_id: string; incarnation: string; claim_id: string };
}

/** The doorbell's words: ids only. Losing one costs time. */
export interface Ring {
  execution_id: string;
  stream_id: string;
  /** Which actor owns the command: the service to claim from. */
  actor: ActorKind;
  command_id: string;
  step: string;
  /** Tool kind that decides where it may run. */
  kind: string;
  /** What its worker must offer (`schemas/needs.ts`). */
  requires?: string[];
  /** Claims this command had before; with the command id it names one ring. */
  delivery: number;
  /** Of those claims, the ones that ended by the worker's death; absent when none did. */
  deaths?: number;
}

/** The same for one ring and its repetitions, and for no other. */
export function ringKey({ command_id, delivery }: Pick<Ring, "command_id" | "delivery">): string {
  return `${command_id}:${delivery}`;
}

/**
 * A step of an execution goes before the items of loops: those are many, and of each loop a whole
 * window may wait.
 */
export function isUrgent({ actor }: Pick<Ring, "actor">): boolean {
  return actor === "executions";
}

/** The services whose streams have commands. */
export const ACTOR_KINDS = ["executions", "loops", "fanout"] as const;
export type ActorKind = (typeof ACTOR_KINDS)[number];
export interface Address {
  actor: ActorKind;
  execution_id: string;
  stream_id: string;
}

/** An input sent from one actor to another; idempotent at the receiver. */
export type MessageInput = { type: string } & Record<string, unknown>;

/** What a turn knows of the world. Times are milliseconds of the database's clock. */
export interface TurnContext {
  now: number;
  /** A fresh snowflake, for a stream that a decision makes. */
  newId(): string;
  /**
   * Values behind references, loaded before the decision that asked; an error for one that is lost.
   */
  loaded: ReadonlyMap<string, Json | Interrupt>;
  /** References of values stored before the decision that asked for it, by the name asked for. */
  stored: ReadonlyMap<string, ResultReference>;
  /** What is known of the holders here, by incarnation; absent when nobody looked in this turn. */
  seen: ReadonlyMap<string, SignOfLife>;
  /** Commands whose living worker says that it does not hold them: its claim's answer was lost. */
  disowned: ReadonlySet<string>;
  settings: ActorSettings;
}

/**
 * What a holder's row in `runtime` says: when it was last renewed; `gone` when the incarnation will
 * never report again; `silent` for one that has no row, because it sends no beats.
 */
export type SignOfLife = number | "gone" | "silent";

export interface ActorSettings {
  lease_ms: number;
  rering_ms: number;
  max_attempts: number;
  /** Hard limit for holders that send no beats (`NOETL_COMMAND_HEARTBEAT_TIMEOUT_SECONDS`). */
  heartbeat_timeout_ms: number;
}

/** A command and who holds it. */
export interface HeldCommand {
  command_id: string;
  worker_id: string;
  incarnation: string;
  claimed_at: number;
}

/**
 * One kind of actor. `State` is owned by the turn: `fork` gives a copy that `evolve` may change in
 * place.
 */
export interface Machine<State, Input, Answer> {
  /** The state of a stream with no events. */
  initial(): State;
  /**
   * A copy whose containers can be changed without touching the original; values inside are shared.
   */
  fork(state: State): State;
  /**
   * Facts that follow; `[]` when already so; throws Rejected when impossible, Needs for missing
   * values.
   */
  decide(input: Input, state: State, context: TurnContext): NewEvent[];
  /** Total: never throws, never asks the time. `version` is the event's place in the stream. */
  evolve(state: State, event: NewEvent, at: number, version: number): State;
  /**
   * What the sender of an input is told once its facts are committed; `changed` is false for `[]`.
   */
  answer(input: Input, state: State, context: TurnContext, changed: boolean): Answer;
  /** Everything not yet acknowledged, by key, oldest first. */
  pending(state: State): Iterable<Effect>;
  /** When the stream must be woken if nothing else happens; undefined when nothing is due, ever. */
  deadline(state: State, context: TurnContext): number | undefined;
  /** Held commands, whose workers' liveness a wake must know. */
  held(state: State): Iterable<HeldCommand>;
  /**
   * No more facts can come but by redrive; the stream ends when its messages are acknowledged too.
   */
  isOver(state: State): boolean;
  /** JSON for a snapshot, and back. */
  freeze(state: State): Json;
  thaw(frozen: Json): State;
}

/** Thrown by a decision that cannot go on without values the turn can load or store for it. */
export class Needs extends Interrupt {
  readonly load: ResultReference[];
  readonly store: { name: string; value: Json }[];

  constructor(needs: { load?: ResultReference[]; store?: { name: string; value: Json }[] }) {
    super("a value kept elsewhere is needed");
    this.name = "Needs";
    this.load = needs.load ?? [];
    this.store = needs.store ?? [];
  }
}
