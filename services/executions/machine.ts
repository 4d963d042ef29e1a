// The execution: tokens walk the playbook's steps; every decision and every fact of a run is here.
import type { RequestedBy } from "../../schemas/caller.ts";
import {
  decideClaim,
  decideRelease,
  fenced,
  heldBy,
  heldOf,
  paused,
  settled,
  type ClaimInput,
  type OutcomeInput,
  type ReleaseInput,
} from "../../schemas/command.ts";
import { handOff } from "../../schemas/hand-over.ts";
import { leaseDeadline } from "../../schemas/lease.ts";
import type { Machine, TurnContext } from "../../schemas/decider.ts";
import { Rejected } from "../../schemas/errors.ts";
import type { NewEvent } from "../../schemas/events.ts";
import type { Grant, StartCaller } from "../../schemas/frozen-scope.ts";
import { cutScope } from "../../schemas/playbook/step-reads.ts";
import { needPlaybook } from "../../schemas/playbook/stored-result.ts";
import { start, type ExecutionStart } from "./begin.ts";
import { cancel, gone } from "./cancelled.ts";
import { evolve } from "./evolve.ts";
import type { LoopReport } from "../../schemas/loop-report.ts";
import { loopDone, settle } from "./exit.ts";
import { pauseStand, pending, type PauseStand } from "./messages.ts";
import { familyPaused, pause, resume, type PauseInput, type ResumeInput } from "./paused.ts";
import { redrive, type RedriveInput } from "./redrive.ts";
import {
  fork,
  freeze,
  isLive,
  thaw,
  tokenKey,
  wholeScope,
  type Ended,
  type ExecutionState,
  type Lapse,
  type Running,
} from "./state.ts";
import { statusWord } from "./status.ts";
import { earliestTimeout, wake } from "./wake.ts";

export type ExecutionInput =
  | ExecutionStart
  | ClaimInput
  | OutcomeInput
  | ReleaseInput
  | LoopReport
  | { type: "cancel"; reason?: string; asked?: RequestedBy }
  | RedriveInput
  | PauseInput
  | ResumeInput
  | { type: "family_paused"; pause: number }
  | { type: "children_gone" }
  | { type: "describe" }
  | { type: "wake" };

export interface ExecutionAnswer {
  changed: boolean;
  status: string;
  /** A cancel was requested and is not complete. */
  cancelling: boolean;
  grant?: Grant;
  /** 0 until it is redriven. */
  generation: number;
  /** Told to a `describe` while the run lives: a child is asked for by who asked for its parent. */
  caller?: StartCaller;
  /** Told to a `describe` of a run that is or was paused. */
  pause?: PauseStand;
  /** Told to a `describe` after its end: what a redrive would run again, by step. */
  lapsed?: [string, Lapse][];
}

function decide(input: ExecutionInput, state: ExecutionState, context: TurnContext): NewEvent[] {
  if (input.type === "start") return state.status === "none" ? start(input, context) : [];
  if (state.status === "none") throw new Rejected("no such execution", 404, { reason: "unknown" });
  if (!isLive(state)) return decideOver(input, state, context);
  switch (input.type) {
    case "claim":
      // What the answer needs is asked for here: an answer cannot wait.
      needPlaybook(state.playbook, context);
      refuseClaim(input, state);
      return decideClaim(input, state.commands.get(input.command_id));
    case "release":
      return decideRelease(input, state.commands.get(input.command_id));
    case "outcome":
      return outcome(input, state, context);
    case "loop_done":
      return loopDone(input, state, context);
    case "cancel":
      return state.status === "cancelling" ? [] : cancel(input, state);
    case "pause":
      return pause(input, state);
    case "resume":
      return resume(input, state, context);
    case "family_paused":
      return familyPaused(input, state);
    case "redrive":
      return redriveLive(input, state);
    case "children_gone":
      return state.status === "cancelling" && state.tokens.size === 0 ? [gone(state)] : [];
    case "wake":
      return wake(state, context);
    case "describe":
      return [];
  }
}

function outcome(input: OutcomeInput, state: Running, context: TurnContext): NewEvent[] {
  needPlaybook(state.playbook, context);
  // The same report again: its answer, with the next command, was lost.
  if (heldBy(state.commands.values(), input.next?.claim_id)) return [];
  const command = fenced(input, state.commands.get(input.command_id));
  return handOff(settle(command, input, state, context), input);
}

