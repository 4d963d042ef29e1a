/** The API's own description (OpenAPI 3.1), made of the table of routes and its shapes. */
import { packageVersion } from "../../mixins/version.ts";
import { ANSWERS, health, problem } from "../../schemas/answers.ts";
import { executionsEvents } from "../../schemas/requests.ts";
import { API_ROUTES } from "../../schemas/routes.ts";
import type { ApiRoute } from "../../schemas/routes.ts";
import { Schemas, type Schema } from "./openapi-schemas.ts";

const ABOUT = `Executions of NoETL playbooks over HTTP: JSON both ways, ids as text.
Errors have one shape (Problem) whatever their status; POST /api/execute is repeatable with an
Idempotency-Key. Keys are asked for when the server can be reached by others than its own machine
(NOETL_AUTH): send one as a bearer token or as X-API-Key. Each operation names the roles that may
use it; a key with the role admin may use all.`;

const JSON_TYPE = "application/json";
const YAML_TYPE = "application/yaml";

/** The document of this build; `keys` says whether requests need one. */
export function openApiDocument({ keys }: { keys: boolean }): Schema {
  const schemas = new Schemas();
  const paths: Record<string, Record<string, Schema>> = {};
  for (const route of API_ROUTES) {
    const path = `/api${route.path.replace(/[:*](\w+)/g, "{$1}")}`;
    paths[path] = { ...paths[path], [route.method.toLowerCase()]: operation(route, schemas) };
  }
  const responses = { ...problems(schemas) };
  return {
    openapi: "3.1.0",
    info: { title: "noetl", version: packageVersion(), description: ABOUT },
    servers: [{ url: "/" }],
    // One of the two, or none at all where no keys are asked for.
    security: [...(keys ? [] : [{}]), { bearer: [] }, { key: [] }],
    paths: { ...paths, ...unprefixed(schemas) },
    components: {
      schemas: schemas.components,
      responses,
      securitySchemes: {
        bearer: { type: "http", scheme: "bearer" },
        key: { type: "apiKey", in: "header", name: "X-API-Key" },
      },
    },
  };
}

function operation(route: ApiRoute, schemas: Schemas): Schema {
  const { summary, roles, status } = route;
  const action = nameOf(route);
  const extra = EXTRAS[`${route.method} ${route.path}`]?.(schemas) ?? {};
  const { inPath, rest } = split(route, schemas.of(route.shape));
  const isPost = route.method === "POST";
  const parameters = [
    ...parametersOf(inPath, "path"),
    ...(isPost ? [] : parametersOf(rest, "query")),
    ...(extra.parameters ?? []),
  ];
  return {
    operationId: action,
    tags: [action.split(".")[0]],
    summary,
    description: [extra.description, `Roles: ${roles.join(", ")}.`].filter(Boolean).join(" "),
    ...(parameters.length > 0 && { parameters }),
    ...(isPost && bodyOf(rest, extra)),
    responses: {
      [status]: { description: summary, content: extra.answers ?? answersOf(action, schemas) },
      ...extra.responses,
      ...refusals(route),
    },
  };
}

function nameOf({ serves, path }: ApiRoute): string {
  return serves[0] ?? `executions.${path.split("/").at(-1)}`;
}

interface Fields {
  properties: Record<string, Schema>;
  required: string[];
}

/** What of the request is in its path, and what in its query or body. */
function split(route: ApiRoute, schema: Schema): { inPath: Fields; rest: Schema & Fields } {
  const names = [...route.path.matchAll(/[:*](\w+)/g)].map(match => match[1] ?? "");
  const properties = (schema["properties"] ?? {}) as Fields["properties"];
  const required = (schema["required"] ?? []) as string[];
  const isInPath = (name: string): boolean => names.includes(name);
  const entries = Object.entries(properties);
  return {
    inPath: { properties: pick(entries, isInPath), required: names },
    rest: {
      ...schema,
      properties: pick(entries, name => !isInPath(name)),
      required: required.filter(name => !isInPath(name)),
    },
  };
}

function pick(entries: [string, Schema][], wanted: (name: string) => boolean) {
  return Object.fromEntries(entries.filter(([name]) => wanted(name)));
}

function parametersOf({ properties, required }: Fields, place: "path" | "query"): Schema[] {
  return Object.entries(properties).map(([name, { description, ...schema }]) => ({
    name,
    in: place,
    ...(required.includes(name) && { required: true }),
    ...(description !== undefined && { description }),
    schema,
  }));
}

function bodyOf(schema: Schema & Fields, extra: Extra): Schema {
  const { bodies, body = {} } = extra;
  const { properties, required, ...rest } = schema;
  const isUnion = "oneOf" in schema;
  const fields = { ...properties, ...(body["properties"] as object | undefined) };
  const whole = {
    ...rest,
    ...(!isUnion && { properties: fields }),
    ...(required.length > 0 && { required }),
    ...(body["oneOf"] !== undefined && { oneOf: body["oneOf"] }),
  };
  if (!isUnion && Object.keys(fields).length === 0) return {};
  return {
    requestBody: {
      required: isUnion || required.length > 0 || body["oneOf"] !== undefined,
      content: { [JSON_TYPE]: { schema: whole }, ...bodies },
    },
  };
}

function answersOf(action: string, schemas: Schemas): Schema {
  const shape = ANSWERS[action];
  if (!shape) throw new Error(`no shape of the answer of ${action}`);
  return { [JSON_TYPE]: { schema: schemas.of(shape) } };
}

