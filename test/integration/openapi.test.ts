// The API's document: valid, whole, and true of what a running API answers.
import { strict as assert } from "node:assert";
import { Validator } from "@seriousme/openapi-schema-validator";
import { z } from "zod";
import { ANSWERS, problem } from "../../schemas/answers.ts";
import { API_ROUTES } from "../../schemas/routes.ts";
import { openEventStream } from "../support/event-stream.ts";
import { startNode, type TestNode } from "../support/node.ts";
import { HEAD } from "../support/playbook-samples.ts";
import { testDatabase, type TestDatabase } from "../support/postgres.ts";

const PLAYBOOK = `${HEAD}workload: {n: 1}
workflow:
  - step: each
    loop: {in: [1], iterator: x}
    tool: {kind: noop}
`;

interface Parameter {
  name: string;
  in: string;
  required?: boolean;
  schema: object;
}

interface Operation {
  operationId: string;
  description: string;
  parameters?: Parameter[];
  requestBody?: { required: boolean; content: Record<string, { schema: object }> };
  responses: Record<string, { content?: Record<string, { schema: object }> }>;
}

interface Document {
  openapi: string;
  paths: Record<string, Record<string, Operation>>;
}

/** A loop of one item that no machine answers. */
const BROKEN = `${HEAD.replace("demo/one", "demo/broken")}workflow:
  - step: each
    loop: {in: [a], iterator: item}
    tool: {kind: http, url: "http://127.0.0.1:1/"}
`;
const propertiesOf = (schema: object) =>
  Object.keys((schema as { properties?: object }).properties ?? {});
const templateOf = (path: string) => `/api${path.replace(/[:*](\w+)/g, "{$1}")}`;

