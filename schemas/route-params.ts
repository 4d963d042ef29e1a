/** What of an HTTP request goes to the action that answers it. */
import { isObject } from "./json.ts";

export interface ApiRequest {
  /** Names in the path, decoded. */
  path: Record<string, string>;
  /** After the question mark. */
  query: Record<string, unknown>;
  /** Parsed JSON, or text for a YAML body; undefined without a body. */
  body: unknown;
  /** Lower-case names. */
  headers: Record<string, string | string[] | undefined>;
}

export function queryOf({ query }: ApiRequest): Record<string, unknown> {
  return query;
}

/** `workload` is NoETL's other word for `payload`; the header is the usual way to send a key. */
export function startParams(request: ApiRequest): Record<string, unknown> {
  const { workload, ...params } = bodyObject(request);
  // Both at once stay two fields, so that the refusal names the one that has no meaning beside
  // payload.
  if (workload !== undefined && params["payload"] !== undefined) return { ...params, workload };
  if (workload !== undefined) params["payload"] = workload;
  const key = request.headers["idempotency-key"];
  if (typeof key === "string" && key !== "") params["idempotency_key"] ??= key;
  return params;
}

/** A body of YAML text is the playbook itself: `curl --data-binary @file.yaml`. */
export function registerParams(request: ApiRequest): Record<string, unknown> {
  if (typeof request.body !== "string") return bodyObject(request);
  return { content: request.body, ...request.query };
}

/** NoETL's own clients read the events of an execution from the execution, page by page. */
export function asksForEvents({ query }: ApiRequest): boolean {
  return "page" in query || "page_size" in query || "event_type" in query;
}

export function pathAndQuery({ path, query }: ApiRequest): Record<string, unknown> {
  return { ...query, ...path };
}

export function pathAndBody(request: ApiRequest): Record<string, unknown> {
  return { ...bodyObject(request), ...request.path };
}

export function bodyObject({ body }: ApiRequest): Record<string, unknown> {
  // Anything else is handed on under a name no action knows, so the action refuses it in its own
  // words.
  return isObject(body) ? { ...body } : body === undefined ? {} : { body };
}
