/** One http exchange: send, follow redirects, read a bounded body, all within one deadline. */
import type { Duplex, Readable } from "node:stream";
import { pipeline } from "node:stream";
import { createBrotliDecompress, createGunzip, createInflate } from "node:zlib";
import { request } from "undici";
import type { Dispatcher } from "undici";
import { ToolFailure, cancelledFailure, configFailure } from "../../mixins/tool.ts";
import type { JsonObject } from "../../schemas/json.ts";
import { addQuery, setHeader } from "./request.ts";
import type { HttpRequest } from "./request.ts";
import type { HttpSecrets } from "./auth.ts";
import { clientFailure } from "./response.ts";
import type { HttpResponse } from "./response.ts";

export interface ExchangeLimits {
  /** Headers and body, of all redirects together. */
  timeoutMs: number;
  /** 0 follows none. */
  maxRedirects: number;
  /** Of the decompressed body. */
  responseMaxBytes: number;
}

/** What must not reach another origin than the one it was meant for. */
const SECRET_HEADERS = ["authorization", "cookie", "proxy-authorization"];
const REDIRECTS = new Set([301, 302, 303, 307, 308]);

/**
 * Sends the request and reads the whole answer, whatever its status. Throws a ToolFailure:
 * `timeout`, `connection`, `cancelled`, or `config` for too many redirects and too large a body.
 */
export async function exchange(
  dispatcher: Dispatcher,
  built: HttpRequest,
  secrets: HttpSecrets,
  limits: ExchangeLimits,
  signal?: AbortSignal,
): Promise<HttpResponse> {
  const deadline = AbortSignal.timeout(limits.timeoutMs);
  const stop = signal ? AbortSignal.any([signal, deadline]) : deadline;
  const startedAt = performance.now();
  const sent = withSecrets(built, secrets);
  try {
    const { response, url } = await follow(dispatcher, sent, secrets, limits, stop);
    const bytes = await readBody(response, sent.method, limits.responseMaxBytes);
    const elapsedMs = Math.round(performance.now() - startedAt);
    const headers = plainHeaders(response.headers);
    return { status: response.statusCode, headers, url: shown(url, secrets), elapsedMs, bytes };
  } catch (error) {
    if (error instanceof ToolFailure) throw error;
    if (signal?.aborted) throw cancelledFailure();
    if (deadline.aborted) throw timeoutFailure(built.url.host, limits.timeoutMs);
    throw clientFailure(error, built.url.host);
  }
}

function withSecrets(built: HttpRequest, secrets: HttpSecrets): HttpRequest {
  const sent = { ...built, url: new URL(built.url), headers: new Map(built.headers) };
  for (const [name, value] of secrets.headers) setHeader(sent.headers, name, value);
  addQuery(sent.url, secrets.query);
  if (!sent.headers.has("accept-encoding"))
    sent.headers.set("accept-encoding", "gzip, deflate, br");
  if (!sent.headers.has("accept")) sent.headers.set("accept", "*/*");
  if (!sent.headers.has("user-agent")) sent.headers.set("user-agent", "noetl");
  return sent;
}

async function follow(
  dispatcher: Dispatcher,
  first: HttpRequest,
  secrets: HttpSecrets,
  limits: ExchangeLimits,
  signal: AbortSignal,
): Promise<{ response: Dispatcher.ResponseData; url: URL }> {
  let current = first;
  for (let hops = 0; ; hops++) {
    const response = await request(current.url, {
      dispatcher,
      method: current.method,
      headers: Object.fromEntries(current.headers),
      body: current.body,
      signal,
    });
    const location = response.headers.location;
    const redirected = REDIRECTS.has(response.statusCode) && typeof location === "string";
    if (!redirected || limits.maxRedirects === 0) return { response, url: current.url };
    await response.body.dump({ limit: limits.responseMaxBytes, signal });
    if (hops >= limits.maxRedirects) throw tooManyRedirects(first.url.host, limits.maxRedirects);
    current = redirect(current, response.statusCode, location, secrets);
  }
}

/**
 * The request a redirect asks for (RFC 9110 §15.4): 303, and 301 or 302 of a POST, become GET
 * without a body. To another origin no Authorization, no Cookie and no header of the task's
 * credential goes.
 */
