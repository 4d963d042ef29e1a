/** From an http response to the tool's result, from an exception to a failure. Pure. */
import { isObject, parseJson } from "../../schemas/json.ts";
import type { Json, JsonObject } from "../../schemas/json.ts";
import type { ToolEnvelope, ToolError, ToolErrorKind } from "../../schemas/tool.ts";
import { ToolFailure } from "../../mixins/tool.ts";

export type ResponseType = "auto" | "json" | "text" | "binary";

/** A response whose body has been read. */
export interface HttpResponse {
  status: number;
  /** Lower-case names; `set-cookie` is a list. */
  headers: JsonObject;
  /** Where redirects ended, without parameters that carry a secret. */
  url: string;
  elapsedMs: number;
  bytes: Buffer;
}

/** The envelope of a response: 2xx is ok, and so is a redirect the task asked not to follow. */
export function toEnvelope(
  response: HttpResponse,
  options: { responseType: ResponseType; redirectIsOk: boolean; retryAfterMaxMs: number },
): ToolEnvelope {
  const { status, headers } = response;
  const redirected = status >= 300 && status < 400 && options.redirectIsOk;
  const ok = (status >= 200 && status < 300) || redirected;
  const body = decodeBody(response.bytes, contentType(headers), options.responseType);
  const data: Json = {
    status_code: status,
    status: ok ? "success" : "error",
    headers,
    url: response.url,
    elapsed: response.elapsedMs / 1000,
    data: body,
    body,
  };
  const error = ok ? null : statusError(status, headers, options.retryAfterMaxMs);
  return { status: ok ? "ok" : "error", data, error, http: { status, headers } };
}

function statusError(status: number, headers: JsonObject, retryAfterMaxMs: number): ToolError {
  const delayMs = retryAfterMs(headers["retry-after"], Date.now(), retryAfterMaxMs);
  return {
    kind: statusKind(status),
    retryable: status === 429 || status >= 500,
    code: `HTTP_${status}`,
    message: `HTTP ${status}`,
    status_code: status,
    ...(delayMs !== undefined && { retry_after_ms: delayMs }),
  };
}

/** Error kind of a status that is not a success. */
export function statusKind(status: number): ToolErrorKind {
  if (status === 401 || status === 403) return "auth";
  if (status === 404) return "not_found";
  if (status === 429) return "rate_limit";
  return status >= 500 ? "server_error" : "client_error";
}

/**
 * Milliseconds a `Retry-After` asks to wait: seconds, or a date (RFC 9110 §10.2.3); a date in the
 * past is 0. Undefined when there is none that can be read. Never more than `maxMs`.
 */
export function retryAfterMs(value: unknown, nowMs: number, maxMs: number): number | undefined {
  if (typeof value !== "string" || value.trim() === "") return undefined;
  const text = value.trim();
  const seconds = /^\d+(\.\d+)?$/.test(text) ? Number(text) : undefined;
  const delayMs = seconds === undefined ? Date.parse(text) - nowMs : seconds * 1000;
  return Number.isNaN(delayMs) ? undefined : Math.min(Math.max(0, Math.ceil(delayMs)), maxMs);
}

/**
 * How long nobody should call this host: the `Retry-After` of a 429, or of a 503. A 429 that
 * says nothing means `pauseMs`. 0: go on.
 */
export function pauseOf(
  { status, headers }: Pick<HttpResponse, "status" | "headers">,
  { nowMs, maxMs, pauseMs }: { nowMs: number; maxMs: number; pauseMs: number },
): number {
  if (status !== 429 && status !== 503) return 0;
  const asked = retryAfterMs(headers["retry-after"], nowMs, maxMs);
  return asked ?? (status === 429 ? pauseMs : 0);
}

function contentType(headers: JsonObject): string {
  const value = headers["content-type"];
  return typeof value === "string" ? value.toLowerCase() : "";
}

/**
 * `auto` reads JSON where the type says so or the text looks like it, and keeps text that is not;
 * bytes that are no text in the stated charset become `{base64, size}`, as `binary` always does.
 */
