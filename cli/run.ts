/**
 * `noetl run`: one playbook, here and now, to its end; and `noetl resume`, which goes on with one.
 */
import { readPayload, readText } from "./inputs.ts";
import { withBackend } from "./context.ts";
import type { GlobalOptions } from "./context.ts";
import type { Backend } from "./backend.ts";
import { commandSettings } from "./context.ts";
import type { ExitCode } from "./exit.ts";
import { follow } from "./follow.ts";
import { Rejected } from "../schemas/errors.ts";
import { painter, openScreen, say } from "./terminal.ts";

export interface RunOptions extends GlobalOptions {
  set: string[];
  payload?: string;
  timeout?: string;
}

const CATALOG = "catalog://";

/** Registers FILE, starts it, and stays until it and all its children have ended. */
export async function run(target: string, options: RunOptions): Promise<ExitCode> {
  // What the user typed is checked before anything is started.
  const payload = await readPayload(options.payload, options.set);
  const content = target.startsWith(CATALOG) ? undefined : await readText(target);
  if (commandSettings(options).http.serverUrl) {
    throw new Rejected("run works in this process; use exec with a server");
  }
  return withBackend(options, ["server", "worker"], async backend => {
    const path =
      content === undefined
        ? target.slice(CATALOG.length)
        : await registerFile(backend, target, content);
    const started = await backend.call<{ execution_id: string }>("executions.start", {
      path,
      ...(payload && { payload }),
      ...(options.timeout !== undefined && { timeout: options.timeout }),
    });
    return follow(backend, started.execution_id, {
      json: options.json ?? false,
      descendants: true,
    });
  });
}

async function registerFile(backend: Backend, file: string, content: string): Promise<string> {
  const registered = await backend.call<{ path: string; warnings?: string[] }>("catalog.register", {
    content,
    file,
  });
  const paint = painter(openScreen().colored);
  for (const warning of registered.warnings ?? []) say(`${paint("warning", "yellow")} ${warning}`);
  return registered.path;
}

/** Goes on with an execution that was paused, or that Ctrl-C or a crash left, to its end. */
export async function resume(executionId: string, options: GlobalOptions): Promise<ExitCode> {
  return withBackend(options, ["server", "worker"], async backend => {
    await backend.call("executions.resume", { execution_id: executionId });
    const json = options.json ?? false;
    return follow(backend, executionId, { json, descendants: backend.serverUrl === undefined });
  });
}
