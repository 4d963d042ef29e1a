/** `noetl pause` and `noetl unpause`: an execution holds, and goes on where it is. */
import type { Backend } from "./backend.ts";
import { withBackend } from "./context.ts";
import type { GlobalOptions } from "./context.ts";
import { EXIT } from "./exit.ts";
import type { ExitCode } from "./exit.ts";
import { print, printJson } from "./terminal.ts";

/** Asks an execution to begin nothing more. */
export async function pause(
  executionId: string,
  options: GlobalOptions & { reason?: string },
): Promise<ExitCode> {
  return withBackend(options, ["server"], async backend => {
    const status = await askToPause(backend, executionId, options.reason);
    if (options.json) printJson({ execution_id: executionId, status });
    else print(pauseLine(executionId, status));
    return EXIT.completed;
  });
}

/** Ends a pause. Who had the execution goes on with it; this process does not stay. */
export async function unpause(executionId: string, options: GlobalOptions): Promise<ExitCode> {
  return withBackend(options, ["server"], async backend => {
    const status = await askToGoOn(backend, executionId);
    if (options.json) printJson({ execution_id: executionId, status });
    else print(`${executionId}  ${status}`);
    return EXIT.completed;
  });
}

/** Answers with the status: PAUSED, unless something below takes long to hear of it. */
export async function askToPause(
  backend: Backend,
  execution_id: string,
  reason = "",
): Promise<string> {
  const params = { execution_id, ...(reason !== "" && { reason }) };
  return (await backend.call<{ status: string }>("executions.pause", params)).status;
}

/** Answers with the status. */
export async function askToGoOn(backend: Backend, execution_id: string): Promise<string> {
  const params = { execution_id, adopt: false };
  return (await backend.call<{ status: string }>("executions.resume", params)).status;
}

/** `12  PAUSED; go on with: noetl resume 12`. */
export function pauseLine(executionId: string, status: string): string {
  if (status !== "PAUSED") return `${executionId}  pause requested`;
  return `${executionId}  PAUSED; ${howToGoOn(executionId)}`;
}

export function howToGoOn(executionId: string): string {
  return `go on with: noetl resume ${executionId}`;
}