export function decodeBody(bytes: Buffer, type: string, as: ResponseType): Json {
  if (as === "binary") return binary(bytes);
  if (bytes.length === 0) return as === "text" ? "" : null;
  const text = decodeText(bytes, type);
  if (text === undefined) return as === "text" ? bytes.toString("utf8") : binary(bytes);
  if (as === "text") return text;
  const tryJson = as === "json" || /[/+]json\b/.test(type) || /^\s*[[{]/.test(text);
  if (!tryJson) return text;
  try {
    return parseJson(text);
  } catch {
    return text;
  }
}

function binary(bytes: Buffer): Json {
  return { base64: bytes.toString("base64"), size: bytes.length };
}

function decodeText(bytes: Buffer, type: string): string | undefined {
  const charset = /charset="?([^";\s]+)/.exec(type)?.[1] ?? "utf-8";
  try {
    return new TextDecoder(charset, { fatal: true }).decode(bytes);
  } catch {
    return undefined;
  }
}

const CONNECT_TIMEOUTS = new Set(["UND_ERR_CONNECT_TIMEOUT", "ETIMEDOUT"]);
const READ_TIMEOUTS = new Set(["UND_ERR_HEADERS_TIMEOUT", "UND_ERR_BODY_TIMEOUT"]);
const CERTIFICATE = /CERT|SELF_SIGNED|UNABLE_TO_(VERIFY|GET)/;
const LOST = new Set([
  "ECONNREFUSED",
  "ECONNRESET",
  "ECONNABORTED",
  "EPIPE",
  "ENOTFOUND",
  "EAI_AGAIN",
  "EAI_NODATA",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "EADDRNOTAVAIL",
  "UND_ERR_SOCKET",
  "UND_ERR_CLOSED",
  "UND_ERR_DESTROYED",
  "UND_ERR_RES_CONTENT_LENGTH_MISMATCH",
  "UND_ERR_ABORTED",
]);

/**
 * What the client threw, as a failure. DNS failures are connection failures. Messages name the
 * host only.
 */
export function clientFailure(error: unknown, host: string): ToolFailure {
  const code = codeOf(error);
  if (CONNECT_TIMEOUTS.has(code)) {
    return failure("timeout", true, code, `no connection to ${host} in time`);
  }
  if (READ_TIMEOUTS.has(code))
    return failure("timeout", true, code, `${host} did not answer in time`);
  if (CERTIFICATE.test(code)) {
    const hint = "verify_ssl: false accepts any";
    return failure("connection", false, code, `the certificate of ${host} is refused (${hint})`);
  }
  if (code === "UND_ERR_MAX_ORIGINS_REACHED") {
    return failure("connection", true, code, "too many hosts are in use at once");
  }
  if (code === "UND_ERR_INVALID_ARG") {
    return failure("config", false, "CONFIG", `the request to ${host} is refused by the client`);
  }
  if (code.startsWith("Z_") || code.startsWith("ERR_BROTLI") || code.startsWith("ERR__ERROR")) {
    return failure(
      "parse",
      false,
      "CONTENT_ENCODING",
      `${host} sent a body that does not decompress`,
    );
  }
  if (LOST.has(code) || code.startsWith("HPE_") || /^ERR_(SSL|TLS|HTTP2)/.test(code)) {
    return failure("connection", true, code, `the connection to ${host} failed: ${code}`);
  }
  return failure("unknown", false, code || "UNKNOWN", `the request to ${host} failed`);
}

function codeOf(error: unknown): string {
  if (!isObject(error)) return "";
  if (typeof error.code === "string") return error.code;
  const inner = Array.isArray(error.errors) ? error.errors[0] : error.cause;
  return inner === undefined || inner === error ? "" : codeOf(inner);
}

function failure(
  kind: ToolErrorKind,
  retryable: boolean,
  code: string,
  message: string,
): ToolFailure {
  return new ToolFailure({ kind, retryable, code, message });
}
