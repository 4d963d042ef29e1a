/** `noetl start`, `server` and `worker`: roles in one process, until a signal. */
import { databaseUrl, loadSettings, type Settings } from "../schemas/env.ts";
import { Rejected } from "../schemas/errors.ts";
import { EXIT } from "./exit.ts";
import type { ExitCode } from "./exit.ts";
import { startRuntime, type Role } from "./runtime.ts";
import { say } from "./terminal.ts";

/** Everything in one process; or a part, with NATS and one database between the parts. */
export const ROLES = {
  start: ["server", "worker", "api"],
  server: ["server", "api"],
  worker: ["worker"],
} as const satisfies Record<string, readonly Role[]>;

/** Serves what the roles are for, and drains when it is told to stop. */
export async function start(roles: readonly Role[]): Promise<ExitCode> {
  const settings = loadSettings();
  for (const name of settings.unknownVariables) say(`warning: ${name} is not a setting of noetl`);
  if (roles.length < ROLES.start.length) refuseAlone(settings);
  const runtime = await startRuntime({ settings, roles, scope: "all" });
  if (roles.includes("api")) {
    const { url } = await runtime.broker.call<{ url: string }>("api.address");
    say(`noetl serves ${url}/api (health: ${url}/health). Ctrl-C stops it; work is kept.`);
  } else {
    say(`noetl ${roles.join(", ")} ${runtime.broker.nodeID} works. Ctrl-C stops it; work is kept.`);
  }
  await untilSignal();
  say("Stopping; running work is being finished. Ctrl-C again stops at once.");
  // The lease of whatever is cut off here runs out, and another process does it again.
  process.once("SIGINT", () => process.exit(EXIT.interrupted));
  await runtime.drain();
  await runtime.stop();
  return EXIT.completed;
}

/** A server and a worker find each other through NATS and one database: neither has a default. */
function refuseAlone(settings: Settings): void {
  const missing = [
    ...(settings.nats.url ? [] : ["NATS_URL"]),
    ...(databaseUrl(settings) ? [] : ["DATABASE_URL"]),
  ];
  if (missing.length === 0) return;
  throw new Rejected(
    `${missing.join(" and ")} must be set for a server or a worker of its own; ` +
      `'noetl start' is all of it in one process`,
    422,
  );
}

function untilSignal(): Promise<void> {
  return new Promise(resolve => {
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
      process.once(signal, () => resolve());
    }
  });
}
