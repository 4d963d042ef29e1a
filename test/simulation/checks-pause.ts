// Pauses: where one is known nothing begins, and nothing at all below what is shown as PAUSED.
import type { StoredEvent } from "../../schemas/events.ts";
import type { World } from "./world.ts";

interface Held {
  /** Streams that know of a pause. */
  streams: Set<string>;
  /** Shown as PAUSED. */
  executions: Set<string>;
  /** Children that were being started meanwhile: whoever starts one tells it of the pause then. */
  late: Set<string>;
}

/** What began although it was paused, as the log tells it in the order of its commits. */
export function begunInPause({ tables }: World): string[] {
  const held: Held = { streams: new Set(), executions: new Set(), late: new Set() };
  const parentOf = (id: string) => tables.executions.get(id)?.parent_execution_id;
  const faults: string[] = [];
  for (const { event } of tables.log) {
    note(held, event);
    if (event.event_type !== "command.issued" && event.event_type !== "command.claimed") continue;
    const told = `${event.meta.command_id}: ${event.event_type}`;
    if (held.streams.has(event.stream_id)) faults.push(`${told} in a paused stream`);
    for (let id: string | null | undefined = event.execution_id; id; id = parentOf(id)) {
      if (held.late.has(id)) break;
      if (held.executions.has(id)) faults.push(`${told} while ${id} is PAUSED`);
    }
  }
  return faults;
}

function note({ streams, executions, late }: Held, event: StoredEvent): void {
  const { stream_id, execution_id } = event;
  switch (event.event_type) {
    case "playbook.initialized":
      if (executions.has(event.meta.parent_execution_id ?? "")) late.add(execution_id);
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
