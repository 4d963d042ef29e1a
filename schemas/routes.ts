/** The HTTP API as a table: which action answers which request, and with what parameters. */
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

export interface ApiRoute {
  method: "GET" | "POST";
  /** In the notation of path-to-regexp: `:name` is one segment, `*name` is the rest. */
  path: string;
  action: (request: ApiRequest) => string;
  /** Actions that a client reaches here; the CLI finds its way by them. */
  serves: readonly string[];
  params: (request: ApiRequest) => Record<string, unknown>;
  status: number;
}

/** Below `/api`. Everything else is unknown: no action is reachable by its name. */
export const API_ROUTES: readonly ApiRoute[] = [
  route("POST /execute", "executions.start", startParams),
  route("GET /executions", "executions.list", request => request.query),
  {
    ...route("GET /executions/:execution_id", "executions.get", pathAndQuery),
    action: request => (asksForEvents(request) ? "executions.events" : "executions.get"),
  },
  route("GET /executions/:execution_id/status", "executions.status", pathAndQuery),
  route("GET /executions/:execution_id/events", "executions.events", pathAndQuery),
  route("GET /executions/:execution_id/result", "executions.result", pathAndQuery),
  route("POST /executions/:execution_id/cancel", "executions.cancel", pathAndBody, 202),
  route("POST /executions/:execution_id/resume", "executions.resume", pathAndBody, 202),
  route("POST /catalog/register", "catalog.register", registerParams),
  route("GET /catalog", "catalog.list", request => request.query),
  route("GET /catalog/*path", "catalog.get", pathAndQuery),
  route("POST /credentials", "credentials.register", bodyObject),
  route("GET /credentials", "credentials.list", request => request.query),
];

function route(
  methodAndPath: string,
  action: string,
  params: ApiRoute["params"],
  status = 200,
): ApiRoute {
  const [method, path] = methodAndPath.split(" ") as [ApiRoute["method"], string];
  return { method, path, action: () => action, serves: [action], params, status };
}

/** `workload` is NoETL's other word for `payload`; the header is the usual way to send a key. */
function startParams(request: ApiRequest): Record<string, unknown> {
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
function registerParams(request: ApiRequest): Record<string, unknown> {
  if (typeof request.body !== "string") return bodyObject(request);
  return { content: request.body, ...request.query };
}

/** NoETL's own clients read the events of an execution from the execution, page by page. */
function asksForEvents({ query }: ApiRequest): boolean {
  return "page" in query || "page_size" in query || "event_type" in query;
}

function pathAndQuery({ path, query }: ApiRequest): Record<string, unknown> {
  return { ...query, ...path };
}

function pathAndBody(request: ApiRequest): Record<string, unknown> {
  return { ...bodyObject(request), ...request.path };
}

function bodyObject({ body }: ApiRequest): Record<string, unknown> {
  // Anything else is handed on under a name no action knows, so the action refuses it in its own
  // words.
  return isObject(body) ? { ...body } : body === undefined ? {} : { body };
}
