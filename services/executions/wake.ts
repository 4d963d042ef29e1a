// What time does to an execution: commands of dead workers, and steps that are late.
import { releaseOf, type Command } from "../../schemas/command.ts";
import { disowned, exhausted, expired, expiryOf } from "../../schemas/lease.ts";
import type { TurnContext } from "../../schemas/decider.ts";
import type { NewEvent } from "../../schemas/events.ts";
import type { Playbook } from "../../schemas/playbook/model.ts";
import { needPlaybook, playbookReference } from "../../schemas/playbook/stored-result.ts";
import { limitsOf } from "../../schemas/playbook/loop-plan.ts";
import { lateAt, lateResult, type CommandLimits } from "../../schemas/time-limits.ts";
import { overrun } from "./cancelled.ts";
import { evolve } from "./evolve.ts";
import { settle, timeoutError } from "./exit.ts";
import { fork, isLive, tokenKey, type ExecutionState, type Running, type Token } from "./state.ts";

/** Lost commands, then late steps, one after the other, each on the state the one before left. */
export function wake(state: Running, context: TurnContext): NewEvent[] {
  const events: NewEvent[] = [];
  let after: ExecutionState = fork(state);
  function record(facts: NewEvent[]): void {
    events.push(...facts);
    for (const fact of facts) after = evolve(after, fact, context.now);
  }
  record([...disowned(state.commands.values(), context)].map(one => releaseOf(one)));
  for (const lost of expired(state.commands.values(), context)) {
    if (!isLive(after)) break;
    const command = after.commands.get(lost.command_id);
    if (command?.holder) record(expire(command, after, context));
  }
  const playbook = needPlaybook(state.playbook, context);
  for (const { command_id } of state.commands.values()) {
    if (!isLive(after)) break;
    const command = after.commands.get(command_id);
    if (command && commandLateAt(command, after, playbook) <= context.now) {
      record(failLate(command, after, context));
    }
  }
  // A paused step does not grow older.
  if (state.pause) return events;
  if (isLive(after) && after.status === "running" && (after.due_at ?? Infinity) <= context.now) {
    record(overrun(after));
    return events;
  }
  for (const { step, activation } of state.tokens.values()) {
    if (!isLive(after)) break;
    const token = after.tokens.get(tokenKey(step, activation));
    if (token && isLate(token, playbook, context.now)) record(timeOut(token, after, context));
  }
  return events;
}

function expire(command: Command, state: Running, context: TurnContext): NewEvent[] {
  const lost = expiryOf(command);
  if (command.deaths + 1 < context.settings.max_attempts) return [lost];
  const worker_id = command.holder?.worker_id ?? "";
  return [lost, ...settle(command, { result: exhausted(command), worker_id }, state, context)];
}

function limitsFor(command: Command, playbook: Playbook): CommandLimits {
  return limitsOf(playbook.steps[command.step]).limits ?? {};
}

/** A pause is no wait for a worker; what runs goes on, and may take too long. */
function commandLateAt(command: Command, state: Running, playbook: Playbook): number {
  const isHeldBack = state.pause !== undefined && !command.holder;
  return isHeldBack ? Infinity : lateAt(command, limitsFor(command, playbook));
}

function failLate(command: Command, state: Running, context: TurnContext): NewEvent[] {
  const playbook = needPlaybook(state.playbook, context);
  const result = lateResult(command, limitsFor(command, playbook));
  return settle(command, { result, worker_id: command.holder?.worker_id ?? "" }, state, context);
}

function limitOf(token: Token, playbook: Playbook): number | undefined {
  return token.timed_out_ms === undefined ? playbook.steps[token.step]?.timeoutMs : undefined;
}

function isLate(token: Token, playbook: Playbook, now: number): boolean {
  const limitMs = limitOf(token, playbook);
  return limitMs !== undefined && token.entered_at + limitMs <= now;
}

/** A late command fails at once; a late loop is told to stop and exits when it has. */
function timeOut(token: Token, state: Running, context: TurnContext): NewEvent[] {
  const { step, activation } = token;
  const timed_out_ms = needPlaybook(state.playbook, context).steps[step]?.timeoutMs ?? 0;
  const command = state.commands.get(token.command_id ?? "");
  if (command) {
    const result = { status: "error" as const, error: timeoutError({ step, timed_out_ms }) };
    const worker_id = command.holder?.worker_id ?? "";
    return settle(command, { result, worker_id }, state, context);
  }
  return [
    {
      event_type: "step.failed",
      node_name: step,
      meta: { step, activation, step_status: "failed" },
      context: { timed_out_ms },
    },
  ];
}

/** When the first command, step or the whole will be late; Infinity when none can be. */
export function earliestTimeout(state: Running, context: TurnContext): number {
  const playbook = context.loaded.get(playbookReference(state.playbook).ref);
  if (playbook === undefined) return state.pause ? Infinity : (state.due_at ?? Infinity);
  let earliest = Infinity;
  for (const command of state.commands.values()) {
    const at = commandLateAt(command, state, playbook as unknown as Playbook);
    earliest = Math.min(earliest, at);
  }
  if (state.pause) return earliest;
  if (state.status === "running") earliest = Math.min(earliest, state.due_at ?? Infinity);
  for (const token of state.tokens.values()) {
    const limitMs = limitOf(token, playbook as unknown as Playbook);
    if (limitMs !== undefined) earliest = Math.min(earliest, token.entered_at + limitMs);
  }
  return earliest;
}
