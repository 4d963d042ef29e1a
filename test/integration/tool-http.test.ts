// The http tool against a real server on loopback.
import { strict as assert } from "node:assert";
import { createServer } from "node:http";
import type { IncomingMessage, RequestListener, Server, ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { gzipSync } from "node:zlib";
import { ServiceBroker } from "moleculer";
import { callTool } from "../../mixins/tool.ts";
import type { JsonObject } from "../../schemas/json.ts";
import type { ToolEnvelope, ToolRequest } from "../../schemas/tool.ts";
import { credentials } from "../../services/credentials/credentials.service.ts";
import { httpTool } from "../../services/tool.http/tool.http.service.ts";
import { TOOL_COMMAND } from "../support/tool-command.ts";
import { noopTool } from "../../services/tool.noop/tool.noop.service.ts";

const command = TOOL_COMMAND;

/** Answers by path; `connections` counts sockets. */
interface TestSite {
  origin: string;
  server: Server;
  connections: () => number;
  routes: Record<string, RequestListener>;
}

async function startSite(): Promise<TestSite> {
  let count = 0;
  const routes: Record<string, RequestListener> = {};
  const server = createServer((request, response) => {
    const path = (request.url ?? "/").split("?")[0] ?? "/";
    (routes[path] ?? ((_request, unknown) => unknown.writeHead(404).end("none")))(
      request,
      response,
    );
  });
  server.on("connection", () => (count += 1));
  await new Promise<void>(resolve => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  return { origin: `http://127.0.0.1:${port}`, server, connections: () => count, routes };
}

async function bodyOf(request: IncomingMessage): Promise<string> {
  let text = "";
  for await (const chunk of request) text += String(chunk);
  return text;
}

function sendJson(response: ServerResponse, value: unknown, status = 200): void {
  response.writeHead(status, { "Content-Type": "application/json" }).end(JSON.stringify(value));
}

async function echo(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const { method, url, headers } = request;
  sendJson(response, { method, url, headers, body: await bodyOf(request) });
}

describe("tool.http", () => {
  let site: TestSite;
  let other: TestSite;
  let broker: ServiceBroker;

  before(async () => {
    [site, other] = await Promise.all([startSite(), startSite()]);
    broker = new ServiceBroker({ logger: false, registry: { stopDelay: 0 } });
    broker.createService(
      httpTool({ responseMaxBytes: 100_000, maxConnections: 4, concurrency: 20 }),
    );
    broker.createService(noopTool());
    const alias = { type: "bearer", data: { token: "hush" } };
    broker.createService(credentials({ variables: { api: JSON.stringify(alias) } }));
    await broker.start();
    for (const { routes } of [site, other]) routes["/echo"] = (...args) => void echo(...args);
  });

  after(async () => {
    await broker.stop();
    for (const { server } of [site, other]) {
      server.closeAllConnections();
      server.close();
    }
  });

  function run(
    config: Record<string, unknown>,
    more: Partial<ToolRequest> = {},
    signal?: AbortSignal,
  ): Promise<ToolEnvelope> {
    return callTool(broker, "http", { config, input: {}, command, ...more }, signal);
  }

  const dataOf = (envelope: ToolEnvelope) => envelope.data as JsonObject;
  const echoed = (envelope: ToolEnvelope) => dataOf(envelope).data as JsonObject;

  it("answers the response as data and body, and its shape in http", async () => {
    const answer = await run({ url: `${site.origin}/echo`, params: { a: 1 } });
    assert.equal(answer.status, "ok");
    const data = dataOf(answer);
    assert.equal(data.status_code, 200);
    assert.equal(data.url, `${site.origin}/echo?a=1`);
    assert.equal(typeof data.elapsed, "number");
    assert.equal((data.headers as JsonObject)["content-type"], "application/json");
    assert.deepEqual(data.body, data.data);
    assert.equal(echoed(answer).url, "/echo?a=1");
    assert.equal(answer.http?.status, 200);
  });

  it("keeps connections alive and opens no more than its limit", async () => {
    const before = site.connections();
    for (let n = 0; n < 10; n++) await run({ url: `${site.origin}/echo` });
    assert.ok(site.connections() - before <= 1, "one after the other share one connection");
    await Promise.all(Array.from({ length: 40 }, () => run({ url: `${site.origin}/echo` })));
    assert.ok(site.connections() - before <= 4, `${site.connections() - before} connections`);
  });

  it("sends a body once and the credential of an alias with it", async () => {
    const answer = await run(
      { method: "POST", url: `${site.origin}/echo`, json: { a: "é" } },
      { auth: "api" },
    );
    const seen = echoed(answer);
    assert.deepEqual([seen.method, seen.body], ["POST", '{"a":"é"}']);
    assert.equal((seen.headers as JsonObject).authorization, "Bearer hush");
    assert.equal(JSON.stringify({ ...answer, data: null }).includes("hush"), false);
  });

  it("keeps a key that a credential put into the query out of the result's URL", async () => {
    const auth = { type: "api_key", key: "hush", in: "query", name: "k" };
    const answer = await run({ url: `${site.origin}/echo?a=1` }, { auth });
    assert.equal(echoed(answer).url, "/echo?a=1&k=hush");
    assert.equal(dataOf(answer).url, `${site.origin}/echo?a=1`);
  });

  it("an unknown alias is a config error that names it", async () => {
    const answer = await run({ url: `${site.origin}/echo` }, { auth: "apj" });
    assert.equal(answer.error?.kind, "config");
    assert.match(answer.error?.message ?? "", /'apj' is unknown \(did you mean 'api'/);
  });

  it("a 429 is retryable, has its Retry-After in ms, and the answer as data", async () => {
    site.routes["/busy"] = (_request, response) => {
      response.writeHead(429, { "Retry-After": "3", "Content-Type": "application/json" });
      response.end('{"why":"slow down"}');
    };
    // Under a name of its own, because nobody calls this host for three seconds then.
    const url = `${site.origin.replace("127.0.0.1", "localhost")}/busy`;
    const answer = await run({ url });
    await assert.rejects(run({ url }), { type: "BUSY" });
    assert.equal(answer.status, "error");
    assert.deepEqual(answer.error, {
      kind: "rate_limit",
      retryable: true,
      code: "HTTP_429",
      message: "HTTP 429",
      status_code: 429,
      retry_after_ms: 3000,
    });
    assert.equal(answer.http?.headers["retry-after"], "3");
    assert.deepEqual(dataOf(answer).data, { why: "slow down" });
    assert.equal(dataOf(answer).status_code, 429);
  });

  it("follows redirects, and leaves the credential behind when the origin changes", async () => {
    const to =
      (target: string): RequestListener =>
      (_request, response) =>
        void response.writeHead(302, { Location: target }).end();
    site.routes["/here"] = to("/echo?from=here");
    site.routes["/there"] = to(`${other.origin}/echo`);
    const here = await run({ url: `${site.origin}/here` }, { auth: "api" });
    assert.equal(dataOf(here).url, `${site.origin}/echo?from=here`);
    assert.equal((echoed(here).headers as JsonObject).authorization, "Bearer hush");
    const there = await run({ url: `${site.origin}/there` }, { auth: "api" });
    assert.equal((echoed(there).headers as JsonObject).authorization, undefined);
    const not = await run({ url: `${site.origin}/here`, follow_redirects: false });
    assert.deepEqual([not.status, dataOf(not).status_code], ["ok", 302]);
  });

  it("gives up on redirects without end", async () => {
    site.routes["/loop"] = (_request, response) =>
      void response.writeHead(302, { Location: "/loop" }).end();
    const answer = await run({ url: `${site.origin}/loop` });
    assert.equal(answer.error?.code, "TOO_MANY_REDIRECTS");
    assert.equal(answer.error?.retryable, false);
  });

  it("the timeout covers headers and body, and is not a connection error", async () => {
    site.routes["/silent"] = () => undefined;
    site.routes["/half"] = (_request, response) => void response.writeHead(200).write("half");
    for (const path of ["/silent", "/half"]) {
      const answer = await run({ url: site.origin + path, timeout: 0.2 });
      assert.equal(answer.error?.kind, "timeout", path);
      assert.equal(answer.error?.retryable, true, path);
      assert.match(answer.error?.message ?? "", /within 0.2 s/);
    }
  });

  it("a refused, a cut and an unresolvable connection are connection errors", async () => {
    site.routes["/cut"] = request => void request.socket.destroy();
    site.routes["/cut-body"] = (request, response) => {
      response.writeHead(200, { "Content-Length": "100" }).write("some", () => {
        request.socket.destroy();
      });
    };
    const urls = ["/cut", "/cut-body"].map(path => site.origin + path);
    urls.push("http://127.0.0.1:1/", "http://nowhere.invalid/");
    for (const url of urls) {
      const answer = await run({ url, timeout: 10 });
      assert.equal(answer.error?.kind, "connection", `${url} ${JSON.stringify(answer.error)}`);
      assert.equal(answer.error?.retryable, true, url);
      assert.equal(answer.data, null);
    }
  });

  it("refuses a response beyond its limit, stated, streamed or compressed", async () => {
    site.routes["/stated"] = (_request, response) => void response.end("x".repeat(200_000));
    site.routes["/streamed"] = (_request, response) => {
      for (let n = 0; n < 20; n++) response.write("x".repeat(10_000));
      response.end();
    };
    site.routes["/bomb"] = (_request, response) => {
      response.writeHead(200, { "Content-Encoding": "gzip" }).end(gzipSync("x".repeat(5_000_000)));
    };
    for (const path of ["/stated", "/streamed", "/bomb"]) {
      const answer = await run({ url: site.origin + path });
      assert.equal(answer.error?.code, "RESPONSE_TOO_LARGE", path);
      assert.equal(answer.error?.retryable, false, path);
    }
  });

  it("decompresses, and reports a body that does not decompress", async () => {
    site.routes["/gzip"] = (_request, response) => {
      const headers = { "Content-Encoding": "gzip", "Content-Type": "application/json" };
      response.writeHead(200, headers).end(gzipSync('{"a":1}'));
    };
    site.routes["/lie"] = (_request, response) => {
      response.writeHead(200, { "Content-Encoding": "gzip" }).end("plain");
    };
    assert.deepEqual(dataOf(await run({ url: `${site.origin}/gzip` })).body, { a: 1 });
    assert.equal((await run({ url: `${site.origin}/lie` })).error?.kind, "parse");
    const head = await run({ url: `${site.origin}/gzip`, method: "HEAD" });
    assert.deepEqual([head.status, dataOf(head).body], ["ok", null]);
  });

  it("stops when the caller aborts", async () => {
    const reached = new Promise<void>(resolve => {
      site.routes["/wait"] = () => resolve();
    });
    const controller = new AbortController();
    const answer = run({ url: `${site.origin}/wait` }, {}, controller.signal);
    await reached;
    controller.abort();
    assert.equal((await answer).error?.kind, "cancelled");
    const late = await run({ url: `${site.origin}/echo` }, {}, controller.signal);
    assert.equal(late.error?.kind, "cancelled");
  });

  it("a full queue is Busy, and a malformed request Rejected", async () => {
    const small = new ServiceBroker({ logger: false, registry: { stopDelay: 0 } });
    small.createService(httpTool({ concurrency: 1, maxQueueSize: 1 }));
    await small.start();
    const request = { config: { url: `${site.origin}/echo` }, input: {}, command };
    const calls = [1, 2, 3].map(() => callTool(small, "http", request));
    const [first, second, third] = await Promise.allSettled(calls);
    assert.deepEqual([first?.status, second?.status], ["fulfilled", "fulfilled"]);
    const busy = (third as PromiseRejectedResult).reason as { type: string; data: JsonObject };
    assert.equal(busy.type, "BUSY");
    assert.equal(typeof busy.data.retry_after_ms, "number");
    await assert.rejects(small.call("tool.http.run", { config: {} }), { type: "REJECTED" });
    await small.stop();
  });
});

describe("tool.noop", () => {
  it("answers its result, its message, or noop", async () => {
    const broker = new ServiceBroker({ logger: false, registry: { stopDelay: 0 } });
    broker.createService(noopTool());
    await broker.start();
    const run = (config: Record<string, unknown>) =>
      callTool(broker, "noop", { config, input: {}, command });
    assert.deepEqual((await run({ result: [1] })).data, [1]);
    assert.deepEqual((await run({ result: null })).data, null);
    assert.deepEqual((await run({ message: "hi" })).data, { status: "ok", message: "hi" });
    assert.deepEqual(await run({}), {
      status: "ok",
      data: { status: "ok", message: "noop" },
      error: null,
    });
    await broker.stop();
  });
});
