/** `noetl start`: all roles in one process, until a signal. */
import { loadSettings } from "../schemas/env.ts";
import { EXIT } from "./exit.ts";
import type { ExitCode } from "./exit.ts";
import { startRuntime } from "./runtime.ts";
import { say } from "./terminal.ts";

/** Serves the API, runs what is unfinished, and drains when it is told to stop. */
export async function start(): Promise<ExitCode> {
  const settings = loadSettings();
  for (const name of settings.unknownVariables) say(`warning: ${name} is not a setting of noetl`);
  const runtime = await startRuntime({
    settings,
    roles: ["server", "worker", "api"],
    scope: "all",
  });
  const { url } = await runtime.broker.call<{ url: string }>("api.address");
  say(`noetl serves ${url}/api (health: ${url}/health). Ctrl-C stops it; work is kept.`);
  await untilSignal();
  say("Stopping; running work is being finished. Ctrl-C again stops at once.");
  // The lease of whatever is cut off here runs out, and another process does it again.
  process.once("SIGINT", () => process.exit(EXIT.interrupted));
  await runtime.drain();
  await runtime.stop();
  return EXIT.completed;
}

function untilSignal(): Promise<void> {
  return new Promise(resolve => {
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
      process.once(signal, () => resolve());
    }
  });
}
