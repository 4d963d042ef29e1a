/**
 * The life of a command inside the actor that issued it: waiting → held → gone (a terminal fact).
 * `delivery` is the fence and grows with every claim; `deaths` counts the deliveries that ended by
 * the worker's death, and only those count against `max_attempts` (design §4.5, §5 rule 5).
 */
import { Rejected } from "./errors.ts";
import type { EventOf, NewEvent, OutcomeResult, ResultReference } from "./events.ts";
import type { CursorRound } from "./ids.ts";
import type { Json, JsonObject } from "./json.ts";
import { ringKey, type Effect, type HeldCommand, type Ring } from "./decider.ts";
import { needing } from "./needs.ts";
import type { WorkClass } from "./work-class.ts";

/** Never changed in place: states share it with the ones they were forked from. */
export interface Command {
  readonly command_id: string;
  readonly step: string;
  readonly activation: number;
  readonly attempt: number;
  readonly iter_index?: number;
  /** The iterations of a command that carries several. */
  readonly frame?: { first: number; count: number };
  /** Of a cursor loop: its command claims rows and runs them. */
  readonly cursor?: CursorRound;
  /** Tool kind that decides where it may run. */
  readonly kind: string;
  /** What its worker must offer. */
  readonly requires?: string[];
  readonly delivery: number;
  readonly deaths: number;
  /** Since when nobody holds it; milliseconds since 1970. Absent in snapshots of an older build. */
  readonly waiting_since?: number;
  readonly holder?: Holder;
}

export interface Holder {
  readonly worker_id: string;
  readonly incarnation: string;
  readonly claim_id: string;
  readonly claimed_at: number;
  /** It did not ask for the command, and must be told of it. */
  readonly assigned?: true;
}

export interface ClaimInput {
  type: "claim";
  command_id: string;
  worker_id: string;
  incarnation: string;
  /** Names one try to claim: the same one again gets the same answer and no new fact (rule 4). */
  claim_id: string;
}

export interface OutcomeInput {
  type: "outcome";
  command_id: string;
  delivery: number;
  worker_id: string;
  result: OutcomeResult;
  /** `ctx` writes of the command's policy rules, each root whole. */
  ctx?: JsonObject;
  /** What the work cost, for readers: task runs and retries inside the command. */
  stats?: { task_runs: number; retries: number; duration_ms: number };
  /** Of a frame: which of its items this report settles. Without it the command is one item. */
  frame?: FrameReport;
  /** It has failed as things may that pass, and its loop has a budget: it may be given back. */
  give_back?: GiveBack;
  /**
   * The worker's slot is free and nothing else waits: it takes what this outcome lets in, at once.
   */
  next?: NextClaim;
}

export interface NextClaim extends Omit<ClaimInput, "type" | "command_id"> {
  /** The slot takes only commands of this class: the other one is full. */
  only?: WorkClass;
  /** What its worker offers (`schemas/needs.ts`). */
  offers?: string[];
}

/** Why a command is given back; of a frame with the item, which the report has among the failed. */
export interface GiveBack {
  error: NonNullable<OutcomeResult["error"]>;
  index?: number;
}

/**
 * Items of a frame that are done, as `schemas/ranges.ts` writes sets: by index, and of a cursor's
 * frame by the row's number in it, from 0. A report of neither says only that the frame goes on.
 */
export interface FrameReport {
  ok: string;
  failed: string;
  /** The frame is over; items in neither set did not run. */
  final: boolean;
  /** The cursor gave no row: there is nothing more for this slot. */
  drained?: boolean;
  /** Rows that a rule ended early, as a success. */
  broke?: number;
  /** Rows that the frame had claimed and did not run: the slot's next frame begins with them. */
  left?: LeftRows;
}

/** A list of `ClaimedRow`: here, or behind a reference when it is large. */
export interface LeftRows {
  rows?: Json[];
  reference?: ResultReference;
}

export interface ReleaseInput {
  type: "release";
  command_id: string;
  delivery: number;
  worker_id: string;
}

/** Ids every event of a command carries. */
export function ofCommand(command: Command) {
  return {
    command_id: command.command_id,
    step: command.step,
    activation: command.activation,
    attempt: command.attempt,
    ...(command.iter_index === undefined ? {} : { iter_index: command.iter_index }),
    ...command.frame,
    ...command.cursor,
  };
}

/**
 * Facts of a claim. Throws Rejected when another holds the command; `[]` when this very claim
 * already does.
 */
export function decideClaim(
  input: ClaimInput,
  command: Command | undefined,
  loopId?: string,
): NewEvent[] {
  if (!command) throw settled(input.command_id);
  const { holder } = command;
  if (holder) {
    if (holder.incarnation === input.incarnation && holder.claim_id === input.claim_id) return [];
    throw new Rejected(`command ${input.command_id} is held by worker ${holder.worker_id}`, 409, {
      reason: "held",
    });
  }
  return [claimOf(input, command, loopId)];
}

function claimOf(
  claim: Omit<ClaimInput, "type" | "command_id">,
  command: Pick<Command, "command_id" | "step" | "delivery" | "iter_index">,
  loopId?: string,
): NewEvent {
  const { worker_id, incarnation, claim_id } = claim;
  return {
    event_type: "command.claimed",
    node_name: command.step,
    meta: {
      command_id: command.command_id,
      delivery: command.delivery + 1,
      worker_id,
      incarnation,
      claim_id,
      ...(loopId === undefined ? {} : { loop_id: loopId, iter_index: command.iter_index }),
    },
  };
}

