// Cancelling, and going on with what was left: requests first, done when all below has followed.
import type { Runtime } from "../../mixins/runtime.ts";
import type { RequestedBy } from "../../schemas/caller.ts";
import { Unavailable, errorType } from "../../schemas/errors.ts";
import type { ExecutionsCancel } from "../../schemas/requests.ts";
import { streamOf, type ExecutionHost } from "./host.ts";

/** Children asked in one go; the rest follow when the message is repeated. */
export const CHILDREN_MAX = 500;

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
    await unlessOver(host.send(streamOf(child), { type: "cancel", reason }));
  }
  const left = await runtime.rows.openDescendants(executionId, 1);
  if (left.length > 0)
    throw new Unavailable(`children of ${executionId} are still being cancelled`);
  await host.send(streamOf(executionId), { type: "children_gone" });
  return { changed: true };
}

/** A request to a child that has ended by itself in the meantime has nothing left to do. */
export async function unlessOver<Answer>(asked: Promise<Answer>): Promise<Answer | undefined> {
  return asked.catch((error: unknown) => {
    if (errorType(error) !== "REJECTED") throw error;
    return undefined;
  });
}
