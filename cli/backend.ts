/** Where a verb sends its calls: a broker in this process, or a server over HTTP. */
import { Agent, request } from "undici";
import type { Settings } from "../schemas/env.ts";
import { Conflict, Busy, Rejected, Unavailable } from "../schemas/errors.ts";
import type { RejectedCode } from "../schemas/errors.ts";
import { isObject } from "../schemas/json.ts";
import { API_ROUTES } from "../schemas/routes.ts";
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
  const { serverUrl, clientTimeoutMs } = settings.http;
  if (serverUrl) return httpBackend(serverUrl, clientTimeoutMs);
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

/** Calls actions by the routes that the API offers for them. */
export function httpBackend(serverUrl: string, timeoutMs: number): Backend {
  const dispatcher = new Agent({ connect: { timeout: timeoutMs } });
  const base = serverUrl.replace(/\/+$/, "");
  return {
    serverUrl: base,
    async call<T>(action: string, params: Record<string, unknown>, callTimeoutMs = timeoutMs) {
      const { method, path, query, body } = requestOf(action, params);
      const url = `${base}/api${path}${query}`;
      const limits = { headersTimeout: callTimeoutMs, bodyTimeout: callTimeoutMs };
      const answer = await request(url, {
        method,
        dispatcher,
        ...limits,
        ...(body !== undefined && {
          body: JSON.stringify(body),
          headers: { "content-type": "application/json" },
        }),
      }).catch((error: Error) => {
        throw new Unavailable(`The server at ${base} cannot be reached: ${reasonOf(error)}`);
      });
      return (await readAnswer(answer.statusCode, await answer.body.text(), base)) as T;
    },
    drain: () => Promise.resolve(),
    close: () => dispatcher.close(),
  };
}

function requestOf(action: string, params: Record<string, unknown>) {
  const route = API_ROUTES.find(candidate => candidate.serves.includes(action));
  if (!route) throw new Rejected(`The API does not offer '${action}'; run it without --server-url`);
  const rest = { ...params };
  const path = route.path.replace(/[:*](\w+)/g, (mark, name: string) => {
    const value = String(rest[name]);
    delete rest[name];
    const encoded = encodeURIComponent(value);
    // A rest parameter spans segments: its slashes are the path's own.
    return mark.startsWith("*") ? encoded.replaceAll("%2F", "/") : encoded;
  });
  if (route.method === "POST") return { method: route.method, path, query: "", body: rest };
  const given = Object.entries(rest).filter(([, value]) => value !== undefined);
  const pairs = given.map(([name, value]): [string, string] => [name, String(value)]);
  const query = new URLSearchParams(pairs).toString();
  return { method: route.method, path, query: query === "" ? "" : `?${query}`, body: undefined };
}

/** The answer's JSON; an error comes back as the class it left the server with. */
function readAnswer(status: number, text: string, base: string): unknown {
  const value = parse(text);
  if (status < 400 && value !== undefined) return value;
  const error = isObject(value) ? value["error"] : undefined;
  if (!isObject(error) || typeof error["message"] !== "string") {
    throw new Unavailable(`${base} answered ${status}, and not as a noetl server does`);
  }
  const details = {
    ...(Array.isArray(error["issues"]) && { issues: error["issues"] }),
    ...(typeof error["hint"] === "string" && { hint: error["hint"] }),
  };
  const message = error["message"];
  if (error["type"] === "CONFLICT") throw new Conflict(message, details);
  if (error["type"] === "BUSY") {
    throw new Busy(message, { retry_after_ms: Number(error["retry_after_ms"] ?? 1_000) });
  }
  if (error["type"] === "REJECTED") throw new Rejected(message, status as RejectedCode, details);
  throw new Unavailable(`The server says: ${message}`);
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}

function reasonOf(error: Error & { code?: string }): string {
  const words: Record<string, string> = {
    ECONNREFUSED: "nothing listens there (start one with: noetl start)",
    ENOTFOUND: "the host name is unknown",
    UND_ERR_CONNECT_TIMEOUT: "no connection in time",
    UND_ERR_HEADERS_TIMEOUT: "no answer in time",
  };
  return words[error.code ?? ""] ?? error.code ?? error.message;
}
