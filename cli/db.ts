/** `noetl db migrate`: brings the database up to this build. Every start does it too. */
import { commandSettings } from "./context.ts";
import type { GlobalOptions } from "./context.ts";
import { EXIT } from "./exit.ts";
import type { ExitCode } from "./exit.ts";
import { openStore } from "./runtime.ts";
import { print, printJson } from "./terminal.ts";

export async function migrateDatabase(options: GlobalOptions): Promise<ExitCode> {
  const store = await openStore(commandSettings(options));
  try {
    const { applied } = store;
    if (options.json) printJson({ applied });
    else
      print(applied.length === 0 ? "Nothing to do." : applied.map(n => `applied ${n}`).join("\n"));
    return EXIT.completed;
  } finally {
    await store.close();
  }
}
