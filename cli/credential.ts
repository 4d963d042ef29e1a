/**
 * `noetl credential`: stores an alias, or lists those there are; secrets go in and never come out.
 */
import { withBackend } from "./context.ts";
import type { GlobalOptions } from "./context.ts";
import { EXIT } from "./exit.ts";
import type { ExitCode } from "./exit.ts";
import { readJsonMap } from "./inputs.ts";
import { print, printJson, table } from "./terminal.ts";

interface Listed {
  name: string;
  type: string;
  source?: string;
  updated_at?: string;
}

/** `--data` is JSON, `@file`, or `@-` for stdin, which keeps secrets out of the shell's history. */
export async function addCredential(
  name: string,
  options: GlobalOptions & { type: string; data: string },
): Promise<ExitCode> {
  const data = await readJsonMap(options.data, "--data");
  return withBackend(options, ["client"], async backend => {
    const params = { name, type: options.type, data };
    const stored = await backend.call<Listed & { shadowed_by?: string }>(
      "credentials.register",
      params,
    );
    if (options.json) printJson(stored);
    else {
      print(`${stored.name}  ${stored.type}, stored`);
      if (stored.shadowed_by) print(`  hidden here by the same alias in the ${stored.shadowed_by}`);
    }
    return EXIT.completed;
  });
}

export async function listCredentials(options: GlobalOptions): Promise<ExitCode> {
  return withBackend(options, ["client"], async backend => {
    const answer = await backend.call<{ credentials: Listed[] }>("credentials.list", {});
    if (options.json) printJson(answer);
    else if (answer.credentials.length === 0) print("No credentials yet.");
    else {
      const rows = answer.credentials.map(({ name, type, source = "" }) => [name, type, source]);
      print(table([["ALIAS", "TYPE", "FROM"], ...rows]));
    }
    return EXIT.completed;
  });
}
