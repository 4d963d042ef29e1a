// Requests, responses and credentials of the http tool, without a network.
import { strict as assert } from "node:assert";
import { httpSecrets } from "../../services/tool.http/auth.ts";
import { redirect } from "../../services/tool.http/exchange.ts";
import { buildRequest } from "../../services/tool.http/request.ts";
import {
  clientFailure,
  decodeBody,
  retryAfterMs,
  statusKind,
} from "../../services/tool.http/response.ts";

const command = { idempotency_key: "1:s:1:1:t:1" };
const url = "http://host/path";
const build = (config: Record<string, unknown>) => buildRequest({ url, ...config }, command);

describe("http request", () => {
  it("sends objects as JSON under every body field", () => {
    for (const field of ["json", "payload", "body", "data"]) {
      const request = build({ method: "post", [field]: { a: [1] } });
      assert.equal(request.body, '{"a":[1]}', field);
      assert.equal(request.headers.get("content-type"), "application/json", field);
      assert.equal(request.method, "POST");
    }
  });

  it("sends text as it is, and says JSON only of JSON", () => {
    const text = build({ method: "POST", body: "a=1; raw" });
    assert.deepEqual(
      [text.body, text.headers.get("content-type")],
      ["a=1; raw", "text/plain; charset=utf-8"],
    );
    const json = build({ method: "POST", payload: '{"a": 1}' });
    assert.deepEqual(
      [json.body, json.headers.get("content-type")],
      ['{"a": 1}', "application/json"],
    );
    assert.equal(build({ method: "POST", json: "text" }).body, '"text"');
    const own = build({ method: "POST", body: "x", headers: { "Content-Type": "a/b" } });
    assert.equal(own.headers.get("content-type"), "a/b");
  });

  it("encodes forms, by field or by content type", () => {
    const form = build({ method: "POST", form: { a: 1, b: ["x y", "z"], c: null } });
    assert.equal(form.body, "a=1&b=x+y&b=z");
    const headers = { "content-type": "application/x-www-form-urlencoded" };
    assert.equal(build({ method: "POST", data: { a: true }, headers }).body, "a=true");
  });

  it("makes a query of data on GET, and of params everywhere", () => {
    assert.equal(build({ data: { page: 2, q: null } }).url.search, "?page=2");
    assert.equal(build({ data: { page: 2 } }).body, null);
    const params = { a: true, b: [1, 2], c: null, d: "x y" };
    assert.equal(build({ params }).url.search, "?a=true&b=1&b=2&d=x+y");
    const signed = build({ url: "http://h/p?sig=a%20b", params: { c: 1 } });
    assert.equal(signed.url.search, "?sig=a%20b&c=1");
  });

  it("splits data into query and body, but not a GraphQL document", () => {
    const split = build({ method: "POST", data: { query: { a: 1 }, body: { b: 2 } } });
    assert.deepEqual([split.url.search, split.body], ["?a=1", '{"b":2}']);
    const graphql = build({ method: "POST", data: { query: "{ me }" } });
    assert.equal(graphql.body, '{"query":"{ me }"}');
    const third = build({ method: "POST", data: { query: {}, body: 1, x: 1 } });
    assert.equal(third.body, '{"query":{},"body":1,"x":1}');
  });

  it("stringifies headers, drops null ones, refuses broken ones without their value", () => {
    const { headers } = build({ headers: { "X-N": 1, "X-B": true, "X-Null": null } });
    assert.deepEqual(
      [...headers],
      [
        ["x-n", "1"],
        ["x-b", "true"],
      ],
    );
    assert.throws(
      () => build({ headers: { "X-A": "hush\r\nhush" } }),
      (error: Error) => {
        return /X-A/.test(error.message) && !/hush/.test(error.message);
      },
    );
  });

  it("refuses what is not a request, naming the field", () => {
    assert.throws(() => build({ url: "" }), /url: it is required/);
    assert.throws(() => build({ url: "/relative" }), /url: not a URL/);
    assert.throws(() => build({ url: "file:///etc/passwd" }), /scheme 'file:' is not supported/);
    assert.throws(() => build({ method: "BREW" }), /method: 'BREW' is unknown/);
    assert.throws(() => build({ json: {}, body: "x" }), /json and body: each is a request body/);
    assert.throws(() => build({ params: [1] }), /params: expected a map/);
  });

  it("makes one idempotency key for a visit of a task, or takes the one it is given", () => {
    const key = (config: object, of = command) =>
      buildRequest({ url, ...config }, of).headers.get("idempotency-key");
    assert.equal(key({}), undefined);
    assert.equal(key({ idempotency_key: "mine" }), "mine");
    const made = key({ idempotency_key: true });
    assert.match(made ?? "", /^[0-9a-f]{32}$/);
    assert.equal(key({ idempotency_key: true }), made);
    assert.notEqual(key({ idempotency_key: true }, { idempotency_key: "1:s:1:2:t:1" }), made);
  });

  it("takes user information out of the URL", () => {
    const request = build({ url: "http://u%40:p@host/x" });
    assert.equal(request.url.href, "http://host/x");
    const expected = `Basic ${Buffer.from("u@:p").toString("base64")}`;
    assert.equal(request.headers.get("authorization"), expected);
  });
});

