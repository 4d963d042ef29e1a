// What every Moleculer service that listens is told of the end of a run: ids and counts only.
import type { StoredEvent } from "../../schemas/events.ts";
import { isLive, type ExecutionState } from "./state.ts";

/** Payload of `execution.completed`, `execution.failed` and `execution.cancelled`. */
export interface ExecutionEnded {
  execution_id: string;
  parent_execution_id: string | null;
  path: string | null;
  status: "COMPLETED" | "FAILED" | "CANCELLED";
  generation: number;
  /** How often steps were entered, all together. */
  steps: number;
  /** When it ended, milliseconds since 1970. */
  at: number;
}

const ENDS = {
  "playbook.completed": ["execution.completed", "COMPLETED"],
  "playbook.failed": ["execution.failed", "FAILED"],
  "execution.cancelled": ["execution.cancelled", "CANCELLED"],
} as const;

/** The events to broadcast after a commit: a hint that may be lost; the log is the truth. */
export function announcements(
  events: readonly StoredEvent[],
  state: ExecutionState,
): { name: string; payload: ExecutionEnded }[] {
  const over = state.status === "none" || isLive(state) ? undefined : state;
  return events.flatMap(event => {
    if (!(event.event_type in ENDS)) return [];
    const [name, status] = ENDS[event.event_type as keyof typeof ENDS];
    const { execution_id, at } = event;
    const payload = {
      ...{ execution_id, parent_execution_id: over?.parent_execution_id ?? null },
      ...{ path: over?.path ?? null, status, generation: over?.generation ?? 0 },
      ...{ steps: over?.steps ?? 0, at },
    };
    return [{ name, payload }];
  });
}
