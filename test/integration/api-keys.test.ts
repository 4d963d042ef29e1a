/** The front door with keys: every role at every route, over real HTTP and a real store of keys. */
import { strict as assert } from "node:assert";
import { createHash } from "node:crypto";
import { request } from "node:http";
import { ServiceBroker } from "moleculer";
import type { Context, ServiceSchema } from "moleculer";
import { brokerLogger } from "../../mixins/logging/pino.ts";
import { openDatabase } from "../../mixins/postgres/index.ts";
import type { Database } from "../../mixins/postgres/index.ts";
import { API_ROLES } from "../../schemas/access.ts";
import type { Caller } from "../../schemas/caller.ts";
import { loadSettings } from "../../schemas/env.ts";
import { Rejected } from "../../schemas/errors.ts";
import { API_ROUTES } from "../../schemas/routes.ts";
import apiService from "../../services/api/api.service.ts";
import keysService from "../../services/keys/keys.service.ts";
import { testDatabase } from "../support/postgres.ts";
import type { TestDatabase } from "../support/postgres.ts";

/** Stands for a memory that has run out; the real one lasts seconds. */
const MEMORY_MS = 40;
const REAL = /^(keys|api)\./;
const UNKNOWN_KEY = `noetl_${"x".repeat(43)}`;

type ActionsOf = NonNullable<ServiceSchema["actions"]>;

interface FrontDoor {
  broker: ServiceBroker;
  url: string;
  /** What reached an action, and who asked for it. */
  reached: { action: string; caller: unknown; params: unknown }[];
  /** Everything that was logged, at the level trace. */
  log: string[];
}

let test: TestDatabase;
let database: Database;
const brokers: ServiceBroker[] = [];

async function startFrontDoor(env: Record<string, string> = {}): Promise<FrontDoor> {
  const reached: FrontDoor["reached"] = [];
  const log: string[] = [];
  const settings = loadSettings({ NOETL_PORT: "0", NOETL_AUTH: "required", ...env });
  const sink = { write: (line: string) => log.push(line) };
  const logger = brokerLogger({ ...settings.logging, level: "trace", format: "json" }, sink);
  const broker = new ServiceBroker({ logger: logger as never, registry: { stopDelay: 0 } });
  brokers.push(broker);
  broker.createService(keysService({ database, cacheMs: MEMORY_MS }));
  // Every action that the table of routes names, except those of the services that are real.
  const actions = API_ROUTES.flatMap(route => route.serves).filter(name => !REAL.test(name));
  for (const [name, own] of Map.groupBy(new Set(actions), action => action.split(".")[0] ?? "")) {
    const stubs = own.map(action => [
      action.slice(name.length + 1),
      (ctx: Context<unknown, { caller?: Caller }>) => {
        reached.push({ action, caller: ctx.meta.caller, params: ctx.params });
        throw new Rejected("There is no such thing", 404);
      },
    ]);
    broker.createService({ name, actions: Object.fromEntries(stubs) as ActionsOf });
  }
  broker.createService(apiService({ settings }));
  await broker.start();
  const { url } = await broker.call<{ url: string }>("api.address");
  return { broker, url, reached, log };
}

interface Made {
  name: string;
  key: string;
}

let made = 0;
async function newKey({ broker }: FrontDoor, role: string): Promise<Made> {
  made += 1;
  return broker.call<Made, object>("keys.create", { name: `${role}-${made}`, role });
}

/** Only the head of the answer: some routes stream. */
async function statusOf(url: string, init: RequestInit): Promise<number> {
  const response = await fetch(url, init);
  await response.body?.cancel();
  return response.status;
}

interface Said {
  status: number;
  headers: Headers;
  error: { message: string; hint?: string };
  request_id?: string;
}

async function refusal(url: string, init: RequestInit = {}): Promise<Said> {
  const response = await fetch(url, init);
  const body = (await response.json()) as Said;
  return { ...body, status: response.status, headers: response.headers };
}