describe("GET /api/openapi.json", function () {
  this.timeout(60_000);
  let database: TestDatabase;
  let node: TestNode;
  let url: string;
  let document: Document;
  /** With every reference replaced by what it names. */
  let whole: Document;
  const answered = new Set<string>();

  before(async () => {
    database = await testDatabase({ migrated: true });
    // No worker: the test takes the commands itself, over HTTP.
    const env = { NOETL_ENCRYPTION_KEY: Buffer.alloc(32, "key of a test").toString("base64") };
    node = await startNode({ url: database.url, roles: ["server", "api"], env });
    ({ url } = await node.call<{ url: string }>("api.address"));
    document = (await (await fetch(`${url}/api/openapi.json`)).json()) as Document;
    const validator = new Validator();
    const { valid, errors } = await validator.validate({ ...structuredClone(document) });
    assert.ok(valid, JSON.stringify(errors, null, 1));
    whole = validator.resolveRefs() as unknown as Document;
  });
  after(async () => {
    await node.stop();
    await database.drop();
  });

  it("is OpenAPI 3.1 without anything that leads nowhere", () => {
    assert.match(document.openapi, /^3\.1\./);
    const text = JSON.stringify(document);
    assert.doesNotMatch(text, /\$defs|__schema|"\$schema"/);
    assert.doesNotMatch(JSON.stringify(whole.paths), /"\$ref"/);
  });

  it("has every route of the table, with its path, its roles and its fields", () => {
    const ids = new Set<string>();
    for (const route of API_ROUTES) {
      const operation = document.paths[templateOf(route.path)]?.[route.method.toLowerCase()];
      assert.ok(operation, `${route.method} ${route.path}`);
      ids.add(operation.operationId);
      for (const role of route.roles) assert.match(operation.description, new RegExp(role));
      const parameters = operation.parameters ?? [];
      const inPath = parameters.filter(one => one.in === "path");
      const names = [...route.path.matchAll(/[:*](\w+)/g)].map(match => match[1]);
      assert.deepEqual(inPath.map(one => one.name).sort(), names.sort());
      assert.ok(inPath.every(one => one.required));
      if (route.method === "GET") assert.equal(operation.requestBody, undefined);
      else
        assert.ok(
          parameters.every(
            one => one.in !== "query" || ["file", "strict"].includes(String(one.name)),
          ),
        );
      const body = operation.requestBody?.content["application/json"]?.schema ?? {};
      const shown = [...parameters.map(one => one.name), ...propertiesOf(body)];
      const taken = propertiesOf(z.toJSONSchema(route.shape, { io: "input" }));
      assert.deepEqual(
        taken.filter(name => !shown.includes(name)),
        [],
        operation.operationId,
      );
    }
    assert.equal(ids.size, API_ROUTES.length, "each operation has an id of its own");
    for (const path of ["/health", "/health/live", "/metrics"]) assert.ok(document.paths[path]);
  });

  it("splits a request into path, query and body", () => {
    const events = document.paths["/api/executions/{execution_id}/events"]?.["get"];
    assert.deepEqual(
      events?.parameters?.map(one => `${one.in} ${one.name}`),
      ["path execution_id", "query page", "query page_size", "query event_type"],
    );
    const cancel = document.paths["/api/executions/{execution_id}/cancel"]?.["post"];
    const { schema } = cancel?.requestBody?.content["application/json"] ?? {};
    assert.deepEqual(Object.keys((schema as { properties: object }).properties), ["reason"]);
    assert.equal(cancel?.requestBody?.required, false);
    const execute = document.paths["/api/execute"]?.["post"];
    assert.ok(execute?.parameters?.some(one => one.name === "Idempotency-Key"));
    assert.equal(execute?.requestBody?.required, true);
    const register = document.paths["/api/catalog/register"]?.["post"]?.requestBody?.content;
    assert.deepEqual(Object.keys(register ?? {}), ["application/json", "application/yaml"]);
  });

  /** Asks, and holds the answer against what the document says of it. */
  async function call(operation: string, path: string, body?: object): Promise<Json> {
    const [method = "", template = ""] = operation.split(" ");
    const init = body && { body: JSON.stringify(body), headers: JSON_BODY };
    const response = await fetch(`${url}/api${path}`, { method, ...init });
    const answer = (await response.json()) as Json;
    const declared = whole.paths[templateOf(template)]?.[method.toLowerCase()];
    const { schema } =
      declared?.responses[String(response.status)]?.content?.["application/json"] ?? {};
    assert.ok(schema, `${operation} declares ${response.status}: ${JSON.stringify(answer)}`);
    const checked = z.fromJSONSchema(schema as never).safeParse(answer);
    assert.ok(checked.success, `${operation}: ${checked.error?.message} ${JSON.stringify(answer)}`);
    if (response.ok) answered.add(operation);
    return answer;
  }

  /** Of the shape and nothing beside it: a field that nobody declared is lost in parsing. */
  function nothingElse(action: string, answer: Json): void {
    assert.deepEqual(ANSWERS[action]?.parse(answer), answer, action);
  }

  it("is true of the catalog, of credentials, keys and workers", async () => {
    const content = PLAYBOOK;
    nothingElse(
      "catalog.register",
      await call("POST /catalog/register", "/catalog/register", { content }),
    );
    nothingElse("catalog.list", await call("GET /catalog", "/catalog"));
    nothingElse("catalog.get", await call("GET /catalog/*path", "/catalog/demo/one"));
    const credential = { name: "db", type: "postgres", data: { db_host: "x" } };
    nothingElse(
      "credentials.register",
      await call("POST /credentials", "/credentials", credential),
    );
    nothingElse("credentials.list", await call("GET /credentials", "/credentials"));
    const key = { name: "one", role: "viewer" };
    nothingElse("keys.create", await call("POST /keys", "/keys", key));
    nothingElse("keys.list", await call("GET /keys", "/keys"));
    nothingElse("keys.revoke", await call("POST /keys/:name/revoke", "/keys/one/revoke", {}));
    const beat = { event_type: "command.heartbeat", worker_id: "w1" };
    nothingElse("commands.report_one", await call("POST /events", "/events", beat));
    nothingElse("workers.list", await call("GET /workers", "/workers"));
    const limit = { target: "http:host:a", rate: "5/s" };
    nothingElse("limits.set", await call("POST /limits", "/limits", limit));
    nothingElse("limits.list", await call("GET /limits", "/limits"));
    const { target } = limit;
    nothingElse("limits.clear", await call("POST /limits/clear", "/limits/clear", { target }));
    await call("GET /openapi.json", "/openapi.json");
  });

  it("is true of an execution and its commands, from the start to the end", async () => {
    const started = await call("POST /execute", "/execute", { playbook: PLAYBOOK });
    nothingElse("executions.start", started);
    const id = String(started["execution_id"]);
    const waiting = await call("GET /commands", "/commands?max=5&wait_ms=10000");
    nothingElse("commands.waiting", waiting);
    const ring = (waiting["rings"] as { command_id: string; stream_id: string }[])[0];
    assert.ok(ring, "a command waits");
    const at = encodeURIComponent(ring.command_id);
    nothingElse("commands.get", await call("GET /commands/:command_id", `/commands/${at}`));
    const claim = { worker_id: "w1", stream_id: ring.stream_id };
    const grant = await call("POST /commands/:command_id/claim", `/commands/${at}/claim`, claim);
    nothingElse("commands.claim", grant);
    await look(id);
    const outcome = {
      event_type: "command.completed",
      command_id: ring.command_id,
      worker_id: "w1",
      delivery: grant["delivery"],
      result: { status: "ok", context: { text: "too large for a row".repeat(200) } },
    };
    const events = { events: [outcome] };
    nothingElse("commands.report", await call("POST /events/batch", "/events/batch", events));
    const wait = `/executions/${id}/wait?timeout_ms=20000`;
    const over = await call("GET /executions/:execution_id/wait", wait);
    assert.equal(over["status"], "COMPLETED");
    nothingElse("executions.wait", over);
    await look(id);
    nothingElse("commands.get", await call("GET /commands/:command_id", `/commands/${at}`));
    const page = await call("GET /executions/:execution_id/events", `/executions/${id}/events`);
    const facts = page["events"] as { result?: { reference?: object } | null }[];
    const reference = facts.map(({ result }) => result?.reference).find(Boolean);
    const value = "POST /commands/:command_id/value";
    nothingElse("commands.value", await call(value, `/commands/${at}/value`, { reference }));
  });

  /** Everything that can be read of an execution. */
  async function look(id: string): Promise<void> {
    const base = `/executions/${id}`;
    const route = "GET /executions/:execution_id";
    nothingElse("executions.get", await call(route, base));
    nothingElse("executions.events", await call(route, `${base}?page=1`));
    nothingElse("executions.list", await call("GET /executions", "/executions?limit=1"));
    nothingElse("executions.status", await call(`${route}/status`, `${base}/status`));
    nothingElse("executions.events", await call(`${route}/events`, `${base}/events`));
    nothingElse("executions.tail", await call(`${route}/tail`, `${base}/tail`));
    nothingElse("executions.result", await call(`${route}/result`, `${base}/result`));
    nothingElse("executions.verify", await call(`${route}/verify`, `${base}/verify`));
  }

  it("is true of a paused, a cancelled and a failed execution", async () => {
    const { execution_id: id } = await call("POST /execute", "/execute", { path: "demo/one" });
    const paused = await call(
      "POST /executions/:execution_id/pause",
      `/executions/${id}/pause`,
      {},
    );
    nothingElse("executions.pause", paused);
    assert.equal(paused["status"], "PAUSED");
    nothingElse("executions.dead_letters", await call("GET /dead-letters", "/dead-letters"));
    nothingElse(
      "executions.resume",
      await call("POST /executions/:execution_id/resume", `/executions/${id}/resume`, {}),
    );
    nothingElse(
      "executions.cancel",
      await call("POST /executions/:execution_id/cancel", `/executions/${id}/cancel`, {
        reason: "enough",
      }),
    );
    await call("GET /executions/:execution_id/wait", `/executions/${id}/wait?timeout_ms=20000`);
    await look(String(id));
  });

  it("is true of a redriven one and of its failures", async () => {
    const broken = await call("POST /execute", "/execute", { playbook: BROKEN });
    const id = String(broken["execution_id"]);
    const route = "/executions/:execution_id";
    const waiting = await call("GET /commands", "/commands?max=5&wait_ms=10000");
    const ring = (waiting["rings"] as { command_id: string; stream_id: string }[])[0];
    assert.ok(ring, "a command waits");
    const at = encodeURIComponent(ring.command_id);
    const claim = { worker_id: "w1", stream_id: ring.stream_id };
    const grant = await call("POST /commands/:command_id/claim", `/commands/${at}/claim`, claim);
    const error = { kind: "server_error", retryable: false, code: "HTTP_500", message: "broke" };
    const outcome = {
      ...{ event_type: "command.failed", command_id: ring.command_id, worker_id: "w1" },
      ...{ delivery: grant["delivery"], result: { status: "error", error } },
    };
    await call("POST /events/batch", "/events/batch", { events: [outcome] });
    await call(`GET ${route}/wait`, `/executions/${id}/wait?timeout_ms=20000`);
    const failures = await call(`GET ${route}/failures`, `/executions/${id}/failures`);
    nothingElse("executions.failures", failures);
    assert.equal((failures["failures"] as []).length, 1);
    const redriven = await call(`POST ${route}/redrive`, `/executions/${id}/redrive`, {});
    nothingElse("executions.redrive", redriven);
    assert.deepEqual([redriven["status"], redriven["generation"]], ["RUNNING", 1]);
    await look(id);
    await call(`POST ${route}/cancel`, `/executions/${id}/cancel`, {});
    await call(`GET ${route}/wait`, `/executions/${id}/wait?timeout_ms=20000`);
    await look(id);
  });

  it("is true of refusals", async () => {
    const refused: [string, string, object?][] = [
      ["GET /executions/:execution_id", "/executions/77"],
      ["GET /executions/:execution_id", "/executions/seven"],
      ["GET /executions", "/executions?limit=0"],
      ["POST /execute", "/execute", { path: "a", playbook: "b" }],
      ["POST /execute", "/execute", { path: "no/such" }],
      ["POST /keys", "/keys", { name: "one", role: "viewer" }],
      ["POST /commands/:command_id/claim", "/commands/77:a:1:1/claim", { worker_id: "w" }],
    ];
    for (const [operation, path, body] of refused) {
      const answer = await call(operation, path, body);
      assert.deepEqual(problem.parse(answer), answer, path);
      assert.ok(Number((answer["error"] as { code: number }).code) >= 400, path);
    }
  });

  it("is true of the stream, of probes and of metrics", async () => {
    const { executions } = await call("GET /executions", "/executions");
    const [first] = executions as { execution_id: string }[];
    const path = `/api/executions/${first?.execution_id}/stream`;
    const stream = await openEventStream(url + path);
    assert.equal(stream.headers["content-type"], "text/event-stream; charset=utf-8");
    const template = document.paths["/api/executions/{execution_id}/stream"]?.["get"];
    assert.ok(template?.responses["200"]?.content?.["text/event-stream"]);
    for (const { event, data } of await stream.rest()) {
      const action = event === "end" ? "executions.get" : "executions.tail";
      const shape = ANSWERS[action] as z.ZodObject;
      const part = { event: "events", progress: "execution" }[event];
      const field = part === undefined ? shape : (shape.shape[part] as z.ZodType);
      const isList = field instanceof z.ZodArray;
      assert.deepEqual(field.parse(isList ? [data] : data), isList ? [data] : data, event);
    }
    answered.add("GET /executions/:execution_id/stream");
    for (const probe of ["/health", "/health/live"]) {
      const response = await fetch(url + probe);
      const { schema } =
        whole.paths[probe]?.["get"]?.responses["200"]?.content?.["application/json"] ?? {};
      z.fromJSONSchema(schema as never).parse(await response.json());
    }
    const metrics = await fetch(`${url}/metrics`);
    assert.match(metrics.headers.get("content-type") ?? "", /^text\/plain/);
  });

  it("was held against an answer of every route", () => {
    const missed = API_ROUTES.map(route => `${route.method} ${route.path}`).filter(
      operation => !answered.has(operation),
    );
    assert.deepEqual(missed, []);
  });
});

type Json = Record<string, unknown>;
const JSON_BODY = { "content-type": "application/json" };
