/** Where a verb sends its calls: a broker in this process, or a server over HTTP. */
import type { ServiceBroker } from "moleculer";
import { createServerClient, type ServerAddress } from "../mixins/server-client.ts";
import type { Settings } from "../schemas/env.ts";
import type { Role, RunningRuntime } from "./runtime.ts";

export interface CallOptions {
  timeoutMs?: number;
  /** Nobody wants the answer any more. A broker's call runs on; its answer is dropped. */
  signal?: AbortSignal;
}

export interface Backend {
  /** Calls an action; throws the errors of the house whichever way it goes. */
  call<T>(action: string, params: Record<string, unknown>, options?: CallOptions): Promise<T>;
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
  // Workers may name several; one is enough for a question.
  const [url] = (serverUrl ?? "").split(",");
  if (url) return httpBackend({ url, apiKey, timeoutMs });
  // Loaded late: who asks a server needs no broker.
  const { startRuntime } = await import("./runtime.ts");
  return runtimeBackend(await startRuntime({ settings, roles, scope: "own" }));
}

/** Calls the broker of a runtime in this process; closing stops it. */
export function runtimeBackend(runtime: RunningRuntime): Backend {
  return {
    call: callsOf(runtime.broker),
    drain: () => runtime.drain(),
    close: () => runtime.stop(),
  };
}

/** Calls through a broker, ours or a host's. */
export function callsOf(broker: ServiceBroker): Backend["call"] {
  return (action, params, { timeoutMs } = {}) =>
    broker.call(action, params, timeoutMs === undefined ? {} : { timeout: timeoutMs });
}

/** Calls a server over HTTP. */
export function httpBackend(server: ServerAddress): Backend {
  const client = createServerClient(server);
  return {
    serverUrl: client.url,
    call: (action, params, options) => client.call(action, params, options),
    drain: () => Promise.resolve(),
    close: () => client.close(),
  };
}
