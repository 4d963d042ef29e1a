// Work whose command was cancelled, or came too late, is of no use to anybody: its worker is told.
import type { ServiceBroker } from "moleculer";
import { BATCH_MAX } from "../schemas/actor-requests.ts";
import { abandoned } from "../schemas/command-failures.ts";
import type { StoredEvent } from "../schemas/events.ts";
import { MESSAGE_BYTES_MAX, splitBySize } from "./json-size.ts";
import { isOffered } from "./routing.ts";

/** Commands told of at once; the outcomes of what is beyond are refused, whenever they come. */
const TOLD_MAX = 10_000;
const TELL_MS = 2_000;

/**
 * Made by an owner: tells the workers that held the commands which these committed events end.
 * Those of many commits go out together, ids only. Nothing is sent again: a message that is lost
 * costs the time until the worker's next beat, which looks for itself. The worker
 * of this process hears of it without a message.
 */
export function abortsOf(broker: ServiceBroker): (events: readonly StoredEvent[]) => void {
  let waiting = new Map<string, string[]>();
  let count = 0;

  function tell(): void {
    for (const [nodeID, ids] of waiting) {
      // A worker that is gone, or that no broker reaches, is told nothing.
      if (!isOffered(broker, "worker.abort", nodeID)) continue;
      for (const command_ids of splitBySize(ids, MESSAGE_BYTES_MAX, BATCH_MAX)) {
        const options = { nodeID, timeout: TELL_MS };
        void broker.call("worker.abort", { command_ids }, options).catch(() => undefined);
      }
    }
    waiting = new Map();
    count = 0;
  }

  return events => {
    for (const event of events) {
      const { command_id, worker_id } = abandoned(event) ?? {};
      if (!command_id || !worker_id || worker_id === broker.nodeID) continue;
      if (count >= TOLD_MAX) return;
      const ids = waiting.get(worker_id) ?? [];
      ids.push(command_id);
      waiting.set(worker_id, ids);
      count += 1;
      // Commits that return together are told of together.
      if (count === 1) setImmediate(tell);
    }
  };
}
