/** API keys as an operator meets them: real processes, the first key, refusals, and who asked. */
import { strict as assert } from "node:assert";
import { KEY_MEMORY_MS } from "../../schemas/access.ts";
import { ask, until } from "../support/actors.ts";
import { startGate } from "../support/gate.ts";
import { testDatabase } from "../support/postgres.ts";
import type { TestDatabase } from "../support/postgres.ts";
import { endAll, newFolder, noetl, startServer } from "../support/process.ts";
import type { Env, NoetlServer } from "../support/process.ts";

const WAITING = `apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: waiting, path: test/waiting}
workload: {url: ""}
workflow:
  - step: first
    tool: {kind: http, url: "{{ workload.url }}", timeout: 30}
`;

describe("noetl key", function () {
  this.timeout(60_000);
  let database: TestDatabase;
  let env: Env;
  /** Every key that was made here. */
  const keys: string[] = [];

  before(async () => {
    database = await testDatabase({ migrated: true });
    env = { DATABASE_URL: database.url, NOETL_DATA_DIR: await newFolder() };
  });
  beforeEach(() => ask(database.url, "delete from noetl.api_key"));
  afterEach(endAll);
  after(() => database.drop());

  /** Reachable by others: keys are asked for although nothing says so. */
  const startOpen = (more: Env = {}) =>
    startServer({ ...env, NOETL_HOST: "0.0.0.0", NOETL_LOG_LEVEL: "trace", ...more });

  async function create(name: string, role: string, more: string[] = [], extra: Env = {}) {
    const args = ["key", "create", name, "--role", role, ...more];
    const { code, stdout, stderr } = await noetl(args, { ...env, ...extra });
    assert.equal(code, 0, stderr);
    const key = stdout.trim();
    keys.push(key);
    return key;
  }

  const at = (server: NoetlServer, key?: string) => [
    ...["--server-url", server.url],
    ...(key === undefined ? [] : ["--api-key", key]),
  ];

  it("a server that others reach says how to make the first key, and only then", async () => {
    const server = await startOpen();
    await server.says(/API keys are required, and there is none/);
    await server.says(/noetl key create NAME --role admin/);
    const key = await create("root", "admin");
    assert.match(key, /^noetl_[\w-]{43}$/, "the key and nothing else is on stdout");
    const listed = await noetl(["key", "list", ...at(server, key)], env);
    assert.equal(listed.code, 0, listed.stderr);
    assert.match(listed.stdout, /root +admin +\S+Z +\S+Z +good/);
    const second = await startOpen();
    second.signal("SIGTERM");
    const { stderr } = await second.ended;
    assert.doesNotMatch(stderr, /key create/);
  });

  it("a server that others reach without keys says so", async () => {
    const server = await startOpen({ NOETL_AUTH: "off" });
    await server.says(/warning: whoever reaches 0\.0\.0\.0 may use the API/);
    assert.equal((await noetl(["list", ...at(server)], env)).code, 0);
  });

  it("a server for this machine asks for none and says nothing of keys", async () => {
    const server = await startServer(env);
    assert.equal((await server.ask("GET", "/executions")).status, 200);
    server.signal("SIGTERM");
    assert.doesNotMatch((await server.ended).stderr, /key|warning/);
  });

  it("a key that is missing, unknown or too weak ends a command with 2 and a hint", async () => {
    const server = await startOpen();
    const viewer = await create("reader", "viewer");
    const unknown = `noetl_${"x".repeat(43)}`;
    const none = await noetl(["list", ...at(server)], env);
    assert.equal(none.code, 2);
    assert.match(none.stderr, /needs an API key\n.*--api-key or NOETL_API_KEY/);
    const wrong = await noetl(["list", ...at(server)], { ...env, NOETL_API_KEY: unknown });
    assert.equal(wrong.code, 2);
    assert.match(wrong.stderr, /unknown or revoked/);
    const weak = await noetl(["cancel", "7", ...at(server, viewer)], env);
    assert.equal(weak.code, 2);
    assert.match(weak.stderr, /role operator or admin; 'reader' is viewer/);
    const json = await noetl(["list", "--json", ...at(server)], env);
    assert.equal(json.code, 2);
    const { error } = JSON.parse(json.stdout) as { error: Record<string, unknown> };
    assert.deepEqual([error["type"], error["code"]], ["REJECTED", 401]);
  });

  it("an admin's key makes and ends others from afar; an ended one is refused soon", async () => {
    const server = await startOpen();
    const admin = { NOETL_API_KEY: await create("root", "admin") };
    const ci = await create("ci", "operator", at(server), admin);
    const asCi = async () => {
      const headers = { "x-api-key": ci };
      const response = await fetch(`${server.url}/api/executions`, { headers });
      await response.body?.cancel();
      return response.status;
    };
    assert.equal(await asCi(), 200);
    const [row] = await ask(database.url, "select created_by from noetl.api_key where name = 'ci'");
    assert.deepEqual(row, { created_by: "root" });
    const again = await noetl(["key", "create", "ci", "--role", "viewer"], env);
    assert.equal(again.code, 2);
    assert.match(again.stderr, /There is a key 'ci', or was/);
    // On the database itself: the server is not told, and finds out.
    const revoked = await noetl(["key", "revoke", "ci"], env);
    assert.equal(revoked.code, 0);
    assert.match(revoked.stdout, /^ci {2}revoked; servers refuse it after 5\.0 s$/m);
    await until(async () => (await asCi()) === 401, KEY_MEMORY_MS * 2);
    const listed = await noetl(["key", "list", "--json"], env);
    const { keys: rows } = JSON.parse(listed.stdout) as { keys: Record<string, unknown>[] };
    assert.deepEqual(
      rows.map(({ name, revoked_at }) => [name, revoked_at === null]),
      [
        ["root", true],
        ["ci", false],
      ],
    );
  });

  it("refuses a role that there is not, an unknown name, and the name of nobody", async () => {
    for (const [args, words] of [
      [["create", "x", "--role", "root"], /admin, operator, viewer, worker/],
      [["create", "anonymous", "--role", "admin"], /another name/],
      [["create", "x"], /--role/],
      [["revoke", "nobody"], /There is no key 'nobody'/],
    ] as const) {
      const { code, stdout, stderr } = await noetl(["key", ...args], env);
      assert.deepEqual([code, stdout], [2, ""], stderr);
      assert.match(stderr, words);
    }
  });

  it("the log tells who asked for a cancel, and no key is in it, nor in any output", async () => {
    const gate = await startGate();
    try {
      const server = await startOpen();
      const operator = await create("night-shift", "operator");
      const call = async (path: string, body: object) => {
        const headers = { "content-type": "application/json", authorization: `Bearer ${operator}` };
        const init = { method: "POST", headers, body: JSON.stringify(body) };
        const response = await fetch(`${server.url}/api${path}`, init);
        const answer = (await response.json()) as Record<string, unknown>;
        assert.ok(response.ok, JSON.stringify(answer));
        return { answer, requestId: response.headers.get("x-request-id") };
      };
      const start = { playbook: WAITING, payload: { url: gate.url } };
      const id = String((await call("/execute", start)).answer["execution_id"]);
      await gate.arrived(1);
      const caller = { caller: "root", requested_by: "root" };
      await assert.rejects(call(`/executions/${id}/cancel`, caller), /no such field/);
      const { requestId } = await call(`/executions/${id}/cancel`, { reason: "enough" });
      const [event] = await ask<{ meta: object }>(
        database.url,
        `select meta from noetl.event
         where execution_id = $1 and event_type = 'execution.cancel_requested'`,
        [id],
      );
      assert.ok(requestId);
      assert.deepEqual(event?.meta, {
        reason: "enough",
        requested_by: "night-shift",
        request_id: requestId,
      });
      assert.match(server.said, /http\.request/, "every request is logged here");
      const stored = await ask(database.url, "select e::text as row from noetl.event e");
      for (const text of [server.said, JSON.stringify(stored)]) {
        for (const key of keys) assert.equal(text.includes(key.slice(6)), false);
      }
    } finally {
      await gate.close();
    }
  });

  it("a cancel at the database itself names nobody", async () => {
    const gate = await startGate();
    try {
      const server = await startServer(env);
      const start = { playbook: WAITING, payload: { url: gate.url } };
      const { body } = await server.ask("POST", "/execute", start);
      await gate.arrived(1);
      const id = String(body["execution_id"]);
      const cancelled = await noetl(["cancel", id], env);
      assert.equal(cancelled.code, 0, cancelled.stderr);
      const [event] = await ask<{ meta: Record<string, unknown> }>(
        database.url,
        `select meta from noetl.event
         where execution_id = $1 and event_type = 'execution.cancel_requested'`,
        [id],
      );
      assert.ok(event && !("requested_by" in event.meta));
    } finally {
      await gate.close();
    }
  });
});
