// Of the row people read: how far a fan-out is.
import type { ExecutionRow } from "../../mixins/postgres/execution.ts";
import type { EventOf, StoredEvent } from "../../schemas/events.ts";
import { activated, ended, moved, parkedOf, withMarks, type Activation } from "./activation.ts";

/** Progress of a step's newest fan-out, in `state.fanout.<step>`. Counts are of shards. */
export interface FanoutProgress extends Activation {
  total_shards: number;
  /** running, then the status of the fan-in. */
  status: string;
}

export function fanoutsOf(row: Pick<ExecutionRow, "state">): Record<string, FanoutProgress> {
  return (row.state["fanout"] ?? {}) as unknown as Record<string, FanoutProgress>;
}

/** The progress with one event more; undefined when the fan-out has not begun. */
export function foldFanout(
  known: FanoutProgress | undefined,
  event: StoredEvent,
): FanoutProgress | undefined {
  const before = event.event_type === "loop.fanout.started" ? begun(event) : known;
  if (!before) return undefined;
  const after = { ...before, ...stepOf(before, event), version: event.version };
  return parkedOf(withMarks(before, after, event.at), event);
}

function begun(event: StoredEvent & EventOf<"loop.fanout.started">): FanoutProgress {
  const { total_shards, inherited_shards } = event.meta;
  return {
    ...activated(event),
    ...{ total_shards, status: "running" },
    done: inherited_shards?.succeeded ?? 0,
    failed: inherited_shards?.failed ?? 0,
  };
}

function stepOf(progress: FanoutProgress, event: StoredEvent): Partial<FanoutProgress> {
  const { done, failed } = progress;
  switch (event.event_type) {
    case "command.failed": {
      // An attempt that is made again: neither a success nor a failure of its shard.
      const counted = ended(progress, event);
      return { ...counted, retries: counted.retries + 1 };
    }
    case "loop.shard.done":
      return { ...ended(progress, event), done: done + 1 };
    case "loop.shard.failed":
      return { ...ended(progress, event), failed: failed + 1 };
    case "loop.fanin.completed":
      return {
        ...{ completed: true, in_flight: 0, status: event.meta.status },
        ended_at: Math.round(event.at),
      };
    default:
      return moved(progress, event);
  }
}
