// What the progress of a loop and of a fan-out have in common.
import { QUEUE_TIMEOUT } from "../../schemas/command-failures.ts";
import type { EventOf, NewEvent, OutcomeResult, StoredEvent } from "../../schemas/events.ts";
import { WORKER_LOST } from "../../schemas/lease.ts";
import { firstMarks, marked, type PaceMark } from "../../schemas/loop-pace.ts";

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
  /** With a retry budget: how large it is, and how much of it is spent. */
  retry_budget?: number;
  retries_spent?: number;
  /** It is parked after this failure, until something is answered. */
  parked?: { code: string; next_try_at: number };
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

/** How a fact that ends nothing moves commands into flight, and out of it. */
export function moved({ in_flight }: Activation, event: NewEvent): { in_flight?: number } {
  switch (event.event_type) {
    case "command.issued":
      return event.meta.claim_id === undefined ? {} : { in_flight: in_flight + 1 };
    case "command.claimed":
      return { in_flight: in_flight + 1 };
    case "command.expired":
    case "command.released":
      return { in_flight: Math.max(0, in_flight - 1) };
    default:
      return {};
  }
}

/** What the first fact says of either kind. */
export function activated(
  event: StoredEvent & EventOf<"loop.started" | "loop.fanout.started">,
): Omit<Activation, "done" | "failed"> {
  const reference = event.context?.["collection_ref"] as { ref?: string } | undefined;
  const at = Math.round(event.at);
  return {
    loop_id: event.stream_id,
    activation: event.meta.activation,
    ...{ in_flight: 0, completed: false, retries: 0, started_at: at, marks: firstMarks(at) },
    ...(reference?.ref && { collection_ref: reference.ref }),
    ...freshBudget(event.meta),
    version: event.version,
  };
}

function freshBudget({ retry_budget }: { retry_budget?: number | undefined }) {
  return retry_budget === undefined ? {} : { retry_budget, retries_spent: 0 };
}

/** Whether one with a retry budget is parked: from a failure that may pass to an answer. */
export function parkedOf<Progress extends Activation>(
  progress: Progress,
  event: NewEvent,
): Progress {
  if (progress.retry_budget === undefined) return progress;
  const { parked, ...others } = progress;
  const rest = others as Progress;
  switch (event.event_type) {
    case "command.released": {
      const { spent, next_try_at, code = "" } = event.meta;
      if (spent === undefined || next_try_at === undefined) return progress;
      return { ...rest, retries_spent: spent, parked: { code, next_try_at } };
    }
    case "loop.probed": {
      const { next_try_at } = event.meta;
      return parked ? { ...rest, parked: { ...parked, next_try_at } } : progress;
    }
    case "frame.committed":
      return event.meta.ok === "" && event.meta.failed === "" ? progress : rest;
    case "command.completed":
    case "command.failed":
    case "loop.done":
    case "loop.shard.done":
    case "loop.shard.failed":
    case "loop.fanin.completed":
      return rest;
    default:
      return progress;
  }
}
