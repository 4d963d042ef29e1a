/** Who may come in: loopback names, when keys are asked for, roles; what is kept of a caller. */
import { strict as assert } from "node:assert";
import { sanitizeText } from "../../mixins/logging/sanitize.ts";
import { API_ROLES, hostName, isLoopback, keysRequired, mayUse } from "../../schemas/access.ts";
import { requestedBy } from "../../schemas/caller.ts";
import { keysCreate } from "../../schemas/key-requests.ts";
import { API_ROUTES } from "../../schemas/routes.ts";

describe("access", () => {
  it("knows this machine by every spelling, with a port or without", () => {
    const names = ["localhost", "LOCALHOST", "localhost.", "127.0.0.1", "127.9.8.7", "127.1"];
    const spellings = [...names, "[::1]", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]"];
    for (const name of spellings) {
      assert.ok(isLoopback(name), name);
      assert.ok(isLoopback(`${name}:8082`), `${name}:8082`);
    }
    assert.ok(isLoopback("::1"), "an address to listen on has no brackets");
  });

  it("takes no other name for this machine", () => {
    for (const name of [
      ...["", "0.0.0.0", "::", "[::]", "evil.test", "localhost.evil.test", "evil-localhost"],
      ...["127.0.0.1.evil.test", "128.0.0.1", "[::ffff:10.0.0.1]", "[::2]", "10.0.0.1:127"],
      ...["localhost@evil.test", "evil.test#localhost", "evil.test/localhost", "localhost\\@x"],
      ...["localhost evil.test", "local%68ost", "127.0.0.1:x", "foo.localhost"],
    ]) {
      assert.equal(isLoopback(name), false, JSON.stringify(name));
    }
  });

  it("compares hosts without their port and case", () => {
    assert.equal(hostName("Noetl.Example.COM:443"), "noetl.example.com");
    assert.equal(hostName("a b"), undefined);
  });

  it("asks for keys when others can connect, unless it is told otherwise", () => {
    const table: [Parameters<typeof keysRequired>[0], boolean][] = [
      [{ auth: "auto", host: "127.0.0.1" }, false],
      [{ auth: "auto", host: "::1" }, false],
      [{ auth: "auto", host: "0.0.0.0" }, true],
      [{ auth: "auto", host: "::" }, true],
      [{ auth: "auto", host: "10.1.2.3" }, true],
      [{ auth: "required", host: "127.0.0.1" }, true],
      [{ auth: "off", host: "0.0.0.0" }, false],
    ];
    for (const [http, expected] of table) {
      assert.equal(keysRequired(http), expected, JSON.stringify(http));
    }
  });

  it("lets admin do everything, and others what names their role", () => {
    assert.equal(mayUse("admin", []), true);
    assert.equal(mayUse("viewer", ["operator", "viewer"]), true);
    assert.equal(mayUse("viewer", ["operator"]), false);
    assert.equal(mayUse("worker", []), false);
  });

  it("every route says whom it serves: viewers only read, secrets and keys are for admins", () => {
    for (const { method, path, roles } of API_ROUTES) {
      const route = `${method} ${path}`;
      assert.ok(roles.length > 0, `${route} names no role`);
      assert.ok(
        roles.every(role => API_ROLES.includes(role)),
        route,
      );
      if (method === "POST") assert.ok(!roles.includes("viewer"), route);
      if (/^\/(keys|credentials)/.test(path)) assert.deepEqual(roles, ["admin"], route);
    }
  });
});

describe("who asked", () => {
  it("is the caller's name and the request's id, as texts of bounded length", () => {
    const ctx = { meta: { caller: { name: "ci", role: "operator" } }, requestID: "r-1" };
    assert.deepEqual(requestedBy(ctx), { requested_by: "ci", request_id: "r-1" });
    const long = requestedBy({ meta: { caller: { name: "n".repeat(999) } }, requestID: "" });
    assert.deepEqual(long, { requested_by: "n".repeat(128) });
  });

  it("is nothing when the context says nothing that can be kept", () => {
    for (const meta of [undefined, null, {}, { caller: "ci" }, { caller: { name: { x: 1 } } }]) {
      assert.deepEqual(requestedBy({ meta, requestID: null }), {});
    }
  });
});

describe("keys", () => {
  it("have a plain name that is not the name of nobody, and one of four roles", () => {
    assert.ok(keysCreate.safeParse({ name: "ci-1.a_b", role: "worker" }).success);
    for (const given of [
      { name: "anonymous", role: "viewer" },
      { name: "a b", role: "viewer" },
      { name: "x".repeat(129), role: "viewer" },
      { name: "ci", role: "root" },
      { name: "ci" },
    ]) {
      assert.equal(keysCreate.safeParse(given).success, false, JSON.stringify(given));
    }
  });

  it("are masked in any text that is logged, and names like noetl_worker_pool are not", () => {
    const key = `noetl_${"aB3-_".repeat(8)}xyz`;
    assert.equal(sanitizeText(`got ${key}, twice ${key}`, 400), "got noetl_***, twice noetl_***");
    assert.equal(sanitizeText("noetl_worker_pool", 400), "noetl_worker_pool");
  });
});
