/**
 * Limits of one command: how long it may wait for a worker, and how long one delivery may take
 * (`spec.queue_timeout` and `spec.attempt_timeout` of a step). The owner judges both, by the
 * database's clock, so that they hold whatever becomes of the worker.
 */
import type { Command } from "./command.ts";
import { ATTEMPT_TIMEOUT, QUEUE_TIMEOUT } from "./command-failures.ts";
import type { OutcomeResult } from "./events.ts";

/** Milliseconds; absent: no limit. */
export interface CommandLimits {
  queue_ms?: number | undefined;
  attempt_ms?: number | undefined;
}

/** When a command is late; Infinity for one that cannot be. */
export function lateAt(command: Command, { queue_ms, attempt_ms }: CommandLimits): number {
  const { holder, waiting_since } = command;
  if (holder) return holder.claimed_at + (attempt_ms ?? Infinity);
  return (waiting_since ?? Infinity) + (queue_ms ?? Infinity);
}

/** How a late command ends. */
export function lateResult({ holder, step }: Command, limits: CommandLimits): OutcomeResult {
  const message = holder
    ? `step '${step}': one attempt took longer than ${limits.attempt_ms} ms`
    : `step '${step}': no worker took the command within ${limits.queue_ms} ms`;
  const code = holder ? ATTEMPT_TIMEOUT : QUEUE_TIMEOUT;
  return { status: "error", error: { kind: "timeout", retryable: false, code, message } };
}

/** A pause, and a parked loop, are no wait for a worker: it begins anew. */
export function waitAnew<One extends Command>(commands: Map<string, One>, at: number): void {
  for (const [id, command] of commands) {
    if (!command.holder) commands.set(id, { ...command, waiting_since: at });
  }
}
