// Cancelling and resuming: requests first, shown as done only when nothing can start any more.
import type { Runtime } from "../../mixins/runtime.ts";
import { adoptExecution } from "../../mixins/postgres/stream.ts";
import type { RequestedBy } from "../../schemas/caller.ts";
import { Unavailable, errorType } from "../../schemas/errors.ts";
import type { ExecutionsCancel } from "../../schemas/requests.ts";
import { streamOf, type ExecutionHost } from "./host.ts";
import { readExecution } from "./read.ts";

/** Children cancelled in one go; the rest follow when the message is repeated. */
const CHILDREN_MAX = 500;

/** Asks an execution to end. Its status is RUNNING until loops and children have acknowledged. */
export async function cancelExecution(
  host: ExecutionHost,
  { execution_id, reason }: ExecutionsCancel,
  asked: RequestedBy,
) {
  const answer = await host.send(streamOf(execution_id), { type: "cancel", reason, asked });
  return { execution_id, status: answer.status, cancel_requested: true };
}

/** Cancels the descendants of an execution; acknowledged, and told to it, when none is open. */
export async function cancelChildren(runtime: Runtime, host: ExecutionHost, executionId: string) {
  const reason = `its parent ${executionId} was cancelled`;
  const open = await runtime.rows.openDescendants(executionId, CHILDREN_MAX);
  for (const child of open) {
    await host.send(streamOf(child), { type: "cancel", reason }).catch((error: unknown) => {
      // It ended by itself in the meantime.
      if (errorType(error) !== "REJECTED") throw error;
    });
  }
  const left = await runtime.rows.openDescendants(executionId, 1);
  if (left.length > 0)
    throw new Unavailable(`children of ${executionId} are still being cancelled`);
  await host.send(streamOf(executionId), { type: "children_gone" });
  return { changed: true };
}

/** Makes this node the owner of an execution and its descendants, and wakes them. */
export async function resumeExecution(runtime: Runtime, executionId: string) {
  const row = await readExecution(runtime, executionId);
  const streams = await adoptExecution(runtime.database, executionId, runtime.nodeId);
  return { execution_id: executionId, status: row.status, streams };
}
