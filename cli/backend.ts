/** Where a verb sends its calls: a broker in this process, or a server over HTTP. */
import { createServerClient, type ServerAddress } from "../mixins/server-client.ts";
import type { Settings } from "../schemas/env.ts";
import type { Role, RunningRuntime } from "./runtime.ts";

export interface Backend {
  /** Calls an action; throws the errors of the house whichever way it goes. */
  call<T>(action: string, params: Record<string, unknown>, timeoutMs?: number): Promise<T>;
  /** Gives back running work that can be left, before close; nothing to do for a server. */
  drain(): Promise<void>;
  close(): Promise<void>;
  /** The server's address, or undefined when the work is done in this process. */
  serverUrl?: string;
}

/**
 * The server that `--server-url` or NOETL_SERVER_URL names, else the services of `roles` in here.
 */
export async function openBackend(settings: Settings, roles: readonly Role[]): Promise<Backend> {
  const { serverUrl, apiKey, clientTimeoutMs: timeoutMs } = settings.http;
  if (serverUrl) return httpBackend({ url: serverUrl, apiKey, timeoutMs });
  // Loaded late: who asks a server needs no broker.
  const { startRuntime } = await import("./runtime.ts");
  return runtimeBackend(await startRuntime({ settings, roles, scope: "own" }));
}

/** Calls the broker of a runtime in this process; closing stops it. */
export function runtimeBackend(runtime: RunningRuntime): Backend {
  return {
    call: (action, params, timeoutMs) =>
      runtime.broker.call(action, params, timeoutMs === undefined ? {} : { timeout: timeoutMs }),
    drain: () => runtime.drain(),
    close: () => runtime.stop(),
  };
}

/** Calls a server over HTTP. */
export function httpBackend(server: ServerAddress): Backend {
  const client = createServerClient(server);
  return {
    serverUrl: client.url,
    call: (action, params, timeoutMs) => client.call(action, params, { timeoutMs }),
    drain: () => Promise.resolve(),
    close: () => client.close(),
  };
}
