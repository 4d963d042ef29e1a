/** The front door against a broker whose services only answer: routes, errors, headers, limits. */
import { strict as assert } from "node:assert";
import { ServiceBroker } from "moleculer";
import type { Context } from "moleculer";
import { loadSettings } from "../../schemas/env.ts";
import { Busy, Rejected, Unavailable } from "../../schemas/errors.ts";
import apiService from "../../services/api/api.service.ts";

interface Answer {
  status: number;
  headers: Headers;
  body: Record<string, never> & { error: Record<string, unknown>; [key: string]: unknown };
}

async function startFrontDoor(env: Record<string, string> = {}) {
  const broker = new ServiceBroker({ logger: false, registry: { stopDelay: 0 } });
  const echo = (action: string) => (ctx: Context) => ({ action, params: ctx.params });
  broker.createService({
    name: "executions",
    actions: {
      start: echo("start"),
      list: echo("list"),
      get: echo("get"),
      status: echo("status"),
      events: echo("events"),
      cancel: echo("cancel"),
      claim: echo("claim"),
      resume(ctx: Context<{ execution_id: string }>) {
        const failures: Record<string, Error> = {
          1: new Rejected("No such execution", 404),
          2: new Busy("Too many", { retry_after_ms: 1500 }),
          3: new Unavailable("Postgres is away"),
          4: new Error("secret detail of ours"),
          5: new Rejected("Refused", 422, { issues: [{ field: "x" }], inner: "hidden" }),
        };
        throw failures[ctx.params.execution_id] ?? new Error("no such failure");
      },
    },
  });
  broker.createService({
    name: "catalog",
    actions: { register: echo("register"), list: echo("list"), get: echo("catalog.get") },
  });
  const settings = loadSettings({ NOETL_PORT: "0", NOETL_HTTP_BODY_MAX_BYTES: "2048", ...env });
  broker.createService(apiService({ settings }));
  await broker.start();
  const { url } = await broker.call<{ url: string }>("api.address");
  return { broker, url };
}