const PROBLEMS = {
  400: ["Malformed", "The body is not JSON, or the address cannot be decoded"],
  401: ["Unknown", "A key is asked for, and none that is good was sent"],
  403: ["Forbidden", "The key's role, the Host or the Origin does not fit"],
  404: ["Absent", "There is no such thing"],
  409: ["Conflict", "Impossible now, fenced out, or the idempotency key was used otherwise"],
  413: ["TooLarge", "The body is larger than NOETL_HTTP_BODY_MAX_BYTES"],
  422: ["Refused", "The request is refused; `issues` name the fields and what was expected"],
  429: ["Busy", "A limit is reached; come back after Retry-After"],
  503: ["Unavailable", "The database or a node is away for the moment"],
} as const;

type ProblemStatus = keyof typeof PROBLEMS;

function problems(schemas: Schemas): Schema {
  const content = { [JSON_TYPE]: { schema: schemas.of(problem) } };
  const retry = { "Retry-After": { description: "Seconds", schema: { type: "integer" } } };
  const entries = Object.entries(PROBLEMS).map(([status, [name, description]]) => [
    name,
    { description, ...(status === "429" && { headers: retry }), content },
  ]);
  return Object.fromEntries(entries) as Schema;
}

function refusals({ method, path }: ApiRoute): Schema {
  const statuses: ProblemStatus[] = [401, 403, 422, 429, 503];
  if (method === "POST") statuses.push(400, 409, 413);
  if (/[:*]/.test(path) || path === "/execute") statuses.push(404);
  return Object.fromEntries(statuses.map(status => [status, problemAt(status)]));
}

function problemAt(status: ProblemStatus): Schema {
  return { $ref: `#/components/responses/${PROBLEMS[status][0]}` };
}

/** What a table of actions cannot say about an operation. */
interface Extra {
  description?: string;
  parameters?: Schema[];
  /** Laid over the body's schema. */
  body?: Schema;
  /** Other content types of the body. */
  bodies?: Schema;
  /** In place of the action's answer, by content type. */
  answers?: Schema;
  responses?: Schema;
}

const EXTRAS: Record<string, (schemas: Schemas) => Extra> = {
  "POST /execute": () => ({
    parameters: [
      {
        name: "Idempotency-Key",
        in: "header",
        description: "The same key with the same request answers the same execution, for a week",
        schema: { type: "string", maxLength: 256 },
      },
    ],
    body: {
      properties: {
        workload: { type: "object", description: "NoETL's other word for payload; one of the two" },
      },
      oneOf: [{ required: ["path"] }, { required: ["playbook"] }],
    },
  }),
  "POST /catalog/register": () => ({
    description: "A body of YAML text is the playbook itself.",
    parameters: [
      { name: "file", in: "query", schema: { type: "string" } },
      { name: "strict", in: "query", schema: { type: "boolean" } },
    ],
    bodies: { [YAML_TYPE]: { schema: { type: "string" } } },
  }),
  "GET /catalog/*path": () => ({ description: "Slashes of the path stay as they are." }),
  "GET /executions/:execution_id": schemas => {
    const { page, page_size, event_type } = executionsEvents.shape;
    const properties = {
      page: schemas.of(page),
      page_size: schemas.of(page_size),
      event_type: schemas.of(event_type),
    };
    const either = ["executions.get", "executions.events"].map(action =>
      schemas.of(ANSWERS[action] ?? problem),
    );
    return {
      parameters: parametersOf({ properties, required: [] }, "query"),
      answers: { [JSON_TYPE]: { schema: { anyOf: either } } },
    };
  },
  "GET /executions/:execution_id/stream": () => ({
    description: STREAM,
    parameters: [
      {
        name: "Last-Event-ID",
        in: "header",
        description: "Wins over `after`; browsers send it when they come back",
        schema: { type: "string" },
      },
    ],
    answers: { "text/event-stream": { schema: { type: "string" } } },
    responses: { 204: { description: "Last-Event-ID has heard the end, and nothing is new" } },
  }),
};

const STREAM = `Server-Sent Events. \`event\`: one recorded fact as JSON (Event), its version as
id. \`progress\`: the execution (ExecutionProgress), when it changed. \`end\`: the execution with
its result (Execution); the stream ends. \`problem\`: why the stream ends early (Problem). A comment
line comes at least every 15 seconds.`;

/** /health and /metrics, where probes and scrapers look for them. */
function unprefixed(schemas: Schemas): Record<string, Schema> {
  const healthy = { content: { [JSON_TYPE]: { schema: schemas.of(health) } } };
  const get = (operationId: string, summary: string, responses: Schema, extra: Schema = {}) => ({
    get: { operationId, tags: ["operating"], summary, responses, ...extra },
  });
  const open = { security: [{}] };
  const metrics = { "text/plain": { schema: { type: "string" } } };
  return {
    "/health": get(
      "health.ready",
      "Whether it can do its work, and what was checked",
      {
        200: { description: "It can, be it degraded", ...healthy },
        503: { description: "It cannot; `checks` say why", ...healthy },
      },
      open,
    ),
    "/health/live": get(
      "health.live",
      "Whether the process answers",
      { 200: { description: "It does", ...healthy } },
      open,
    ),
    "/metrics": get(
      "metrics",
      "Counters of this process, for Prometheus",
      {
        200: { description: "Text format 0.0.4", content: metrics },
        401: problemAt(401),
        403: problemAt(403),
      },
      { description: "Roles: viewer, operator." },
    ),
  };
}
