/**
 * The life of a command inside the actor that issued it: waiting → held → gone (a terminal fact).
 * `delivery` is the fence and grows with every claim; `deaths` counts the deliveries that ended by
 * the worker's death, and only those count against `max_attempts` (design §4.5, §5 rule 5).
 */
import { Rejected } from "./errors.ts";
import type { NewEvent, OutcomeResult } from "./events.ts";
import type { JsonObject } from "./json.ts";
import type { Effect, HeldCommand, Ring, TurnContext } from "./decider.ts";

export interface Command {
  command_id: string;
  step: string;
  activation: number;
  attempt: number;
  iter_index?: number;
  /** Tool kind that decides where it may run. */
  kind: string;
  delivery: number;
  deaths: number;
  holder?: Holder;
}

export interface Holder {
  worker_id: string;
  incarnation: string;
  claim_id: string;
  claimed_at: number;
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
  /**
   * The worker's slot is free and nothing else waits: it takes what this outcome lets in, at once.
   */
  next?: Omit<ClaimInput, "type" | "command_id">;
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

/**
 * Facts of an outcome, and the claim of the first command among them when its worker asks for the
 * next.
 */
export function handOff(events: NewEvent[], outcome: OutcomeInput, loopId?: string): NewEvent[] {
  const issued = outcome.next && events.find(event => event.event_type === "command.issued");
  if (!issued || !outcome.next || issued.event_type !== "command.issued") return events;
  return [...events, claimOf(outcome.next, { ...issued.meta, delivery: 0 }, loopId)];
}

/** The command that a claim, or the `next` of an outcome, holds by its claim_id. */
export function heldBy(
  commands: Iterable<Command>,
  claimId: string | undefined,
): Command | undefined {
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

/**
 * Held commands whose worker is known to be gone, or whose lease has passed while the worker's row
 * was not renewed either.
 */
export function* expired(commands: Iterable<Command>, context: TurnContext): Iterable<Command> {
  for (const command of commands) {
    if (!command.holder) continue;
    const seen = context.seen.get(command.holder.incarnation);
    const leaseStart = context.now - context.settings.lease_ms;
    const lapsed = command.holder.claimed_at < leaseStart && (seen ?? 0) < leaseStart;
    if (seen === undefined || lapsed) yield command;
  }
}

/** Held commands that a living worker does not know of: offered again, uncharged. */
export function* disowned(commands: Iterable<Command>, context: TurnContext): Iterable<Command> {
  for (const command of commands) {
    if (command.holder && context.disowned.has(command.command_id)) yield command;
  }
}

/** The fact that a delivery ended by its worker's death. */
export function expiryOf(command: Command, loopId?: string): NewEvent {
  const holder = command.holder as Holder;
  return {
    event_type: "command.expired",
    node_name: command.step,
    meta: {
      command_id: command.command_id,
      delivery: command.delivery,
      worker_id: holder.worker_id,
      reason: "worker lost",
      ...(loopId === undefined ? {} : { loop_id: loopId, iter_index: command.iter_index }),
    },
  };
}

/** Code of a command that was given up because its workers died. */
export const WORKER_LOST = "WORKER_LOST";

/** The outcome of a command that has killed as many workers as it may. */
export function exhausted(command: Command): OutcomeResult {
  return {
    status: "error",
    error: {
      kind: "unknown",
      retryable: false,
      code: WORKER_LOST,
      message: `${command.deaths + 1} workers died while they ran this command`,
    },
  };
}

/**
 * What a claim, an expiry and a release do to a command that stays open; a repeated fact does
 * nothing.
 */
export function evolveCommand(command: Command, event: NewEvent, at: number): void {
  switch (event.event_type) {
    case "command.claimed":
      if (event.meta.delivery <= command.delivery) return;
      command.delivery = event.meta.delivery;
      command.holder = {
        worker_id: event.meta.worker_id,
        incarnation: event.meta.incarnation,
        claim_id: event.meta.claim_id,
        claimed_at: at,
      };
      break;
    case "command.expired":
    case "command.released":
      if (!command.holder || event.meta.delivery !== command.delivery) return;
      if (event.event_type === "command.expired") command.deaths += 1;
      command.holder = undefined;
      break;
    default:
      break;
  }
}

/** Commands nobody holds: each is a ring that must reach a worker. */
export function* rings(
  commands: Iterable<Command>,
  stream: Pick<Ring, "execution_id" | "stream_id" | "actor">,
): Iterable<Effect> {
  for (const command of commands) {
    if (command.holder) continue;
    const { command_id, step, kind, delivery } = command;
    yield {
      kind: "ring",
      key: `ring:${command_id}:${delivery}`,
      ring: { ...stream, command_id, step, kind, delivery },
    };
  }
}

/** The earliest time at which a held command could be found expired. */
export function leaseDeadline(
  commands: Iterable<Command>,
  context: TurnContext,
): number | undefined {
  let earliest: number | undefined;
  for (const { holder } of commands) {
    if (!holder) continue;
    const seen = context.seen.get(holder.incarnation) ?? 0;
    const due = Math.max(holder.claimed_at, seen) + context.settings.lease_ms;
    earliest = earliest === undefined ? due : Math.min(earliest, due);
  }
  return earliest;
}

export function* heldOf(commands: Iterable<Command>): Iterable<HeldCommand> {
  for (const { command_id, holder } of commands) if (holder) yield { command_id, ...holder };
}
