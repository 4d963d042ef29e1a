// How a command fails by time, and which failures leave work that goes on somewhere.
import type { NewEvent } from "./events.ts";

/** Code of a command that was ended because its step had taken too long. */
export const STEP_TIMEOUT = "STEP_TIMEOUT";
/** Of one that nobody claimed in time, and of one whose worker took too long with it. */
export const QUEUE_TIMEOUT = "QUEUE_TIMEOUT";
export const ATTEMPT_TIMEOUT = "ATTEMPT_TIMEOUT";
/** Failures by time of work that goes on somewhere. */
const LATE: ReadonlySet<string> = new Set([STEP_TIMEOUT, ATTEMPT_TIMEOUT]);

/** Whether a fact says that a command has failed: also an attempt of a shard, and its last one. */
export function isFailure<Event extends NewEvent>(
  event: Event,
): event is Event & { event_type: "command.failed" | "loop.shard.failed" } {
  return event.event_type === "command.failed" || event.event_type === "loop.shard.failed";
}

/** The command whose work is of no use to anybody after this fact, and who held it. */
export function abandoned(
  event: NewEvent,
): { command_id: string; worker_id?: string | undefined } | undefined {
  if (event.event_type === "command.cancelled") return event.meta;
  const isLate = isFailure(event) && LATE.has(event.result.error?.code ?? "");
  return isLate ? event.meta : undefined;
}