describe("http redirects", () => {
  const from = build({
    method: "POST",
    json: { a: 1 },
    headers: { authorization: "s", cookie: "s", "x-keep": "1" },
  });
  const secrets = { headers: [["X-Key", "s"]] as [string, string][], query: [] };
  from.headers.set("x-key", "s");

  it("keep secrets within their origin", () => {
    const same = redirect(from, 307, "/next", secrets);
    assert.deepEqual([same.url.href, same.headers.get("x-key")], ["http://host/next", "s"]);
    const other = redirect(from, 307, "http://host:81/next", secrets);
    for (const name of ["authorization", "cookie", "x-key"])
      assert.equal(other.headers.has(name), false);
    assert.equal(other.headers.get("x-keep"), "1");
    assert.equal(other.body, '{"a":1}');
  });

  it("become GET without a body where HTTP says so", () => {
    for (const status of [301, 302, 303]) {
      const next = redirect(from, status, "/n", secrets);
      assert.deepEqual(
        [next.method, next.body, next.headers.has("content-type")],
        ["GET", null, false],
      );
    }
    assert.throws(() => redirect(from, 302, "ftp://x", secrets), /not http or https/);
  });
});

describe("http response", () => {
  it("reads Retry-After as seconds or a date, capped", () => {
    const now = Date.parse("2026-01-01T00:00:00Z");
    assert.equal(retryAfterMs("2", now, 300_000), 2_000);
    assert.equal(retryAfterMs("Thu, 01 Jan 2026 00:00:05 GMT", now, 300_000), 5_000);
    assert.equal(retryAfterMs("Thu, 01 Jan 2025 00:00:05 GMT", now, 300_000), 0);
    assert.equal(retryAfterMs("9999", now, 300_000), 300_000);
    assert.equal(retryAfterMs("soon", now, 300_000), undefined);
    assert.equal(retryAfterMs(undefined, now, 300_000), undefined);
  });

  it("decodes JSON with a fallback to text, and keeps bytes that are no text", () => {
    const bytes = (text: string) => Buffer.from(text);
    assert.deepEqual(decodeBody(bytes('{"a":1}'), "application/json", "auto"), { a: 1 });
    assert.equal(decodeBody(bytes("{oops"), "application/json", "auto"), "{oops");
    assert.equal(decodeBody(bytes("123"), "text/plain", "auto"), "123");
    assert.equal(decodeBody(bytes("123"), "text/plain", "json"), 123);
    assert.deepEqual(decodeBody(bytes("[1]"), "", "auto"), [1]);
    assert.equal(decodeBody(bytes('{"a":1}'), "application/json", "text"), '{"a":1}');
    assert.equal(decodeBody(Buffer.from([0xe9]), "text/plain; charset=latin1", "auto"), "é");
    const binary = { base64: "/w==", size: 1 };
    assert.deepEqual(decodeBody(Buffer.from([0xff]), "", "auto"), binary);
    assert.deepEqual(decodeBody(bytes("a"), "", "binary"), { base64: "YQ==", size: 1 });
    assert.equal(decodeBody(Buffer.alloc(0), "application/json", "auto"), null);
    const id = { id: "12345678901234567890" };
    assert.deepEqual(decodeBody(bytes('{"id":12345678901234567890}'), "", "auto"), id);
  });

  it("has a kind for every status and every broken connection", () => {
    const kinds = [401, 403, 404, 429, 400, 500, 503].map(statusKind);
    assert.deepEqual(kinds, [
      "auth",
      "auth",
      "not_found",
      "rate_limit",
      "client_error",
      "server_error",
      "server_error",
    ]);
    const of = (code: string) => {
      const { failure } = clientFailure(Object.assign(new Error("x"), { code }), "host");
      return [failure.kind, failure.retryable];
    };
    assert.deepEqual(of("ENOTFOUND"), ["connection", true]);
    assert.deepEqual(of("UND_ERR_CONNECT_TIMEOUT"), ["timeout", true]);
    assert.deepEqual(of("DEPTH_ZERO_SELF_SIGNED_CERT"), ["connection", false]);
  });
});

describe("http credentials", () => {
  const secrets = (type: string, data: Record<string, unknown>) =>
    httpSecrets({ name: "c", type, data });

  it("become headers or a query parameter", () => {
    assert.deepEqual(secrets("bearer", { token: "t" }).headers, [["Authorization", "Bearer t"]]);
    assert.deepEqual(secrets("basic", { username: "u", password: "p" }).headers, [
      ["Authorization", "Basic dTpw"],
    ]);
    assert.deepEqual(secrets("api_key", { key: "k" }).headers, [["X-API-Key", "k"]]);
    const prefixed = { key: "k", header: "X", prefix: "Token" };
    assert.deepEqual(secrets("api_key", prefixed).headers, [["X", "Token k"]]);
    assert.deepEqual(secrets("api_key", { key: "k", in: "query" }).query, [["api_key", "k"]]);
    assert.deepEqual(secrets("header", { headers: { A: "1" } }).headers, [["A", "1"]]);
    assert.deepEqual(secrets("", { token: "t" }).headers, [["Authorization", "Bearer t"]]);
  });

  it("are refused when they are of another kind or incomplete", () => {
    assert.throws(() => secrets("postgres", {}), /is of type 'postgres'/);
    assert.throws(() => secrets("bearer", {}), /has no token/);
  });
});
