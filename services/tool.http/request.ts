/** From the fields of an http task to one request: method, URL, headers and body. Pure. */
import { validateHeaderName, validateHeaderValue } from "node:http";
import { createHash } from "node:crypto";
import { isObject } from "../../schemas/json.ts";
import type { ToolCommand } from "../../schemas/tool.ts";
import { configFailure } from "../../mixins/tool.ts";

export interface HttpRequest {
  method: string;
  /** Without user information; http or https. */
  url: URL;
  /** Names are lower-case. */
  headers: Map<string, string>;
  body: string | null;
}

const METHODS = new Set(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]);
const BODY_FIELDS = ["json", "payload", "body", "data", "form"] as const;
const FORM_TYPE = "application/x-www-form-urlencoded";
const JSON_TYPE = "application/json";
const TEXT_TYPE = "text/plain; charset=utf-8";

/**
 * Reads `method`, `url` or `endpoint`, `headers`, `params`, `idempotency_key` and one of the body
 * fields `json`, `payload`, `body`, `data`, `form`. Throws a ToolFailure of kind `config` that
 * names the field; values are not repeated in it, because they may be secret.
 */
export function buildRequest(
  config: Record<string, unknown>,
  command: Pick<ToolCommand, "idempotency_key">,
): HttpRequest {
  const method = String(config.method ?? "GET").toUpperCase();
  if (!METHODS.has(method)) {
    throw configFailure(`method: '${method}' is unknown`, `one of ${[...METHODS].join(", ")}`);
  }
  const headers = readHeaders(config.headers);
  const url = readUrl(config.url ?? config.endpoint, headers);
  const key = idempotencyKey(config.idempotency_key, command);
  if (key) headers.set("idempotency-key", key);
  const query = toPairs(config.params, "params");
  const body = readBody(config, method, headers, query);
  addQuery(url, query);
  return { method, url, headers, body };
}

/** Appends to the query as it is written, so that a signed query keeps its spelling. */
export function addQuery(url: URL, pairs: [string, string][]): void {
  if (pairs.length === 0) return;
  const added = new URLSearchParams(pairs).toString();
  url.search = url.search.length > 1 ? `${url.search}&${added}` : added;
}

function readUrl(value: unknown, headers: Map<string, string>): URL {
  if (typeof value !== "string" || value.trim() === "") {
    throw configFailure("url: it is required and came out empty", "write url: or endpoint:");
  }
  const url = URL.parse(value.trim());
  if (!url) throw configFailure("url: not a URL", "write it in full: https://host/path");
  if (url.protocol !== "http:" && url.protocol !== "https:") {
    throw configFailure(`url: scheme '${url.protocol}' is not supported`, "http or https");
  }
  if (url.username || url.password) {
    if (!headers.has("authorization")) {
      headers.set("authorization", basicValue(decode(url.username), decode(url.password)));
    }
    url.username = "";
    url.password = "";
  }
  url.hash = "";
  return url;
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** The value of an Authorization header (RFC 7617). */
export function basicValue(user: string, password: string): string {
  return `Basic ${Buffer.from(`${user}:${password}`, "utf8").toString("base64")}`;
}

function readHeaders(value: unknown): Map<string, string> {
  const headers = new Map<string, string>();
  if (value === undefined || value === null || value === "") return headers;
  if (!isObject(value)) throw configFailure("headers: expected a map of names to values");
  for (const [name, content] of Object.entries(value)) {
    if (content !== null && content !== undefined) setHeader(headers, name, textOf(content));
  }
  return headers;
}

/**
 * Sets a header after checking what HTTP allows; a config failure names the header, not its value.
 */
export function setHeader(headers: Map<string, string>, name: string, value: string): void {
  const text = value.trim();
  try {
    validateHeaderName(name);
    validateHeaderValue(name, text);
  } catch {
    throw configFailure(`headers: ${JSON.stringify(name)} has characters HTTP does not allow`);
  }
  headers.set(name.toLowerCase(), text);
}

/** `true` makes a key that every delivery and every retry of one visit of the task share. */
function idempotencyKey(
  value: unknown,
  command: Pick<ToolCommand, "idempotency_key">,
): string | undefined {
  if (value === undefined || value === null || value === "" || value === false) return undefined;
  if (value !== true && value !== "true") return textOf(value);
  return createHash("sha256").update(command.idempotency_key).digest("hex").slice(0, 32);
}

function readBody(
  config: Record<string, unknown>,
  method: string,
  headers: Map<string, string>,
  query: [string, string][],
): string | null {
  const given = BODY_FIELDS.filter(field => config[field] !== undefined && config[field] !== null);
  if (given.length > 1) {
    throw configFailure(`${given.join(" and ")}: each is a request body`, "keep one of them");
  }
  const field = given[0];
  if (field === undefined) return null;
  const value = config[field];
  if (field === "form") return encodeForm(value, "form", headers);
  if (field === "json") return encodeJson(value, headers);
  if (field !== "data") return encodeBody(value, field, headers);
  if (isSplit(value)) {
    query.push(...toPairs(value.query, "data.query"));
    const body = value.body;
    return body === undefined || body === null ? null : encodeBody(body, "data.body", headers);
  }
  const bodiless = method === "GET" || method === "HEAD";
  if (bodiless && (isObject(value) || typeof value === "string")) {
    query.push(...toPairs(value, "data"));
    return null;
  }
  return encodeBody(value, "data", headers);
}

/**
 * `data: {query: {…}, body: …}` is split; a `query` that is text is a body (GraphQL writes its
 * documents so), and any third key makes the whole map a body.
 */
function isSplit(value: unknown): value is { query?: unknown; body?: unknown } {
  if (!isObject(value)) return false;
  const keys = Object.keys(value);
  if (keys.length === 0 || keys.some(key => key !== "query" && key !== "body")) return false;
  return value.query === undefined || value.query === null || isObject(value.query);
}

function encodeBody(value: unknown, field: string, headers: Map<string, string>): string {
  const form = (headers.get("content-type") ?? "").toLowerCase().startsWith(FORM_TYPE);
  if (form && isObject(value)) return encodeForm(value, field, headers);
  if (typeof value !== "string") return encodeJson(value, headers);
  setDefault(headers, "content-type", isJsonText(value) ? JSON_TYPE : TEXT_TYPE);
  return value;
}

function encodeJson(value: unknown, headers: Map<string, string>): string {
  setDefault(headers, "content-type", JSON_TYPE);
  return typeof value === "string" && isJsonText(value) ? value : JSON.stringify(value);
}

function encodeForm(value: unknown, field: string, headers: Map<string, string>): string {
  setDefault(headers, "content-type", FORM_TYPE);
  return new URLSearchParams(toPairs(value, field)).toString();
}

function setDefault(headers: Map<string, string>, name: string, value: string): void {
  if (!headers.has(name)) headers.set(name, value);
}

function isJsonText(text: string): boolean {
  if (!/^\s*[[{]/.test(text)) return false;
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

/** Null is dropped, lists repeat their name, maps inside become JSON; a text is `a=1&b=2`. */
export function toPairs(value: unknown, field: string): [string, string][] {
  if (value === undefined || value === null || value === "") return [];
  if (typeof value === "string") return [...new URLSearchParams(value)];
  if (!isObject(value)) throw configFailure(`${field}: expected a map`);
  const pairs: [string, string][] = [];
  for (const [name, content] of Object.entries(value)) {
    for (const item of Array.isArray(content) ? content : [content]) {
      if (item !== null && item !== undefined) pairs.push([name, textOf(item)]);
    }
  }
  return pairs;
}

function textOf(value: unknown): string {
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}
