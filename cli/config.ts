/**
 * `noetl config`: every setting, the value in effect, and where it came from. Secrets stay hidden.
 */
import { describeSettings } from "../schemas/env.ts";
import { commandSettings } from "./context.ts";
import type { GlobalOptions } from "./context.ts";
import { EXIT } from "./exit.ts";
import type { ExitCode } from "./exit.ts";
import { openScreen, painter, print, printJson, table } from "./terminal.ts";

export async function config(options: GlobalOptions & { set?: boolean }): Promise<ExitCode> {
  const settings = commandSettings(options);
  const lines = describeSettings(settings).filter(
    line => !options.set || line.source === "environment",
  );
  if (options.json) {
    printJson({ settings: lines });
    return EXIT.completed;
  }
  if (lines.length === 0) {
    print("The environment sets nothing; every default is in effect.");
    return EXIT.completed;
  }
  const paint = painter(openScreen(process.stdout).colored);
  const rows = lines.map(({ name, value, source, doc }) => [name, value || "-", source, doc]);
  const [head = "", ...rest] = table([["SETTING", "VALUE", "SOURCE", "MEANING"], ...rows]).split(
    "\n",
  );
  print([paint(head, "bold"), ...rest].join("\n"));
  return EXIT.completed;
}
