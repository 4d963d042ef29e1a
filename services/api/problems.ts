/** How a failure looks over HTTP: one JSON shape, the right status, and nothing from inside. */
import { isObject } from "../../schemas/json.ts";

export interface Problem {
  status: number;
  headers: Record<string, string>;
  body: {
    error: { type: string; code: number; message: string } & Record<string, unknown>;
    request_id?: string;
  };
  /** true when it is ours to look into: it goes to the log with its stack. */
  unexpected: boolean;
}

interface Answer {
  status: number;
  type: string;
  message?: string;
}

/** Types of Moleculer, moleculer-web and its body parser, in the words of this house. */
const FOREIGN: Record<string, Answer> = {
  VALIDATION_ERROR: { status: 422, type: "REJECTED" },
  SERVICE_NOT_FOUND: { status: 503, type: "UNAVAILABLE", message: "No node serves this now" },
  SERVICE_NOT_AVAILABLE: { status: 503, type: "UNAVAILABLE", message: "No node serves this now" },
  REQUEST_REJECTED: {
    status: 503,
    type: "UNAVAILABLE",
    message: "The node that was asked is gone",
  },
  REQUEST_TIMEOUT: { status: 504, type: "UNAVAILABLE", message: "There was no answer in time" },
  QUEUE_FULL: { status: 429, type: "BUSY", message: "Too many requests at once" },
  NOT_FOUND: { status: 404, type: "REJECTED", message: "There is nothing at this address" },
  ORIGIN_NOT_ALLOWED: {
    status: 403,
    type: "REJECTED",
    message: "Pages of this origin may not call the API (NOETL_CORS_ALLOWED_ORIGINS)",
  },
  UNABLE_DECODE_PARAM: { status: 400, type: "REJECTED", message: "The address cannot be decoded" },
  "entity.parse.failed": { status: 400, type: "REJECTED", message: "The body is not JSON" },
  "entity.too.large": { status: 413, type: "REJECTED", message: "The body is too large" },
  "encoding.unsupported": { status: 415, type: "REJECTED", message: "Unknown content encoding" },
  "charset.unsupported": { status: 415, type: "REJECTED", message: "The body must be UTF-8" },
  "request.aborted": { status: 400, type: "REJECTED", message: "The request was cut off" },
  "request.size.invalid": { status: 400, type: "REJECTED", message: "The request was cut off" },
};

const OURS: Record<string, number> = { REJECTED: 422, CONFLICT: 409, UNAVAILABLE: 503, BUSY: 429 };
const RETRY_AFTER_MS = 1_000;

/** The answer to any error, as `error.type` tells; what is unknown becomes a bare 500. */
export function problemOf(error: unknown, requestId?: string): Problem {
  const { type, code, message, data } = fieldsOf(error);
  const foreign = FOREIGN[type];
  const answer = foreign ?? ours(type, code);
  if (!answer) return problem({ status: 500, type: "INTERNAL" }, INTERNAL, {}, requestId);
  const words = foreign?.message ?? message;
  return problem(answer, words, data, requestId);
}

const INTERNAL = "Something went wrong inside; the server's log has it under this request_id";

function ours(type: string, code: unknown): Answer | undefined {
  const usual = OURS[type];
  if (usual === undefined) return undefined;
  const given = typeof code === "number" && code >= 400 && code < 600;
  return { status: given ? code : usual, type };
}

function problem(
  { status, type }: Answer,
  message: string,
  data: Record<string, unknown>,
  requestId?: string,
): Problem {
  const headers: Record<string, string> = {};
  const extra: Record<string, unknown> = {};
  if (Array.isArray(data["issues"])) extra["issues"] = data["issues"];
  if (typeof data["hint"] === "string") extra["hint"] = data["hint"];
  if (type === "BUSY") {
    const wait = data["retry_after_ms"];
    const retryAfterMs = typeof wait === "number" && wait > 0 ? wait : RETRY_AFTER_MS;
    extra["retry_after_ms"] = retryAfterMs;
    headers["Retry-After"] = String(Math.ceil(retryAfterMs / 1000));
  }
  if (status === 401) headers["WWW-Authenticate"] = 'Bearer realm="noetl"';
  // The rest of a body that is too large stays unread, so this connection cannot serve another
  // request.
  if (status === 413) headers["Connection"] = "close";
  return {
    status,
    headers,
    body: {
      error: { type, code: status, message, ...extra },
      ...(requestId !== undefined && { request_id: requestId }),
    },
    unexpected: type === "INTERNAL",
  };
}

function fieldsOf(error: unknown) {
  const known = isObject(error) ? error : {};
  // moleculer-web names a forbidden origin in its data or its type, depending on the path it took.
  const type = typeof known["type"] === "string" ? known["type"] : "";
  const message = typeof known["message"] === "string" ? known["message"] : "";
  const data = isObject(known["data"]) ? known["data"] : {};
  return { type, code: known["code"], message, data };
}
