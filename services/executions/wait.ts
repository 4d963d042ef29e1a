// Waiting for the end of a run: answered by the owner of its stream, not by polling its row.
import type { Runtime } from "../../mixins/runtime.ts";
import { listOpenDescendants } from "../../mixins/postgres/execution.ts";
import type { ExecutionsWait } from "../../schemas/requests.ts";
import { streamOf, type ExecutionHost } from "./host.ts";
import { statusWord } from "./machine.ts";
import { readExecution, type ExecutionView } from "./read.ts";

/** Another node may own the stream: its head is looked at this often. */
const LOOK_MS = 500;
/** How long a row may lag behind its stream before the owner's word is given instead. */
const ROW_LAG_MS = 2_000;

/** The execution when it has ended, or as it is at the timeout. Throws Rejected 404. */
export async function waitForExecution(
  runtime: Runtime,
  host: ExecutionHost,
  request: ExecutionsWait,
): Promise<ExecutionView> {
  const { execution_id, timeout_ms, descendants } = request;
  const until = runtime.clock.now() + timeout_ms;
  const status = await ended(runtime, host, execution_id, until);
  if (status !== undefined && descendants) await familyEnded(runtime, execution_id, until);
  const row = await readExecution(runtime, execution_id);
  return status === undefined ? row : caughtUp(runtime, row, status);
}

/** The final status, or undefined when time ran out. */
async function ended(
  runtime: Runtime,
  host: ExecutionHost,
  executionId: string,
  until: number,
): Promise<string | undefined> {
  const stream = streamOf(executionId);
  let status: string | undefined;
  let wake = () => {};
  const stop = host.watch(stream, state => {
    const word = statusWord(state);
    if (word === "RUNNING") return;
    status = word;
    wake();
  });
  try {
    while (status === undefined) {
      const { status: word } = await host.send(stream, { type: "describe" });
      if (word !== "RUNNING") return word;
      const left = until - runtime.clock.now();
      if (left <= 0) return undefined;
      await new Promise<void>(resolve => {
        wake = resolve;
        runtime.clock.after(Math.min(left, LOOK_MS), resolve);
        if (status !== undefined) resolve();
      });
    }
    return status;
  } finally {
    stop();
  }
}

async function familyEnded(runtime: Runtime, executionId: string, until: number): Promise<void> {
  while (runtime.clock.now() < until) {
    const open = await listOpenDescendants(runtime.database, executionId, 1);
    if (open.length === 0) return;
    await runtime.clock.sleep(200);
  }
}

async function caughtUp(
  runtime: Runtime,
  row: ExecutionView,
  status: string,
): Promise<ExecutionView> {
  const until = runtime.clock.now() + ROW_LAG_MS;
  let current = row;
  while (current.status === "RUNNING" && runtime.clock.now() < until) {
    await runtime.clock.sleep(10);
    current = await readExecution(runtime, row.execution_id);
  }
  return current.status === "RUNNING" ? { ...current, status } : current;
}