/** A command as it is issued: waiting, or held by the worker that it was given to. */
export function issuedAs(
  command: Omit<Command, "delivery" | "deaths" | "holder">,
  meta: EventOf<"command.issued">["meta"],
  at: number,
): Command {
  const { delivery, worker_id, incarnation, claim_id, assigned } = meta;
  const fresh: Command = { ...command, ...needing(meta.requires), delivery: 0, deaths: 0 };
  if (delivery === undefined || !worker_id || !incarnation || !claim_id) {
    return { ...fresh, waiting_since: at };
  }
  const holder = { worker_id, incarnation, claim_id, claimed_at: at };
  return { ...fresh, delivery, holder: { ...holder, ...(assigned && { assigned: true }) } };
}

/** The command that a claim, or the `next` of an outcome, holds by its claim_id. */
export function heldBy<One extends Command>(
  commands: Iterable<One>,
  claimId: string | undefined,
): One | undefined {
  if (claimId === undefined) return undefined;
  for (const command of commands) if (command.holder?.claim_id === claimId) return command;
  return undefined;
}

/** The command an outcome is about, if its fence is current. Throws Rejected for a zombie's. */
export function fenced(
  input: { command_id: string; delivery: number },
  command: Command | undefined,
): Command {
  if (!command) throw settled(input.command_id);
  if (command.holder && command.delivery === input.delivery) return command;
  throw new Rejected(
    `the outcome of delivery ${input.delivery} of command ${input.command_id} is fenced out`,
    409,
    { reason: "fenced", delivery: command.delivery },
  );
}

/** A command that is no longer open: its terminal is in the log, or it never was. */
export function settled(commandId: string): Rejected {
  return new Rejected(`command ${commandId} is not open`, 409, { reason: "settled" });
}

/** A command that nobody may claim for the time being: it rings again when it may. */
export function paused(commandId: string): Rejected {
  return new Rejected(`command ${commandId} waits: its execution is paused`, 409, {
    reason: "paused",
  });
}

/** Work given back untouched by a draining worker: uncharged, offered again. */
export function decideRelease(
  input: ReleaseInput,
  command: Command | undefined,
  loopId?: string,
): NewEvent[] {
  return [releaseOf(fenced(input, command), loopId)];
}

/** The fact that a command is offered again without having been tried. */
export function releaseOf(command: Command, loopId?: string): NewEvent {
  return {
    event_type: "command.released",
    node_name: command.step,
    meta: {
      command_id: command.command_id,
      delivery: command.delivery,
      worker_id: command.holder?.worker_id ?? "",
      ...(loopId === undefined ? {} : { loop_id: loopId, iter_index: command.iter_index }),
    },
  };
}

/** Ids of the fact that a command is dropped, with who held it: that worker is told to stop. */
export function ofDropped(command: Command) {
  const { holder } = command;
  return { ...ofCommand(command), ...(holder && { worker_id: holder.worker_id }) };
}

/**
 * A command that stays open, after a claim, an expiry or a release of it; as it was after a fact
 * that is repeated.
 */
export function evolveCommand<One extends Command>(command: One, event: NewEvent, at: number): One {
  switch (event.event_type) {
    case "command.claimed": {
      const { delivery, worker_id, incarnation, claim_id } = event.meta;
      if (delivery <= command.delivery) return command;
      const { waiting_since: _, ...rest } = command;
      const holder: Holder = { worker_id, incarnation, claim_id, claimed_at: at };
      return { ...rest, delivery, holder } as One;
    }
    case "command.expired":
    case "command.released": {
      if (!command.holder || event.meta.delivery !== command.delivery) return command;
      const { holder: _, ...rest } = command;
      const deaths = command.deaths + (event.event_type === "command.expired" ? 1 : 0);
      return { ...rest, deaths, waiting_since: at } as One;
    }
    default:
      return command;
  }
}

/** Commands nobody holds: each is a ring that must reach a worker. */
export function* rings(
  commands: Iterable<Command>,
  stream: Pick<Ring, "execution_id" | "stream_id" | "actor">,
): Iterable<Effect> {
  for (const command of commands) {
    if (command.holder) continue;
    const { command_id, step, kind, requires, delivery, deaths } = command;
    const more = { ...needing(requires), ...(deaths > 0 && { deaths }) };
    yield {
      kind: "ring",
      key: `ring:${ringKey(command)}`,
      ring: { ...stream, command_id, step, kind, ...more, delivery },
    };
  }
}

/** Commands whose holders did not ask for them: each must be told. */
export function* assignments(commands: Iterable<Command>): Iterable<Effect> {
  for (const { command_id, delivery, holder } of commands) {
    if (!holder?.assigned) continue;
    yield { kind: "assignment", key: `assigned:${command_id}`, command_id, delivery, holder };
  }
}

export function* heldOf(commands: Iterable<Command>): Iterable<HeldCommand> {
  for (const { command_id, holder } of commands) if (holder) yield { command_id, ...holder };
}
