/**
 * Settings: defaults of the contract, refusals that name the variable, secrets that stay hidden.
 */
import { strict as assert } from "node:assert";
import { databaseUrl, describeSettings, loadSettings } from "../../schemas/env.ts";
import type { Issue, Rejected } from "../../schemas/errors.ts";

function refusalOf(env: Record<string, string>): { text: string; fields: string[] } {
  try {
    loadSettings(env);
  } catch (error) {
    const { message, data } = error as Rejected;
    const issues = data["issues"] as Issue[];
    return { text: message + JSON.stringify(data), fields: issues.map(i => i.field ?? "") };
  }
  throw new Error("the settings were accepted");
}

describe("settings", () => {
  it("have the defaults of the contract", () => {
    const settings = loadSettings({});
    const { worker, postgresTool, http, command, logging, nats, node, events } = settings;
    assert.deepEqual([http.host, http.port, node.dataDir], ["127.0.0.1", 8082, ".noetl"]);
    assert.deepEqual(
      [worker.fetchTimeoutMs, worker.fetchHeartbeatMs, worker.maxAckPending],
      [30_000, 5_000, 64],
    );
    assert.deepEqual([worker.maxInflight, worker.maxInflightDb], [8, 4]);
    assert.deepEqual([worker.throttlePollMs, worker.poolWaitingThreshold], [200, 2]);
    assert.deepEqual([postgresTool.poolMin, postgresTool.poolMax], [1, 12]);
    assert.deepEqual([postgresTool.maxWaiting, postgresTool.timeoutMs], [200, 60_000]);
    assert.deepEqual([command.heartbeatTimeoutMs, command.leaseMs], [300_000, 30_000]);
    assert.deepEqual([logging.level, logging.valueMaxChars], ["info", 400]);
    assert.deepEqual([nats.stream, nats.subject], ["NOETL_COMMANDS", "noetl.commands"]);
    assert.equal(events.transport, "call");
  });

  it("take NOETL_LOG_LEVEL before LOG_LEVEL, and Python's words for levels", () => {
    assert.equal(loadSettings({ LOG_LEVEL: "debug" }).logging.level, "debug");
    const both = loadSettings({ LOG_LEVEL: "debug", NOETL_LOG_LEVEL: "WARNING" });
    assert.equal(both.logging.level, "warn");
  });

  it("read pairs of an event and a path, and refuse what is no pair", () => {
    const { starts } = loadSettings({
      NOETL_EVENT_STARTS: "order.created=orders/load, user.*=a/b,",
    });
    assert.deepEqual(starts.events, [
      { name: "order.created", value: "orders/load" },
      { name: "user.*", value: "a/b" },
    ]);
    for (const wrong of ["order.created", "=a/b", "order.created=", "a b=c"]) {
      assert.deepEqual(
        refusalOf({ NOETL_EVENT_STARTS: wrong }).fields,
        ["NOETL_EVENT_STARTS"],
        wrong,
      );
    }
  });

  it("carry a start's tenant, user and locale by default, and no secret", () => {
    assert.deepEqual(loadSettings({}).starts.metaKeys, ["tenant_id", "user_id", "locale"]);
    assert.deepEqual(loadSettings({ NOETL_META_KEYS: "org" }).starts.metaKeys, ["org"]);
    assert.deepEqual(refusalOf({ NOETL_META_KEYS: "org,access_token" }).fields, [
      "NOETL_META_KEYS",
    ]);
  });

  it("given in code win over the environment, and a name that there is not is refused", () => {
    const env = { NOETL_PORT: "1", NATS_URL: "nats://env:4222" };
    const given = { NOETL_PORT: 0, NATS_URL: undefined, NOETL_POSTGRES_USE_POOL_DEFAULT: false };
    const { http, nats, postgresTool } = loadSettings(env, given);
    assert.deepEqual([http.port, nats.url, postgresTool.usePool], [0, "nats://env:4222", false]);
    assert.throws(() => loadSettings({}, { NATS_ULR: "nats://a:1", NOETL_PROT: 1 }), {
      code: 422,
      message: /NOETL_PROT: there is no such setting/,
    });
  });

  it("count an empty variable as absent", () => {
    assert.equal(loadSettings({ NOETL_PORT: " " }).http.port, 8082);
  });

  it("are refused all at once, each with its name, the problem and what is expected", () => {
    const { fields, text } = refusalOf({
      NOETL_PORT: "80820",
      NOETL_LOG_LEVEL: "loud",
      NOETL_POSTGRES_USE_POOL_DEFAULT: "perhaps",
      NOETL_WORKER_THROTTLE_POLL_INTERVAL_SECONDS: "-1",
      NOETL_WORKER_MAX_INFLIGHT_COMMANDS: "1e3",
    });
    assert.deepEqual(fields.sort(), [
      "NOETL_LOG_LEVEL",
      "NOETL_PORT",
      "NOETL_POSTGRES_USE_POOL_DEFAULT",
      "NOETL_WORKER_MAX_INFLIGHT_COMMANDS",
      "NOETL_WORKER_THROTTLE_POLL_INTERVAL_SECONDS",
    ]);
    assert.match(
      text,
      /NOETL_PORT: "80820" cannot be used; expected a whole number from 0 to 65535/,
    );
    assert.match(text, /fatal, error, warn, info, debug, trace/);
  });

  it("never print a secret, whether it is refused or described", () => {
    const bad = refusalOf({
      DATABASE_URL: "mysql://me:hunter2@db/x",
      NOETL_ENCRYPTION_KEY: "hunter2hunter2",
      NOETL_CREDENTIAL_PG: "hunter2",
    });
    assert.equal(bad.fields.length, 3);
    assert.doesNotMatch(bad.text, /hunter2/);
    const good = describeSettings(
      loadSettings({
        DATABASE_URL: "postgres://me:hunter2@db/x",
        NATS_PASSWORD: "hunter2",
        NOETL_CREDENTIAL_PG: '{"type":"postgres","data":{"db_password":"hunter2"}}',
      }),
    );
    assert.doesNotMatch(JSON.stringify(good), /hunter2/);
    const url = good.find(line => line.name === "DATABASE_URL");
    assert.deepEqual([url?.value, url?.source], ["***", "environment"]);
  });

  it("refuse a key that is one character repeated", () => {
    const { fields } = refusalOf({ NOETL_ENCRYPTION_KEY: "A".repeat(43) + "=" });
    assert.deepEqual(fields, ["NOETL_ENCRYPTION_KEY"]);
    loadSettings({ NOETL_ENCRYPTION_KEY: "bzb2Q4hVZ7uYk2m0nq5x1c8d9e0f3g6h7i8j9k0l1m8=" });
  });

  it("are described with the value in effect and its source", () => {
    const lines = describeSettings(loadSettings({ NOETL_COMMAND_LEASE_SECONDS: "12.5" }));
    const lease = lines.find(line => line.name === "NOETL_COMMAND_LEASE_SECONDS");
    assert.deepEqual([lease?.value, lease?.source], ["12.5", "environment"]);
    const port = lines.find(line => line.name === "NOETL_PORT");
    assert.deepEqual([port?.value, port?.source], ["8082", "default"]);
    assert.ok(lines.every(line => line.doc.length > 0));
  });

  it("contradicting each other are refused", () => {
    const of = (env: Record<string, string>) => refusalOf(env).fields;
    assert.deepEqual(of({ NOETL_WORKER_MAX_INFLIGHT_DB_COMMANDS: "8" }), [
      "NOETL_WORKER_MAX_INFLIGHT_DB_COMMANDS",
    ]);
    assert.deepEqual(of({ NOETL_WORKER_NATS_MAX_ACK_PENDING: "4" }), [
      "NOETL_WORKER_NATS_MAX_ACK_PENDING",
    ]);
    assert.deepEqual(of({ NOETL_WORKER_NATS_FETCH_HEARTBEAT_SECONDS: "20" }), [
      "NOETL_WORKER_NATS_FETCH_HEARTBEAT_SECONDS",
    ]);
    assert.deepEqual(of({ NOETL_EVENT_TRANSPORT: "nats" }), ["NOETL_EVENT_TRANSPORT"]);
    assert.deepEqual(of({ NOETL_WORKER_BEAT_SECONDS: "20" }), ["NOETL_WORKER_BEAT_SECONDS"]);
    const one = {
      NOETL_WORKER_MAX_INFLIGHT_COMMANDS: "1",
      NOETL_WORKER_MAX_INFLIGHT_DB_COMMANDS: "1",
    };
    assert.equal(loadSettings(one).worker.maxInflight, 1);
  });

  it("make a database URL of POSTGRES_*, unless DATABASE_URL is set, and none by default", () => {
    assert.equal(databaseUrl(loadSettings({})), undefined);
    const parts = { POSTGRES_HOST: "db", POSTGRES_PASSWORD: "p@ss/w", POSTGRES_DB: "n" };
    assert.equal(databaseUrl(loadSettings(parts)), "postgres://noetl:p%40ss%2Fw@db:5432/n");
    const both = loadSettings({ ...parts, DATABASE_URL: "postgres://x/y" });
    assert.equal(databaseUrl(both), "postgres://x/y");
  });

  it("take the address of a pooler for the database's, and say of which kind it is", () => {
    const given = { POSTGRES_HOST: "pgbouncer.postgres.svc", POSTGRES_PORT: "6432" };
    const settings = loadSettings({ ...given, DB_POOLER: "Transaction" });
    assert.equal(databaseUrl(settings), "postgres://noetl@pgbouncer.postgres.svc:6432/noetl");
    assert.equal(settings.database.pooler, "transaction");
    assert.equal(loadSettings({}).database.pooler, "none");
    assert.match(refusalOf({ DB_POOLER: "session" }).text, /DB_POOLER.*none, transaction/);
  });

  it("name NOETL_ variables that mean nothing, but not those of a Kubernetes service", () => {
    const { unknownVariables } = loadSettings({
      NOETL_PROT: "1",
      NOETL_SERVICE_HOST: "10.0.0.1",
      NOETL_PORT_8082_TCP: "tcp://10.0.0.1:8082",
      NOETL_CREDENTIAL_X: '{"type":"a","data":{}}',
    });
    assert.deepEqual(unknownVariables, ["NOETL_PROT"]);
  });

  it("explain a port that Kubernetes has overwritten", () => {
    assert.match(refusalOf({ NOETL_PORT: "tcp://10.0.0.1:8082" }).text, /enableServiceLinks/);
  });

  it("collect credentials by lower-case alias", () => {
    const text = '{"type":"postgres","data":{"db_host":"h"}}';
    const { credentialVariables } = loadSettings({ NOETL_CREDENTIAL_PG_LOCAL: text });
    assert.deepEqual(credentialVariables, { pg_local: text });
  });
});
