/** What an action throws, as a failure that policy rules understand. */
import { sanitizeFields, sanitizeText } from "../../mixins/logging/sanitize.ts";
import { configFailure, ToolFailure } from "../../mixins/tool.ts";
import { errorType } from "../../schemas/errors.ts";
import { isObject, type JsonObject } from "../../schemas/json.ts";
import type { ToolError, ToolErrorKind } from "../../schemas/tool.ts";

/** Largest `data` of an error that goes into the output, as JSON. */
const DATA_BYTES_MAX = 2_048;
const TEXT_MAX_CHARS = 400;
const MESSAGE_MAX_CHARS = 1_000;
/** Cap on what a busy action may ask to wait. */
const RETRY_AFTER_MAX_MS = 300_000;

/** Nobody has worked on the request, as far as Moleculer knows: the service is not there. */
const NOT_THERE = new Set([
  "SERVICE_NOT_FOUND",
  "SERVICE_NOT_AVAILABLE",
  "REQUEST_REJECTED",
  "BROKER_DISCONNECTED",
]);
const LATE = new Set(["REQUEST_TIMEOUT", "REQUEST_SKIPPED"]);
/** What NATS says of a message that it does not carry. */
const TOO_LARGE = "MAX_PAYLOAD_EXCEEDED";

interface Thrown {
  code?: unknown;
  retryable?: unknown;
  data?: unknown;
  message?: unknown;
}

/**
 * The failure behind an error of a broker call: matched by type and code, since classes do not
 * cross the wire. An error without a code counts as 500, as everywhere in Moleculer.
 */
export function actionFailure(error: unknown): ToolFailure {
  const thrown = (isObject(error) ? error : { message: String(error) }) as Thrown;
  if (thrown.code === TOO_LARGE) {
    return configFailure("params or answer: larger than the transporter carries", "pass an id");
  }
  const type = errorType(error);
  const code = typeof thrown.code === "number" ? thrown.code : 500;
  const [kind, retryable] = kindOf(type, code, thrown.retryable === true);
  const failure: ToolError = {
    kind,
    retryable,
    code: /^[\w.-]{1,64}$/.test(type) ? type : `ACTION_${code}`,
    message: sanitizeText(messageOf(thrown), MESSAGE_MAX_CHARS),
    status_code: code,
    ...(kind === "rate_limit" && retryAfter(thrown.data)),
  };
  const data = shownData(thrown.data);
  return new ToolFailure(failure, data === undefined ? {} : { data });
}

function kindOf(type: string, code: number, retryable: boolean): [ToolErrorKind, boolean] {
  if (type === "VALIDATION_ERROR" || code === 422) return ["client_error", false];
  if (NOT_THERE.has(type)) return ["connection", true];
  if (LATE.has(type)) return ["timeout", true];
  if (type === "QUEUE_FULL" || code === 429) return ["rate_limit", true];
  if (code >= 500 || retryable) return ["server_error", true];
  return code >= 400 ? ["client_error", false] : ["unknown", false];
}

function messageOf({ message }: Thrown): string {
  return typeof message === "string" && message !== "" ? message : "the action failed";
}

function retryAfter(data: unknown): Pick<ToolError, "retry_after_ms"> {
  const asked = isObject(data) ? data["retry_after_ms"] : undefined;
  if (typeof asked !== "number" || !(asked > 0)) return {};
  return { retry_after_ms: Math.min(asked, RETRY_AFTER_MAX_MS) };
}

/** Small data of an error with its secrets masked; of a large one nothing. */
function shownData(data: unknown): JsonObject | undefined {
  if (!isObject(data) || Object.keys(data).length === 0) return undefined;
  const limits = { valueMaxChars: TEXT_MAX_CHARS, includePayloadOnError: false };
  const text = JSON.stringify(sanitizeFields(data, limits));
  return Buffer.byteLength(text) <= DATA_BYTES_MAX ? (JSON.parse(text) as JsonObject) : undefined;
}
