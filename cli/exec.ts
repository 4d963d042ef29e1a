/** `noetl exec`: hands a registered playbook to a server, and with --wait follows it there. */
import { Rejected } from "../schemas/errors.ts";
import { commandSettings, withBackend } from "./context.ts";
import type { GlobalOptions } from "./context.ts";
import { jsonView } from "./execution-view.ts";
import type { ExecutionView } from "./execution-view.ts";
import { EXIT } from "./exit.ts";
import type { ExitCode } from "./exit.ts";
import { follow } from "./follow.ts";
import { readPayload } from "./inputs.ts";
import { print, printJson } from "./terminal.ts";

export interface ExecOptions extends GlobalOptions {
  set: string[];
  payload?: string;
  catalogVersion?: string;
  idempotencyKey?: string;
  timeout?: string;
  wait?: boolean;
}

export async function exec(target: string, options: ExecOptions): Promise<ExitCode> {
  const payload = await readPayload(options.payload, options.set);
  if (!commandSettings(options).http.serverUrl) {
    const hint = "name it with --server-url or NOETL_SERVER_URL, or use run";
    throw new Rejected(`exec asks a server, and none is named; ${hint}`);
  }
  return withBackend(options, [], async backend => {
    const { execution_id } = await backend.call<{ execution_id: string }>("executions.start", {
      path: target.replace(/^catalog:\/\//, ""),
      ...(payload && { payload }),
      ...(options.catalogVersion !== undefined && { version: options.catalogVersion }),
      ...(options.timeout !== undefined && { timeout: options.timeout }),
      ...(options.idempotencyKey && { idempotency_key: options.idempotencyKey }),
    });
    const json = options.json ?? false;
    if (options.wait) return follow(backend, execution_id, { json, descendants: false });
    if (json) {
      printJson(jsonView(await backend.call<ExecutionView>("executions.get", { execution_id })));
    } else print(`${execution_id}  started; see: noetl status ${execution_id} --watch`);
    return EXIT.completed;
  });
}