const bearer = (key: string) => ({ authorization: `Bearer ${key}` });

/** A request as no browser and no fetch would send it. */
function rawRequest(url: string, method: string, headers: Record<string, string>): Promise<number> {
  return new Promise((resolve, reject) => {
    const sent = request(url, { method, headers }, response => {
      response.resume().once("end", () => resolve(response.statusCode ?? 0));
    });
    sent.once("error", reject).end();
  });
}

describe("the front door", () => {
  before(async () => {
    test = await testDatabase({ migrated: true });
    database = openDatabase({ url: test.url, size: 2 });
  });
  afterEach(async () => {
    for (const broker of brokers.splice(0)) await broker.stop();
  });
  after(async () => {
    await database.close();
    await test.drop();
  });

  describe("api keys", () => {
    const concrete = (path: string) => path.replace(/:\w+/g, "7").replace(/\*\w+/g, "a/b");

    for (const role of API_ROLES) {
      it(`${role} reaches exactly the routes that name it, as itself`, async () => {
        const door = await startFrontDoor();
        const { name, key } = await newKey(door, role);
        for (const route of API_ROUTES) {
          const { method, path, roles, serves } = route;
          const init = { method, headers: bearer(key) };
          const status = await statusOf(`${door.url}/api${concrete(path)}`, init);
          const what = `${role} at ${method} ${path}`;
          const reached = door.reached.splice(0);
          if (role !== "admin" && !roles.includes(role)) {
            assert.equal(status, 403, what);
            assert.deepEqual(reached, [], what);
            continue;
          }
          assert.ok(status !== 401 && status !== 403, `${what}: ${status}`);
          if (serves.every(action => REAL.test(action))) continue;
          assert.ok(reached.length > 0, what);
          for (const { caller } of reached) assert.deepEqual(caller, { name, role }, what);
        }
      });
    }

    it("nobody reaches a route without a key, with a wrong one or with a revoked one", async () => {
      const door = await startFrontDoor();
      const revoked = await newKey(door, "admin");
      await door.broker.call("keys.revoke", { name: revoked.name });
      const wrong = { "X-API-Key": UNKNOWN_KEY };
      for (const headers of [{}, wrong, bearer(UNKNOWN_KEY), bearer("x"), bearer(revoked.key)]) {
        for (const { method, path } of API_ROUTES) {
          const status = await statusOf(`${door.url}/api${concrete(path)}`, { method, headers });
          assert.equal(status, 401, `${method} ${path} ${JSON.stringify(Object.keys(headers))}`);
        }
      }
      assert.deepEqual(door.reached, []);
    });

    it("every address of the gateway names its roles, and only probes are open", async () => {
      const { broker } = await startFrontDoor();
      const gateway = broker.getLocalService("api") as unknown as {
        aliases: { method: string; fullPath: string; roles?: unknown }[];
      };
      const known = gateway.aliases.map(({ method, fullPath }) => `${method} ${fullPath}`);
      assert.ok(known.length >= API_ROUTES.length + 2, "the search finds them");
      for (const { fullPath, roles } of gateway.aliases) {
        const open = roles === "anyone";
        assert.equal(open, ["/health", "/health/live"].includes(fullPath), fullPath);
        assert.ok(open || (Array.isArray(roles) && roles.length > 0), `${fullPath} names no roles`);
      }
    });

    it("probes need no key; what is not there tells nothing without one", async () => {
      const { url } = await startFrontDoor();
      assert.equal(await statusOf(`${url}/health/live`, {}), 200);
      // 503: no execution answers in this test, and the probe says so.
      assert.equal(await statusOf(`${url}/health`, {}), 503);
      for (const path of ["/metrics", "/api/nothing", "/", "/health/live/x"]) {
        assert.equal(await statusOf(url + path, {}), 401, path);
      }
    });

    it("measurements are for viewers and above, not for workers", async () => {
      const door = await startFrontDoor();
      const expected = { admin: 200, operator: 200, viewer: 200, worker: 403 };
      for (const [role, status] of Object.entries(expected)) {
        const headers = bearer((await newKey(door, role)).key);
        assert.equal(await statusOf(`${door.url}/metrics`, { headers }), status, role);
      }
    });

    it("a refusal says what to do, in the words of HTTP, with its request_id", async () => {
      const door = await startFrontDoor();
      const none = await refusal(`${door.url}/api/keys`, { headers: { "x-request-id": "r-9" } });
      assert.equal(none.status, 401);
      assert.match(none.headers.get("www-authenticate") ?? "", /^Bearer/);
      assert.equal(none.headers.get("x-request-id"), "r-9");
      assert.equal(none.request_id, "r-9");
      assert.match(none.error.hint ?? "", /--api-key.*NOETL_API_KEY.*noetl key create/);
      const { name, key } = await newKey(door, "viewer");
      const wrong = await refusal(`${door.url}/api/execute`, {
        method: "POST",
        headers: bearer(key),
      });
      assert.equal(wrong.status, 403);
      assert.match(
        wrong.error.message,
        new RegExp(`operator or worker or admin.*'${name}'.*viewer`),
      );
    });

    it("a revocation takes effect when a server has forgotten the key, elsewhere too", async () => {
      const [one, two] = [await startFrontDoor(), await startFrontDoor()];
      const { name, key } = await newKey(one, "admin");
      const statuses = () =>
        Promise.all(
          [one, two].map(({ url }) => statusOf(`${url}/api/keys`, { headers: bearer(key) })),
        );
      assert.deepEqual(await statuses(), [200, 200]);
      await one.broker.call("keys.revoke", { name });
      assert.equal((await statuses())[0], 401, "at once where it was revoked");
      const revokedAt = performance.now();
      while ((await statuses())[1] !== 401) assert.ok(performance.now() - revokedAt < 5_000);
    });

    it("a key is looked up once while it is remembered, and its use is written down", async () => {
      const statements: string[] = [];
      const watched = {
        query(text: string, values?: unknown[]) {
          statements.push(text);
          return database.query(text, values);
        },
      };
      const broker = new ServiceBroker({ logger: false, registry: { stopDelay: 0 } });
      brokers.push(broker);
      broker.createService(keysService({ database: watched as Database, cacheMs: 60_000 }));
      await broker.start();
      const { name, key } = await newKey({ broker } as FrontDoor, "viewer");
      statements.length = 0;
      const key_hash = createHash("sha256").update(key).digest("hex");
      const verify = () => broker.call("keys.verify", { key_hash });
      await Promise.all([verify(), verify(), verify()]);
      await verify();
      assert.equal(statements.length, 1);
      const usedAt = async () => {
        const { keys } = await broker.call<{ keys: { name: string; last_used_at: string }[] }>(
          "keys.list",
        );
        return keys.find(one => one.name === name)?.last_used_at;
      };
      const first = await usedAt();
      assert.ok(Math.abs(Date.now() - Date.parse(first ?? "")) < 60_000);
      await broker.call("keys.revoke", { name });
      await assert.rejects(verify(), { type: "REJECTED", code: 401 });
      await database.query("update noetl.api_key set revoked_at = null where name = $1", [name]);
      await verify();
      assert.equal(await usedAt(), first, "not written again within a minute");
      await broker.call("keys.revoke", { name });
      await database.query(
        `update noetl.api_key set revoked_at = null, last_used_at = now() - interval '2 minutes'
       where name = $1`,
        [name],
      );
      await verify();
      assert.ok(((await usedAt()) ?? "") >= (first ?? ""), "written again after it");
    });

    it("only a digest is stored, and a name means one key for ever", async () => {
      const { broker } = await startFrontDoor();
      const { name, key } = await newKey({ broker } as FrontDoor, "operator");
      assert.match(key, /^noetl_[\w-]{43}$/);
      const { rows } = await database.query("select api_key::text as row from noetl.api_key");
      assert.ok(rows.length > 0 && !JSON.stringify(rows).includes(key.slice(6)));
      await broker.call("keys.revoke", { name });
      const again = broker.call("keys.create", { name, role: "viewer" });
      await assert.rejects(again, { type: "REJECTED", code: 409, message: new RegExp(name) });
      const missing = broker.call("keys.revoke", { name: "nobody" });
      await assert.rejects(missing, { type: "REJECTED", code: 404 });
    });

    it("an admin makes, sees and ends keys over HTTP; the key is in one answer only", async () => {
      const door = await startFrontDoor();
      const admin = await newKey(door, "admin");
      const ask = async (method: string, path: string, body?: object) => {
        const headers = { ...bearer(admin.key), "content-type": "application/json" };
        const init = { method, headers, ...(body && { body: JSON.stringify(body) }) };
        return (await (await fetch(`${door.url}/api${path}`, init)).json()) as Record<
          string,
          unknown
        >;
      };
      const created = await ask("POST", "/keys", { name: "ci", role: "operator" });
      assert.deepEqual(Object.keys(created), ["name", "role", "key"]);
      const { keys } = (await ask("GET", "/keys")) as { keys: Record<string, unknown>[] };
      const listed = keys.find(one => one["name"] === "ci");
      assert.equal(listed?.["created_by"], admin.name);
      assert.equal(JSON.stringify(keys).includes(String(created["key"])), false);
      const revoked = await ask("POST", "/keys/ci/revoke");
      assert.deepEqual(Object.keys(revoked), ["name", "revoked_at"]);
      assert.deepEqual(await ask("POST", "/keys/ci/revoke"), revoked, "repeatable");
    });

    it("nothing that a client sends says who it is, except its key", async () => {
      const door = await startFrontDoor({ NOETL_AUTH: "off" });
      const fake = { name: "root", role: "admin" };
      const query = "caller[name]=root&meta[caller][name]=root&$meta=x&__proto__[caller]=root";
      await statusOf(`${door.url}/api/executions?${query}`, {
        headers: { "x-caller": "root", caller: "root", ...bearer(UNKNOWN_KEY) },
      });
      await statusOf(`${door.url}/api/execute`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ path: "a", caller: fake, meta: { caller: fake }, $meta: fake }),
      });
      const callers = door.reached.map(({ caller }) => caller);
      assert.deepEqual(callers, [{ name: "anonymous" }, { name: "anonymous" }]);
    });

    it("a body is not read before its sender is known", async () => {
      const { url } = await startFrontDoor({ NOETL_HTTP_BODY_MAX_BYTES: "1024" });
      const headers = { "content-type": "application/json" };
      for (const body of ["{oops", "x".repeat(4096)]) {
        const init = { method: "POST", headers, body };
        assert.equal(await statusOf(`${url}/api/execute`, init), 401);
      }
    });

    it("no key reaches a log, whatever is refused or fails", async () => {
      const door = await startFrontDoor();
      const { key } = await newKey(door, "admin");
      const viewer = await newKey(door, "viewer");
      const tries: [string, RequestInit][] = [
        ["/api/executions", { headers: bearer(key) }],
        ["/api/executions", { headers: { "x-api-key": key } }],
        ["/api/executions", { headers: bearer(UNKNOWN_KEY) }],
        ["/api/executions", { headers: { authorization: `Basic ${UNKNOWN_KEY}` } }],
        ["/api/keys", { headers: bearer(viewer.key) }],
        [`/api/executions?api_key=${key}`, { headers: bearer(key) }],
        [`/api/nothing/${key}`, { headers: bearer(key) }],
      ];
      for (const [path, init] of tries) await statusOf(door.url + path, init);
      // What reached an action has the key in no header any more.
      const written = door.log.join("");
      assert.match(written, /http\.request/, "requests are logged here");
      assert.match(written, /"requested_by":"admin-/, "with the name of the key");
      for (const secret of [key, viewer.key, UNKNOWN_KEY]) {
        assert.equal(written.includes(secret.slice(0, 20)), false);
      }
    });

    it("browsers see the real refusal, may send a key, and need none to ask whether", async () => {
      const origin = "https://ui.test";
      const { url } = await startFrontDoor({ NOETL_CORS_ALLOWED_ORIGINS: `${origin}.example` });
      const from = (page: string) =>
        refusal(`${url}/api/executions`, { headers: { origin: page } });
      const listed = await from(`${origin}.example`);
      assert.equal(listed.status, 401);
      assert.equal(listed.headers.get("access-control-allow-origin"), `${origin}.example`);
      const shorter = await from(origin);
      assert.equal(
        shorter.headers.get("access-control-allow-origin"),
        null,
        "a beginning is not it",
      );
      const preflight = await fetch(`${url}/api/execute`, {
        method: "OPTIONS",
        headers: { origin: `${origin}.example`, "access-control-request-method": "POST" },
      });
      assert.equal(preflight.status, 204);
      const allowed = preflight.headers.get("access-control-allow-headers") ?? "";
      assert.match(allowed, /Authorization, X-API-Key/);
    });

    it("OPTIONS runs nothing: not as GET, not as the method it asks about", async () => {
      for (const origins of ["", "https://ui.test"]) {
        const env = { NOETL_AUTH: "off", NOETL_CORS_ALLOWED_ORIGINS: origins };
        const door = await startFrontDoor(env);
        const asking = { "access-control-request-method": "POST" };
        await rawRequest(`${door.url}/api/executions`, "OPTIONS", {});
        await rawRequest(`${door.url}/api/executions/7/cancel`, "OPTIONS", asking);
        assert.deepEqual(door.reached, []);
      }
    });
  });

  describe("the Host header", () => {
    const asked = (url: string, host: string, path = "/api/executions") =>
      rawRequest(url + path, "GET", { host });

    it("must name this machine while no keys are asked for, or be listed", async () => {
      const env = { NOETL_AUTH: "auto", NOETL_ALLOWED_HOSTS: "noetl.test, Proxy.test:8443" };
      const door = await startFrontDoor(env);
      const { port } = new URL(door.url);
      for (const host of ["localhost", `127.0.0.1:${port}`, `[::1]:${port}`]) {
        assert.equal(await asked(door.url, host), 404, host);
      }
      for (const host of ["noetl.test", "NOETL.test:99", "proxy.test"]) {
        assert.equal(await asked(door.url, host), 404, host);
      }
      assert.equal(door.reached.splice(0).length, 6);
      for (const host of [
        "evil.test",
        `evil.test:${port}`,
        "0.0.0.0",
        "localhost.evil.test",
        "x y",
      ]) {
        assert.equal(await asked(door.url, host), 403, host);
      }
      assert.deepEqual(door.reached, []);
      assert.equal(
        await asked(door.url, "10.0.0.7:8082", "/health/live"),
        200,
        "probes are exempt",
      );
    });

    it("is refused in words that name the setting", async () => {
      const { url } = await startFrontDoor({ NOETL_AUTH: "auto" });
      const text = await new Promise<string>((resolve, reject) => {
        const sent = request(
          `${url}/api/executions`,
          { headers: { host: "evil.test" } },
          response => {
            let body = "";
            response.setEncoding("utf8").on("data", (part: string) => (body += part));
            response.once("end", () => resolve(body));
          },
        );
        sent.once("error", reject).end();
      });
      assert.match(text, /'evil\.test' is not of this machine; NOETL_ALLOWED_HOSTS/);
    });

    it("does not matter where a key is asked for", async () => {
      const door = await startFrontDoor({ NOETL_AUTH: "required" });
      const { key } = await newKey(door, "viewer");
      const headers = { host: "noetl.example.com", ...bearer(key) };
      assert.equal(await rawRequest(`${door.url}/api/executions`, "GET", headers), 404);
      assert.equal(door.reached.length, 1);
    });
  });
});
