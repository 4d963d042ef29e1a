// Cancelling, and going on with what was left: requests first, done when all below has followed.
import type { Runtime } from "../../mixins/runtime.ts";
import type { RequestedBy } from "../../schemas/caller.ts";
import { Unavailable, errorType } from "../../schemas/errors.ts";
import type { ExecutionsCancel } from "../../schemas/requests.ts";
import { streamOf, type ExecutionHost } from "./host.ts";

/** Descendants that are asked at once; the next ones when all of these have answered. */
const DESCENDANTS_AT_ONCE = 100;

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
  await eachDescendant(runtime, executionId, child =>
    unlessOver(host.send(streamOf(child), { type: "cancel", reason })),
  );
  const left = await runtime.rows.openDescendants(executionId, 1);
  if (left.length > 0)
    throw new Unavailable(`children of ${executionId} are still being cancelled`);
  await host.send(streamOf(executionId), { type: "children_gone" });
  return { changed: true };
}

/** Asks every open descendant of an execution, however many they are; gives their number. */
export async function eachDescendant(
  { rows }: Runtime,
  executionId: string,
  ask: (child: string) => Promise<unknown>,
): Promise<number> {
  let count = 0;
  let last: string | undefined;
  do {
    const page = await rows.openDescendants(executionId, DESCENDANTS_AT_ONCE, last);
    await Promise.all(page.map(ask));
    count += page.length;
    last = page.length < DESCENDANTS_AT_ONCE ? undefined : page.at(-1);
  } while (last !== undefined);
  return count;
}

/** A request to a child that has ended by itself in the meantime has nothing left to do. */
export async function unlessOver<Answer>(asked: Promise<Answer>): Promise<Answer | undefined> {
  return asked.catch((error: unknown) => {
    if (errorType(error) !== "REJECTED") throw error;
    return undefined;
  });
}
