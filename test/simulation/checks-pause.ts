// Pauses: where one is known nothing begins, and nothing at all below what is shown as PAUSED.
import type { StoredEvent } from "../../schemas/events.ts";
import type { World } from "./world.ts";

interface Held {
  /** Streams that know of a pause. */
  streams: Set<string>;
  /** Shown as PAUSED. */
  executions: Set<string>;
  /**
   * Children that were being started when the pause was asked for, by when they began: such a one
   * looks up itself, at once, or when its stream has a new owner.
   */
  late: Map<string, number>;
}

/** A lease, and what it takes to notice: a child whose owner died has another one by then. */
const LATE_MS = 40_000;

/** What began although it was paused, as the log tells it in the order of its commits. */
export function begunInPause({ tables }: World): string[] {
  const held: Held = { streams: new Set(), executions: new Set(), late: new Map() };
  const parentOf = (id: string) => tables.executions.get(id)?.parent_execution_id;
  const faults: string[] = [];
  for (const { event } of tables.log) {
    note(held, event);
    if (event.event_type !== "command.issued" && event.event_type !== "command.claimed") continue;
    const told = `${event.meta.command_id}: ${event.event_type}`;
    if (held.streams.has(event.stream_id)) faults.push(`${told} in a paused stream`);
    for (let id: string | null | undefined = event.execution_id; id; id = parentOf(id)) {
      if (event.at < (held.late.get(id) ?? -Infinity) + LATE_MS) break;
      if (held.executions.has(id)) faults.push(`${told} while ${id} is PAUSED`);
    }
  }
  return faults;
}

function note({ streams, executions, late }: Held, event: StoredEvent): void {
  const { stream_id, execution_id, at } = event;
  switch (event.event_type) {
    case "playbook.initialized":
      if (streams.has(event.meta.parent_execution_id ?? "")) late.set(execution_id, at);
      return;
    case "execution.pause_requested":
      streams.add(stream_id);
      return;
    case "execution.paused":
      streams.add(stream_id);
      if (stream_id === execution_id) executions.add(execution_id);
      return;
    case "execution.resumed":
    case "execution.redriven":
      streams.delete(stream_id);
      if (stream_id === execution_id) executions.delete(execution_id);
      return;
    default:
  }
}
