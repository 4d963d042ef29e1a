/** `noetl start`, `server` and `worker`: roles in one process, until a signal. */
import { isLoopback, keysRequired } from "../schemas/access.ts";
import { loadSettings, type Settings } from "../schemas/env.ts";
import { EXIT } from "./exit.ts";
import type { ExitCode } from "./exit.ts";
import { refuseAlone, startRuntime, type Role, type RunningRuntime } from "./runtime.ts";
import { say } from "./terminal.ts";

interface KeyState {
  revoked_at: string | null;
}

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
  refuseAlone(settings, roles);
  const runtime = await startRuntime({ settings, roles, scope: "all" });
  // Before anybody hears that it has started, and may end it.
  const told = untilSignal();
  if (roles.includes("api")) {
    const { url } = await runtime.broker.call<{ url: string }>("api.address");
    say(`noetl serves ${url}/api (health: ${url}/health). Ctrl-C stops it; work is kept.`);
    await sayWhoMayCome(runtime, settings.http);
  } else {
    say(`noetl ${roles.join(", ")} ${runtime.broker.nodeID} works. Ctrl-C stops it; work is kept.`);
  }
  await told;
  say("Stopping; running work is being finished. Ctrl-C again stops at once.");
  // The lease of whatever is cut off here runs out, and another process does it again.
  process.once("SIGINT", () => process.exit(EXIT.interrupted));
  await runtime.drain();
  await runtime.stop();
  return EXIT.completed;
}

/** The first key is made beside the API: nobody could ask for it there. */
async function sayWhoMayCome({ broker }: RunningRuntime, http: Settings["http"]): Promise<void> {
  if (!keysRequired(http)) {
    if (isLoopback(http.host)) return;
    return say(`warning: whoever reaches ${http.host} may use the API (NOETL_AUTH=${http.auth})`);
  }
  // A database that is away for a moment does not end a server that has started.
  const listed = await broker.call<{ keys: KeyState[] }>("keys.list").catch(() => undefined);
  if (!listed || listed.keys.some(({ revoked_at }) => revoked_at === null)) return;
  say("API keys are required, and there is none. With the settings of this server, make one by:");
  say("  noetl key create NAME --role admin");
}

function untilSignal(): Promise<void> {
  return new Promise(resolve => {
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
      process.once(signal, () => resolve());
    }
  });
}
