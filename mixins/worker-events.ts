// Outcomes as the events that workers report over HTTP and JetStream, and what is said to them.
import type { Grant } from "../schemas/frozen-scope.ts";
import type { OutcomeRequest, Reply } from "./actor-service.ts";

export type Granted = Reply<{ grant?: Grant }>;

/** An outcome as `POST /api/events/batch` takes it. */
export function eventOf({ execution_id: _in, ...outcome }: OutcomeRequest) {
  const isOk = outcome.result.status === "ok";
  return { event_type: isOk ? "command.completed" : "command.failed", ...outcome };
}