export function redirect(
  from: HttpRequest,
  status: number,
  location: string,
  secrets: HttpSecrets,
): HttpRequest {
  const url = URL.parse(location, from.url.href);
  if (!url || (url.protocol !== "http:" && url.protocol !== "https:")) {
    throw configFailure(`url: ${from.url.host} redirects to something that is not http or https`);
  }
  url.username = "";
  url.password = "";
  url.hash = "";
  const headers = new Map(from.headers);
  if (url.origin !== from.url.origin) {
    const secret = secrets.headers.map(([name]) => name.toLowerCase());
    for (const name of [...SECRET_HEADERS, ...secret]) headers.delete(name);
  }
  const becomesGet =
    (status === 303 && from.method !== "HEAD") || (status <= 302 && from.method === "POST");
  if (!becomesGet) return { ...from, url, headers };
  for (const name of [...headers.keys()]) if (name.startsWith("content-")) headers.delete(name);
  return { method: "GET", url, headers, body: null };
}

/**
 * The URL as a result may show it: a key that a credential put into the query is taken out again.
 */
function shown(url: URL, secrets: HttpSecrets): string {
  if (secrets.query.length === 0) return url.href;
  const copy = new URL(url);
  for (const [name] of secrets.query) copy.searchParams.delete(name);
  return copy.href;
}

async function readBody(
  response: Dispatcher.ResponseData,
  method: string,
  maxBytes: number,
): Promise<Buffer> {
  const stated = Number(response.headers["content-length"] ?? 0);
  const bodiless = method === "HEAD" || response.statusCode === 204 || response.statusCode === 304;
  if (!bodiless && stated > maxBytes) {
    response.body.destroy();
    throw tooLarge(maxBytes);
  }
  const stream = bodiless ? response.body : decompress(response);
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    size += chunk.length;
    // Leaving the loop destroys the stream, and with it the connection.
    if (size > maxBytes) throw tooLarge(maxBytes);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks, size);
}

function decompress(response: Dispatcher.ResponseData): Readable {
  const header = response.headers["content-encoding"];
  const encodings = String(header ?? "")
    .split(",")
    .map(name => name.trim().toLowerCase())
    .filter(name => name !== "" && name !== "identity");
  let stream: Readable = response.body;
  for (const name of encodings.reverse()) {
    const decoder = decoderOf(name);
    if (!decoder) break;
    // The error reaches the reader through the decoder, which pipeline destroys with it.
    stream = pipeline(stream, decoder, () => undefined);
  }
  return stream;
}

function decoderOf(encoding: string): Duplex | undefined {
  if (encoding === "gzip" || encoding === "x-gzip") return createGunzip();
  if (encoding === "deflate") return createInflate();
  return encoding === "br" ? createBrotliDecompress() : undefined;
}

function plainHeaders(headers: Dispatcher.ResponseData["headers"]): JsonObject {
  const plain: JsonObject = {};
  for (const [name, value] of Object.entries(headers)) {
    if (value === undefined) continue;
    const key = name.toLowerCase();
    if (key === "set-cookie") plain[key] = Array.isArray(value) ? value : [value];
    else plain[key] = Array.isArray(value) ? value.join(", ") : value;
  }
  return plain;
}

function timeoutFailure(host: string, timeoutMs: number): ToolFailure {
  const message = `${host} did not answer within ${timeoutMs / 1000} s`;
  return new ToolFailure({ kind: "timeout", retryable: true, code: "TIMEOUT", message });
}

function tooManyRedirects(host: string, max: number): ToolFailure {
  const message = `${host} redirects more than ${max} times`;
  const code = "TOO_MANY_REDIRECTS";
  return new ToolFailure({ kind: "client_error", retryable: false, code, message });
}

function tooLarge(maxBytes: number): ToolFailure {
  const message =
    `the response is larger than ${maxBytes} bytes (NOETL_HTTP_RESPONSE_MAX_BYTES); ` +
    "ask for it in pages";
  return new ToolFailure({
    kind: "config",
    retryable: false,
    code: "RESPONSE_TOO_LARGE",
    message,
  });
}
