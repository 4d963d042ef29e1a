/**
 * How long a held command is its worker's: until when it may be silent, what its death leaves, and
 * what it never had (design §5 rule 5).
 */
import type { Command, Holder } from "./command.ts";
import type { TurnContext } from "./decider.ts";
import type { NewEvent, OutcomeResult } from "./events.ts";

/**
 * Held commands whose worker is known to be gone, or whose lease has passed while the worker's row
 * was not renewed either. Nothing is said of a holder that nobody looked for.
 */
export function* expired(commands: Iterable<Command>, context: TurnContext): Iterable<Command> {
  for (const command of commands) {
    const { holder } = command;
    if (!holder || !context.seen.has(holder.incarnation)) continue;
    if (leaseEnd(holder, context) < context.now) yield command;
  }
}

/** Until when a holder may be silent (design §5 rule 5). */
function leaseEnd(holder: Holder, { seen, settings }: TurnContext): number {
  const sign = seen.get(holder.incarnation) ?? 0;
  if (sign === "gone") return -Infinity;
  if (sign === "silent") return holder.claimed_at + settings.heartbeat_timeout_ms;
  return Math.max(holder.claimed_at, sign) + settings.lease_ms;
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
      ...command.cursor,
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

/** The earliest time at which a held command could be found expired. */
export function leaseDeadline(
  commands: Iterable<Command>,
  context: TurnContext,
): number | undefined {
  let earliest = Infinity;
  for (const { holder } of commands) {
    if (!holder) continue;
    earliest = Math.min(earliest, leaseEnd(holder, context));
  }
  return earliest < Infinity ? earliest : undefined;
}
