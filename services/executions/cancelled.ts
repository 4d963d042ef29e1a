// Ending an execution before its time: because somebody asked for it, or because it took too long.
import type { RequestedBy } from "../../schemas/caller.ts";
import { ofDropped } from "../../schemas/command.ts";
import type { NewEvent } from "../../schemas/events.ts";
import type { Running } from "./state.ts";

/** Code of a run that took longer than `executor.spec.timeout`, or than its start allowed. */
const EXECUTION_TIMEOUT = "EXECUTION_TIMEOUT";

export function cancel(
  input: { reason?: string; asked?: RequestedBy },
  state: Running,
): NewEvent[] {
  const meta = { ...(input.reason && { reason: input.reason }), ...input.asked };
  return [{ event_type: "execution.cancel_requested", meta }, ...dropped(state)];
}

/** A run that took too long ends as a cancelled one does, and has failed then. */
export function overrun(state: Running): NewEvent[] {
  const { timeout_ms = 0 } = state;
  const meta = { reason: reasonOf(timeout_ms), timeout_ms };
  return [{ event_type: "execution.cancel_requested", meta }, ...dropped(state)];
}

function dropped(state: Running): NewEvent[] {
  return [...state.commands.values()].map(command => ({
    event_type: "command.cancelled",
    node_name: command.step,
    meta: { ...ofDropped(command), next: [], step_status: "cancelled" },
  }));
}

/** The end, once nothing below it can start any more. */
export function gone(state: Running): NewEvent {
  const meta = { generation: state.generation };
  if (state.overran === undefined) return { event_type: "execution.cancelled", meta };
  const message = reasonOf(state.overran);
  const error = { kind: "timeout", retryable: false, code: EXECUTION_TIMEOUT, message };
  return { event_type: "playbook.failed", meta, result: { status: "error", error } };
}

function reasonOf(timeoutMs: number): string {
  return `the execution did not end within ${timeoutMs} ms`;
}
