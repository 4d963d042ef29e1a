/** A server over HTTP, for the command line and for workers whose NATS is gone. */
import { Agent, request } from "undici";
import { Busy, Conflict, Rejected, Unavailable } from "../schemas/errors.ts";
import type { RejectedCode } from "../schemas/errors.ts";
import { isObject } from "../schemas/json.ts";
import { API_ROUTES } from "../schemas/routes.ts";

export interface ServerAddress {
  /** http://host:port, without /api. */
  url: string;
  /** Sent as a bearer token, to servers that ask for keys. */
  apiKey: string | undefined;
  /** The longest wait for one answer. */
  timeoutMs: number;
}

export interface ServerClient {
  readonly url: string;
  /**
   * Calls an action by the route that the API offers for it. Throws the errors of the house:
   * Rejected, Conflict and Busy as the server said them, Unavailable when it cannot be reached.
   */
  call<T>(
    action: string,
    params: Record<string, unknown>,
    options?: { timeoutMs?: number | undefined; signal?: AbortSignal },
  ): Promise<T>;
  close(): Promise<void>;
}

export function createServerClient({ url, apiKey, timeoutMs }: ServerAddress): ServerClient {
  const dispatcher = new Agent({ connect: { timeout: timeoutMs } });
  const base = url.replace(/\/+$/, "");
  return {
    url: base,
    async call<T>(
      action: string,
      params: Record<string, unknown>,
      options: { timeoutMs?: number | undefined; signal?: AbortSignal } = {},
    ) {
      const { method, path, query, body } = requestOf(action, params);
      const limitMs = options.timeoutMs ?? timeoutMs;
      const answer = await request(`${base}/api${path}${query}`, {
        method,
        dispatcher,
        ...(options.signal && { signal: options.signal }),
        headersTimeout: limitMs,
        bodyTimeout: limitMs,
        headers: {
          ...(apiKey !== undefined && { authorization: `Bearer ${apiKey}` }),
          ...(body !== undefined && { "content-type": "application/json" }),
        },
        ...(body !== undefined && { body: JSON.stringify(body) }),
      }).catch((error: Error) => {
        throw new Unavailable(`The server at ${base} cannot be reached: ${reasonOf(error)}`);
      });
      return readAnswer(answer.statusCode, await answer.body.text(), base) as T;
    },
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
    // Something in front of the server, such as a proxy, asks for a login of its own.
    if (status === 401 || status === 403) throw new Rejected(`${base} answers ${status}`, status);
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
