// What time does to an execution: commands of dead workers, and steps that are late.
import { releaseOf, type Command } from "../../schemas/command.ts";
import { disowned, exhausted, expired, expiryOf } from "../../schemas/lease.ts";
import type { TurnContext } from "../../schemas/decider.ts";
import type { NewEvent } from "../../schemas/events.ts";
import type { Playbook } from "../../schemas/playbook/model.ts";
import { needPlaybook, playbookReference } from "../../schemas/playbook/stored-result.ts";
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
  // A paused step does not grow older.
  if (state.pause) return events;
  const playbook = needPlaybook(state.playbook, context);
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

/** When the first step will be late; Infinity when none can be. */
export function earliestTimeout(state: Running, context: TurnContext): number {
  const playbook = context.loaded.get(playbookReference(state.playbook).ref);
  if (playbook === undefined || state.pause) return Infinity;
  let earliest = Infinity;
  for (const token of state.tokens.values()) {
    const limitMs = limitOf(token, playbook as unknown as Playbook);
    if (limitMs !== undefined) earliest = Math.min(earliest, token.entered_at + limitMs);
  }
  return earliest;
}
