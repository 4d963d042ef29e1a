// The host of execution streams, as the parts of this room see it.
import type { ActorHost } from "../../mixins/actor.ts";
import type { ExecutionAnswer, ExecutionInput } from "./machine.ts";
import type { ExecutionState } from "./state.ts";

export type ExecutionHost = ActorHost<ExecutionInput, ExecutionAnswer, ExecutionState>;

/** An execution's own stream has its id. */
export function streamOf(executionId: string) {
  return { execution_id: executionId, stream_id: executionId };
}
