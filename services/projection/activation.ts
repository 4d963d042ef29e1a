// What the progress of a loop and of a fan-out have in common.
import { QUEUE_TIMEOUT } from "../../schemas/command.ts";
import type { EventOf, NewEvent, OutcomeResult } from "../../schemas/events.ts";
import { WORKER_LOST } from "../../schemas/lease.ts";
import { marked, type PaceMark } from "../../schemas/loop-pace.ts";

/** What the row keeps of a step's newest loop or fan-out, whichever of both it is. */
export interface Activation {
  loop_id: string;
  activation: number;
  done: number;
  failed: number;
  in_flight: number;
  /** Once it is over, where it was not allowed to go on. */
  not_run?: number;
  completed: boolean;
  status?: string;
  started_at: number;
  ended_at?: number;
  retries: number;
  /** Where its rate is counted from; while it runs. */
  marks?: PaceMark[];
  collection_ref?: string;
  version: number;
}

/** A running one is marked as items end; one that is over needs no marks. */
export function withMarks<Progress extends Activation>(
  before: Progress,
  after: Progress,
  at: number,
): Progress {
  const { marks, ...rest } = after;
  if (after.completed) return rest as Progress;
  const ended = after.done + after.failed;
  if (ended === before.done + before.failed) return after;
  return { ...rest, marks: marked(marks, Math.round(at), ended) } as Progress;
}

export function retriesOf(event: NewEvent): number {
  const context = event.context as { stats?: { retries?: number } } | undefined;
  return context?.stats?.retries ?? 0;
}

/** Codes of failures that an owner decides itself: nobody holds the command then. */
const UNHELD: ReadonlySet<string> = new Set([WORKER_LOST, QUEUE_TIMEOUT]);

type End = "command.completed" | "command.failed" | "loop.shard.done" | "loop.shard.failed";

/** A command given up after its last worker died was taken out of flight by that expiry. */
export function ended(
  { in_flight, retries }: Activation,
  event: EventOf<End>,
): Pick<Activation, "in_flight" | "retries"> {
  // The log is followed without the results that this fold does not need.
  const result = event.result as Partial<OutcomeResult> | undefined;
  const held = UNHELD.has(result?.error?.code ?? "") ? 0 : 1;
  return { in_flight: Math.max(0, in_flight - held), retries: retries + retriesOf(event) };
}
