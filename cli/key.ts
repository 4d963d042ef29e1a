/** `noetl key`: makes an API key and shows it this once, lists keys, or ends one. */
import { KEY_MEMORY_MS } from "../schemas/access.ts";
import { withBackend } from "./context.ts";
import type { GlobalOptions } from "./context.ts";
import { EXIT } from "./exit.ts";
import type { ExitCode } from "./exit.ts";
import { formatDuration, print, printJson, say, table } from "./terminal.ts";

interface Listed {
  name: string;
  role: string;
  created_at: string;
  created_by: string | null;
  last_used_at: string | null;
  revoked_at: string | null;
}

/** The key alone goes to stdout, so that `KEY=$(noetl key create …)` holds it and nothing else. */
export async function createKey(
  name: string,
  options: GlobalOptions & { role: string },
): Promise<ExitCode> {
  return withBackend(options, ["client"], async backend => {
    const params = { name, role: options.role };
    const created = await backend.call<{ role: string; key: string }>("keys.create", params);
    if (options.json) printJson(created);
    else print(created.key);
    say(`${name}  ${created.role}; this key is not shown again`);
    return EXIT.completed;
  });
}

export async function listKeys(options: GlobalOptions): Promise<ExitCode> {
  return withBackend(options, ["client"], async backend => {
    const answer = await backend.call<{ keys: Listed[] }>("keys.list", {});
    if (options.json) printJson(answer);
    else if (answer.keys.length === 0) print("No keys yet.");
    else print(table([["NAME", "ROLE", "CREATED", "LAST USED", "STATE"], ...answer.keys.map(row)]));
    return EXIT.completed;
  });
}

export async function revokeKey(name: string, options: GlobalOptions): Promise<ExitCode> {
  return withBackend(options, ["client"], async backend => {
    const revoked = await backend.call<{ revoked_at: string }>("keys.revoke", { name });
    if (options.json) printJson(revoked);
    else print(`${name}  revoked; servers refuse it after ${formatDuration(KEY_MEMORY_MS)}`);
    return EXIT.completed;
  });
}

function row({ name, role, created_at, last_used_at, revoked_at }: Listed): string[] {
  return [name, role, created_at, last_used_at ?? "never", revoked_at ? "revoked" : "good"];
}