describe("api", () => {
  let broker: ServiceBroker;
  let url: string;
  before(async () => ({ broker, url } = await startFrontDoor()));
  after(() => broker.stop());

  async function ask(path: string, init: RequestInit = {}, base = url): Promise<Answer> {
    const response = await fetch(base + path, init);
    const text = await response.text();
    const body = (text === "" ? {} : JSON.parse(text)) as Answer["body"];
    return { status: response.status, headers: response.headers, body };
  }
  function post(path: string, body: unknown, headers: Record<string, string> = {}) {
    const init = { method: "POST", headers: { "content-type": "application/json", ...headers } };
    return ask(path, { ...init, body: typeof body === "string" ? body : JSON.stringify(body) });
  }

  it("takes workload for payload and the idempotency key from its header", async () => {
    const { status, body } = await post(
      "/api/execute",
      { path: "a/b", workload: { n: 1 } },
      { "idempotency-key": "k1" },
    );
    assert.equal(status, 200);
    assert.deepEqual(body, {
      action: "start",
      params: { path: "a/b", payload: { n: 1 }, idempotency_key: "k1" },
    });
  });

  it("does not let a query overwrite the body or the path", async () => {
    const started = await post("/api/execute?path=evil", { path: "good" });
    assert.deepEqual(started.body["params"], { path: "good" });
    const got = await ask("/api/executions/7/status?execution_id=8");
    assert.deepEqual(got.body["params"], { execution_id: "7" });
  });

  it("answers an execution's row, and its events when a page is asked for", async () => {
    assert.equal((await ask("/api/executions/7")).body["action"], "get");
    const { body } = await ask("/api/executions/7?page=2&page_size=10");
    assert.equal(body["action"], "events");
    assert.deepEqual(body["params"], { execution_id: "7", page: "2", page_size: "10" });
  });

  it("keeps slashes of a catalog path, and decodes it", async () => {
    const { body } = await ask("/api/catalog/a/b%20c/d?version=2");
    assert.deepEqual(body["params"], { path: "a/b c/d", version: "2" });
  });

  it("registers a playbook sent as YAML text", async () => {
    const { body } = await post("/api/catalog/register", "kind: Playbook\n", {
      "content-type": "application/yaml",
    });
    assert.deepEqual(body["params"], { content: "kind: Playbook\n" });
  });

  it("answers 202 to a cancel without a body", async () => {
    const { status, body } = await ask("/api/executions/9/cancel", { method: "POST" });
    assert.equal(status, 202);
    assert.deepEqual(body["params"], { execution_id: "9" });
  });

  it("turns each error into its status, with request_id and nothing from inside", async () => {
    const expected: [string, number, string][] = [
      ["1", 404, "REJECTED"],
      ["2", 429, "BUSY"],
      ["3", 503, "UNAVAILABLE"],
      ["4", 500, "INTERNAL"],
      ["5", 422, "REJECTED"],
    ];
    for (const [id, status, type] of expected) {
      const answer = await post(`/api/executions/${id}/resume`, {}, { "x-request-id": `r-${id}` });
      assert.equal(answer.status, status);
      assert.equal(answer.body.error["type"], type);
      assert.equal(answer.body["request_id"], `r-${id}`);
      assert.equal(answer.body.error["code"], status);
      assert.doesNotMatch(JSON.stringify(answer.body), /secret detail|hidden|stack/);
      if (id === "2") assert.equal(answer.headers.get("retry-after"), "2");
      if (id === "5") assert.deepEqual(answer.body.error["issues"], [{ field: "x" }]);
    }
  });

  it("refuses a body that is not JSON with 400, and one above the limit with 413", async () => {
    const broken = await post("/api/execute", "{oops");
    assert.equal(broken.status, 400);
    assert.equal(broken.body.error["type"], "REJECTED");
    const large = await post("/api/execute", { playbook: "x".repeat(4096) });
    assert.equal(large.status, 413);
  });

  it("refuses a body of another type instead of ignoring it", async () => {
    const { status, body } = await post("/api/execute", "path=a", { "content-type": "text/plain" });
    assert.equal(status, 422);
    assert.match(String(body.error["message"]), /application\/json/);
  });

  it("answers 404 at an unknown address and 405 with Allow at a known one", async () => {
    const unknown = await ask("/api/nothing/here");
    assert.deepEqual([unknown.status, unknown.body.error["type"]], [404, "REJECTED"]);
    const wrong = await ask("/api/execute");
    assert.deepEqual([wrong.status, wrong.headers.get("allow")], [405, "POST"]);
  });

  it("reaches no action by its name: neither $node nor an internal one", async () => {
    for (const path of [
      "/api/~node/services",
      "/api/$node/options",
      "/~node/options",
      "/api/executions/claim/x",
      "/executions/claim",
      "/api/api/listAliases",
      "/executions.claim",
    ]) {
      const { status } = await ask(path);
      assert.equal(status, 404, path);
    }
  });

  it("answers 503 when no node has the service", async () => {
    const { status, body } = await post("/api/credentials", { name: "a" });
    assert.deepEqual([status, body.error["type"]], [503, "UNAVAILABLE"]);
  });

  it("is live by itself, and healthy when executions answer", async () => {
    assert.equal((await ask("/health/live")).body["status"], "ok");
    const health = await ask("/health");
    assert.deepEqual([health.status, health.body["status"]], [200, "ok"]);
  });

  it("refuses writes from pages of other origins unless they are listed", async () => {
    const { status } = await post("/api/execute", { path: "a" }, { origin: "https://evil.test" });
    assert.equal(status, 403);
  });

  it("says that a port is taken instead of ending the process", async () => {
    const second = new ServiceBroker({ logger: false, registry: { stopDelay: 0 } });
    const settings = loadSettings({ NOETL_PORT: new URL(url).port });
    second.createService(apiService({ settings }));
    await assert.rejects(second.start(), { type: "UNAVAILABLE", message: /in use/ });
    await second.stop();
  });

  it("puts CORS headers on answers and errors for listed origins, and refuses others", async () => {
    const open = await startFrontDoor({ NOETL_CORS_ALLOWED_ORIGINS: "https://ui.test" });
    const from = (origin: string) => ({ headers: { origin } });
    for (const path of ["/api/executions", "/api/nothing", "/api/execute", "/health/live"]) {
      const { headers } = await ask(path, from("https://ui.test"), open.url);
      assert.equal(headers.get("access-control-allow-origin"), "https://ui.test", path);
    }
    const broken = await ask(
      "/api/execute",
      {
        method: "POST",
        body: "{",
        headers: { "content-type": "application/json", origin: "https://ui.test" },
      },
      open.url,
    );
    assert.equal(broken.status, 400);
    assert.equal(broken.headers.get("access-control-allow-origin"), "https://ui.test");
    const foreign = await ask("/api/executions", from("https://evil.test"), open.url);
    assert.deepEqual([foreign.status, foreign.body.error["type"]], [403, "REJECTED"]);
    const preflight = await fetch(`${open.url}/api/execute`, {
      method: "OPTIONS",
      headers: {
        origin: "https://ui.test",
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type",
      },
    });
    assert.equal(preflight.status, 204);
    assert.match(preflight.headers.get("access-control-allow-methods") ?? "", /POST/);
    await open.broker.stop();
  });
});
