/**
 * What may be written to a log: secrets masked, values cut. Used on the log path only, never on
 * data.
 */
import { isObject } from "../../schemas/json.ts";
import { isSecretName, SECRET_WORDS } from "../../schemas/secret-names.ts";

export interface SanitizeLimits {
  /** Longest string, and longest JSON text of one field, in characters. */
  valueMaxChars: number;
  /** Adds a redacted preview of an error's data; without it only its keys and size are written. */
  includePayloadOnError: boolean;
}

const MASK = "***";
const DEPTH_MAX = 5;
const ITEMS_MAX = 20;
const KEYS_MAX = 40;
/** A stack is worth more room than a value: about 20 frames. */
const STACK_MAX_CHARS = 3_000;

/** `scheme://user:password@host`: everything before the @ goes. */
const USER_INFO = /\b([a-z][a-z0-9+.-]*:\/\/)[^\s/?#@"']+@/gi;
const SCHEME_TOKEN = /\b(Bearer|Basic|Token|Digest)\s+[A-Za-z0-9._~+/=-]{4,}/gi;
/** A key of our own API, wherever it appears. */
const API_KEY = /noetl_[\w-]{43,}/g;
/** `password=x`, `"api_key": "x"`, `?token=x`, in the middle of a text. */
const ASSIGNED = new RegExp(
  `(["']?\\b[\\w-]*(?:${SECRET_WORDS}|token)["']?\\s*[=:]\\s*)` +
    `("(?:[^"\\\\]|\\\\.)*"|'[^']*'|[^\\s,;&"'}\\])]+)`,
  "gi",
);

/** Masks secrets inside a text and cuts it to the limit, saying how long it was. */
export function sanitizeText(text: string, maxChars: number): string {
  // A cut before masking bounds the work; a secret cut in half is still masked up to the cut.
  const bounded = text.length > maxChars * 4 ? text.slice(0, maxChars * 4) : text;
  const masked = bounded
    .replace(USER_INFO, `$1${MASK}@`)
    .replace(SCHEME_TOKEN, `$1 ${MASK}`)
    .replace(API_KEY, `noetl_${MASK}`)
    .replace(ASSIGNED, `$1${MASK}`);
  if (masked.length <= maxChars && bounded === text) return masked;
  return `${masked.slice(0, maxChars)}…(${text.length} chars)`;
}

/** The fields of one log line, safe to write. Never throws: a getter that does is shown as such. */
export function sanitizeFields(
  fields: Record<string, unknown>,
  limits: SanitizeLimits,
): Record<string, unknown> {
  const safe: Record<string, unknown> = {};
  for (const key of Object.keys(fields)) safe[key] = safeField(fields, key, limits);
  return safe;
}

function safeField(fields: Record<string, unknown>, key: string, limits: SanitizeLimits): unknown {
  try {
    if (isSecretName(key) && isSecretValue(fields[key])) return MASK;
    const value = fields[key];
    if (value instanceof Error) return describeError(value, limits);
    return cutField(sanitizeValue(value, limits, 0), limits);
  } catch {
    return "(unreadable)";
  }
}

/** A number or a boolean under a secret's name (`max_tokens: 3`) says nothing worth hiding. */
function isSecretValue(value: unknown): boolean {
  return typeof value !== "number" && typeof value !== "boolean" && value !== null && value !== "";
}

function cutField(value: unknown, { valueMaxChars }: SanitizeLimits): unknown {
  if (typeof value !== "object" || value === null) return value;
  const text = JSON.stringify(value);
  if (text.length <= valueMaxChars) return value;
  return `${text.slice(0, valueMaxChars)}…(${text.length} chars)`;
}

function sanitizeValue(value: unknown, limits: SanitizeLimits, depth: number): unknown {
  if (typeof value === "string") return sanitizeText(value, limits.valueMaxChars);
  if (typeof value === "bigint") return String(value);
  if (typeof value === "function" || typeof value === "symbol") return undefined;
  if (typeof value !== "object" || value === null) return value;
  if (value instanceof Error) return describeError(value, limits);
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? null : value.toISOString();
  if (ArrayBuffer.isView(value)) return `(${value.byteLength} bytes)`;
  if (depth >= DEPTH_MAX) return Array.isArray(value) ? "[…]" : "{…}";
  if (Array.isArray(value)) {
    const items = value.slice(0, ITEMS_MAX).map(item => sanitizeValue(item, limits, depth + 1));
    return value.length > ITEMS_MAX ? [...items, `…(${value.length} items)`] : items;
  }
  return sanitizeObject(value as Record<string, unknown>, limits, depth);
}

function sanitizeObject(
  value: Record<string, unknown>,
  limits: SanitizeLimits,
  depth: number,
): Record<string, unknown> {
  const safe: Record<string, unknown> = {};
  const keys = Object.keys(value);
  for (const key of keys.slice(0, KEYS_MAX)) {
    const secret = isSecretName(key) && isSecretValue(value[key]);
    safe[key] = secret ? MASK : sanitizeValue(value[key], limits, depth + 1);
  }
  if (keys.length > KEYS_MAX) safe["…"] = `${keys.length} keys`;
  return safe;
}

/**
 * An error as fields: what it is, what it says, where it comes from. Its data only by keys and
 * size.
 */
export function describeError(error: Error, limits: SanitizeLimits, depth = 0): object {
  const { name, code, type, data, nodeID } = error as Error & Record<string, unknown>;
  const known: Record<string, unknown> = {
    name,
    ...(typeof type === "string" && { type }),
    ...((typeof code === "string" || typeof code === "number") && { code }),
    ...(typeof nodeID === "string" && { node: nodeID }),
    message: sanitizeText(error.message, limits.valueMaxChars),
    ...describeData(data, limits),
  };
  if (error.stack) known["stack"] = stackOf(error);
  if (error.cause instanceof Error && depth < DEPTH_MAX) {
    known["cause"] = describeError(error.cause, limits, depth + 1);
  }
  return known;
}

function stackOf(error: Error): string {
  const stack = error.stack ?? "";
  // The first lines repeat the message, which is above and may be long: the frames are what is new.
  const frames = stack.slice(Math.max(0, stack.search(/^\s+at /m)));
  return sanitizeText(frames.trim(), STACK_MAX_CHARS);
}

function describeData(data: unknown, limits: SanitizeLimits): Record<string, unknown> {
  if (!isObject(data) || Object.keys(data).length === 0) return {};
  // The issues of a refusal are our own words: places and expectations, no values.
  const { issues, ...rest } = data;
  const known: Record<string, unknown> = {};
  if (Array.isArray(issues)) known["issues"] = sanitizeValue(issues, limits, 0);
  if (Object.keys(rest).length === 0) return known;
  if (limits.includePayloadOnError)
    known["data"] = cutField(sanitizeValue(rest, limits, 0), limits);
  else known["data_keys"] = Object.keys(rest).slice(0, KEYS_MAX);
  return { ...known, data_chars: sizeOf(rest) };
}

function sizeOf(value: unknown): number {
  try {
    return JSON.stringify(value)?.length ?? 0;
  } catch {
    return -1;
  }
}