function decideOver(
  input: Exclude<ExecutionInput, ExecutionStart>,
  state: Ended,
  context: TurnContext,
): NewEvent[] {
  switch (input.type) {
    case "redrive":
      return redrive(input, state, context);
    case "claim":
    case "release":
    case "outcome":
      throw settled(input.command_id);
    case "cancel":
    case "pause":
      if (state.status === "cancelled" && input.type === "cancel") return [];
      throw new Rejected(`the execution is already ${state.status.toUpperCase()}`, 409, {
        status: state.status.toUpperCase(),
      });
    default:
      return [];
  }
}

/** The same request again finds the run that it has brought back. */
function redriveLive({ generation }: RedriveInput, state: Running): NewEvent[] {
  if (state.status === "running" && state.generation === generation + 1) return [];
  throw new Rejected("the execution has not ended: there is nothing to redrive yet", 409, {
    status: "RUNNING",
  });
}

function refuseClaim({ command_id, claim_id }: ClaimInput, state: Running): void {
  if (state.status === "cancelling") {
    throw new Rejected(`command ${command_id} belongs to a cancelled execution`, 409, {
      reason: "cancelled",
    });
  }
  // Who has claimed it before the pause is answered again.
  if (state.pause && state.commands.get(command_id)?.holder?.claim_id !== claim_id) {
    throw paused(command_id);
  }
}

function answer(
  input: ExecutionInput,
  state: ExecutionState,
  context: TurnContext,
  changed: boolean,
): ExecutionAnswer {
  const generation = generationOf(state);
  const cancelling = state.status === "cancelling";
  const told = { changed, status: statusWord(state), cancelling, generation };
  if (input.type === "describe") return { ...told, ...describe(state) };
  if (!isLive(state) || (input.type !== "claim" && input.type !== "outcome")) return told;
  const command = granted(input, state);
  if (!command) return told;
  const playbook = needPlaybook(state.playbook, context);
  const token = state.tokens.get(tokenKey(command.step, command.activation));
  const { execution_id } = state;
  return {
    ...told,
    grant: {
      command_id: command.command_id,
      execution_id,
      stream_id: execution_id,
      step: command.step,
      activation: command.activation,
      attempt: command.attempt,
      delivery: command.delivery,
      kind: command.kind,
      playbook: state.playbook,
      ...(token?.redrive && { keyed: token.redrive.keyed }),
      scope: cutScope(playbook, command.step, wholeScope(state, token?.upstream)),
    },
  };
}

function describe(state: ExecutionState): Partial<ExecutionAnswer> {
  if (isLive(state)) {
    const stand = pauseStand(state);
    return { ...(state.caller && { caller: state.caller }), ...(stand && { pause: stand }) };
  }
  return state.status !== "none" && state.live ? { lapsed: [...state.live.lapsed] } : {};
}

/**
 * The command that a claim or the `next` of an outcome holds by now: inputs of one turn follow on
 * it.
 */
function granted(input: ClaimInput | OutcomeInput, state: Running) {
  if (input.type === "outcome") return heldBy(state.commands.values(), input.next?.claim_id);
  const command = state.commands.get(input.command_id);
  return command?.holder?.claim_id === input.claim_id ? command : undefined;
}

/** How often an execution was redriven. */
export function generationOf(state: ExecutionState): number {
  return state.status === "none" ? 0 : state.generation;
}

function deadline(state: ExecutionState, context: TurnContext): number | undefined {
  if (!isLive(state)) return undefined;
  const lease = leaseDeadline(state.commands.values(), context) ?? Infinity;
  const timeout = earliestTimeout(state, context);
  const due = Math.min(lease, timeout);
  return due === Infinity ? undefined : due;
}

export const executionMachine: Machine<ExecutionState, ExecutionInput, ExecutionAnswer> = {
  initial: () => ({ status: "none" }),
  fork,
  decide,
  evolve,
  answer,
  pending,
  deadline,
  held: state => (isLive(state) ? heldOf(state.commands.values()) : []),
  isOver: state => state.status !== "none" && !isLive(state),
  freeze,
  thaw,
};
