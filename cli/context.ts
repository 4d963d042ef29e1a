/**
 * What every verb is given: settings with the command line's wishes laid over, and a way to end.
 */
import type { Settings } from "../schemas/env.ts";
import { loadSettings } from "../schemas/env.ts";
import { checked } from "../schemas/requests.ts";
import { z } from "zod";
import { errorLines, errorReport, exitCodeOf } from "./exit.ts";
import type { ExitCode } from "./exit.ts";
import { openBackend } from "./backend.ts";
import type { Backend } from "./backend.ts";
import type { Role } from "./runtime.ts";
import { printJson, say } from "./terminal.ts";

export interface GlobalOptions {
  serverUrl?: string;
  apiKey?: string;
  json?: boolean;
}

const serverUrl = z.url({ protocol: /^https?$/, error: "http://host:port" }).optional();

/**
 * Settings for a short command: what the broker says at info is no news to a person who waits for
 * an answer, so the level is warn unless the environment names one.
 */
export function commandSettings(options: GlobalOptions): Settings {
  const settings = loadSettings();
  if (settings.sources["NOETL_LOG_LEVEL"] === "default") settings.logging.level = "warn";
  const url = checked(serverUrl, options.serverUrl, "--server-url cannot be used");
  if (url !== undefined) settings.http.serverUrl = url;
  if (options.apiKey) settings.http.apiKey = options.apiKey;
  for (const name of settings.unknownVariables) say(`warning: ${name} is not a setting of noetl`);
  return settings;
}

/** Runs a verb, prints what went wrong, and ends the process with its exit code. */
export async function finishWith(
  options: GlobalOptions,
  verb: () => Promise<ExitCode>,
): Promise<void> {
  process.exitCode = await verb().catch((error: unknown) => {
    if (options.json) printJson(errorReport(error));
    for (const line of errorLines(error)) say(line);
    return exitCodeOf(error);
  });
}

/** Opens the backend, does the work, and closes it whatever happens. */
export async function withBackend(
  options: GlobalOptions,
  roles: readonly Role[],
  work: (backend: Backend, settings: Settings) => Promise<ExitCode>,
): Promise<ExitCode> {
  const settings = commandSettings(options);
  const backend = await openBackend(settings, roles);
  try {
    return await work(backend, settings);
  } finally {
    await backend.close();
  }
}
