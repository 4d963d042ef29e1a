// The credentials service on a real store.
import { strict as assert } from "node:assert";
import { randomBytes } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { ServiceBroker } from "moleculer";
import { openDatabase } from "../../mixins/postgres/index.ts";
import type { Database } from "../../mixins/postgres/index.ts";
import { credentials } from "../../services/credentials/credentials.service.ts";
import type { CredentialsOptions } from "../../services/credentials/credentials.service.ts";
import { testDatabase } from "../support/postgres.ts";
import type { TestDatabase } from "../support/postgres.ts";

const encryptionKey = randomBytes(32).toString("base64");
const pg = { name: "pg_local", type: "postgres", data: { db_host: "h", db_password: "hush" } };

describe("credentials", () => {
  let test: TestDatabase;
  let database: Database;
  let folder: string;
  const brokers: ServiceBroker[] = [];

  before(async () => {
    folder = await mkdtemp(path.join(tmpdir(), "noetl-credentials-"));
    test = await testDatabase({ migrated: true });
    database = openDatabase({ url: test.url, size: 2 });
  });

  beforeEach(() => database.query("truncate noetl.credential"));

  afterEach(async () => {
    for (const broker of brokers.splice(0)) await broker.stop();
  });

  after(async () => {
    await database.close();
    await test.drop();
    await rm(folder, { recursive: true });
  });

  async function start(options: CredentialsOptions, more: object = {}): Promise<ServiceBroker> {
    const settings = { logger: false, registry: { stopDelay: 0 }, ...more };
    const broker = new ServiceBroker(settings);
    broker.createService(credentials(options));
    brokers.push(broker);
    await broker.start();
    return broker;
  }

  it("stores sealed, resolves, lists without data, and deletes", async () => {
    const broker = await start({ database, encryptionKey });
    const saved = await broker.call<Record<string, unknown>, object>("credentials.register", pg);
    assert.equal(saved.name, "pg_local");
    assert.match(String(saved.created_at), /^\d{4}-\d\d-\d\dT.*Z$/);
    assert.deepEqual(await broker.call("credentials.resolve", { alias: "pg_local" }), pg);
    const shown = [
      saved,
      await broker.call("credentials.list"),
      await broker.call("credentials.get", { name: "pg_local" }),
      (await database.query("select encode(data, 'escape') from noetl.credential")).rows,
    ];
    assert.equal(JSON.stringify(shown).includes("hush"), false);
    const deleted = await broker.call("credentials.delete", { name: "pg_local" });
    assert.deepEqual(deleted, { name: "pg_local", deleted: true });
    const gone = broker.call("credentials.resolve", { alias: "pg_local" });
    await assert.rejects(gone, { type: "REJECTED", code: 404 });
  });

  it("registering again replaces, and the memory of the old one is forgotten", async () => {
    const broker = await start({ database, encryptionKey });
    await broker.call("credentials.register", pg);
    await broker.call("credentials.resolve", { alias: "pg_local" });
    const data = { db_host: "other" };
    await broker.call("credentials.register", { ...pg, data });
    assert.deepEqual(await broker.call("credentials.resolve", { alias: "pg_local" }), {
      ...pg,
      data,
    });
  });

  it("remembers a resolved credential, so that many tools cost one look-up", async () => {
    let queries = 0;
    const counting = {
      query: (text: string, values?: unknown[]) => {
        queries += 1;
        return database.query(text, values);
      },
    } as Database;
    const broker = await start({ database: counting, encryptionKey });
    await broker.call("credentials.register", pg);
    queries = 0;
    const alias = "pg_local";
    await Promise.all([1, 2, 3].map(() => broker.call("credentials.resolve", { alias })));
    await broker.call("credentials.resolve", { alias });
    assert.equal(queries, 1);
  });

  it("an unknown alias is 404 with the nearest and the known names", async () => {
    const broker = await start({ database, encryptionKey });
    await broker.call("credentials.register", pg);
    const call = broker.call("credentials.resolve", { alias: "pg_locl" });
    const message = "credential 'pg_locl' is unknown (did you mean 'pg_local'? known: pg_local)";
    await assert.rejects(call, { type: "REJECTED", code: 404, message });
  });

  it("without a key it stores and opens nothing, and aliases of files still work", async () => {
    const file = path.join(folder, "aliases.yaml");
    await writeFile(file, "api:\n  type: bearer\n  data: {token: hush}\n");
    await (await start({ database, encryptionKey })).call("credentials.register", pg);
    const broker = await start({ database, file });
    const refusals = [
      broker.call("credentials.register", pg),
      broker.call("credentials.resolve", { alias: "pg_local" }),
    ];
    for (const refusal of refusals) {
      await assert.rejects(refusal, {
        type: "REJECTED",
        message: /NOETL_ENCRYPTION_KEY is not set/,
      });
    }
    const api = { name: "api", type: "bearer", data: { token: "hush" } };
    assert.deepEqual(await broker.call("credentials.resolve", { alias: "api" }), api);
  });

  it("the environment wins over the file, and the file over the store", async () => {
    const file = path.join(folder, "both.json");
    const alias = (from: string) => ({ type: "x", data: { from } });
    await writeFile(file, JSON.stringify({ "pg-local": alias("file"), b: alias("file") }));
    const variables = { pg_local: JSON.stringify(alias("environment")) };
    const broker = await start({ database, encryptionKey, file, variables });
    for (const name of ["pg-local", "b", "c"]) {
      const stored = { name, ...alias("store") };
      const saved = await broker.call<{ shadowed_by?: string }, object>(
        "credentials.register",
        stored,
      );
      const shadow = { "pg-local": "environment", b: "file" }[name];
      assert.equal(saved.shadowed_by, shadow, name);
    }
    const from = async (alias: string) =>
      (await broker.call<typeof pg, object>("credentials.resolve", { alias })).data;
    assert.deepEqual(await from("pg-local"), { from: "environment" });
    assert.deepEqual(await from("b"), { from: "file" });
    assert.deepEqual(await from("c"), { from: "store" });
    const { credentials: listed } = await broker.call<{ credentials: { source: string }[] }>(
      "credentials.list",
    );
    assert.deepEqual(
      listed.map(({ source }) => source),
      ["file", "database", "environment"],
    );
  });

  it("a broken file stops the start, naming the line and not its text", async () => {
    const file = path.join(folder, "broken.yaml");
    await writeFile(file, "api:\n  type: bearer\n  data: {token: hush\n  x: [\n");
    await assert.rejects(start({ file }), (error: Error) => {
      return (
        /broken\.yaml:\d+: not JSON or YAML/.test(error.message) && !/hush/.test(error.message)
      );
    });
    brokers.length = 0;
    await assert.rejects(start({ file: "/nowhere" }), /cannot be read \(ENOENT\)/);
    brokers.length = 0;
  });

  it("resolve answers its own process only", async () => {
    const wire = { transporter: "Fake", namespace: randomBytes(4).toString("hex") };
    await start({ database, encryptionKey }, { ...wire, nodeID: "near" });
    const far = new ServiceBroker({
      logger: false,
      registry: { stopDelay: 0 },
      ...wire,
      nodeID: "far",
    } as never);
    brokers.push(far);
    await far.start();
    await far.waitForServices("credentials");
    await far.call("credentials.register", pg);
    const call = far.call("credentials.resolve", { alias: "pg_local" });
    await assert.rejects(call, { type: "SERVICE_NOT_FOUND" });
    // A hand-made request that skips the registry of its sender.
    const endpoint = { id: "near", action: { name: "credentials.resolve" }, node: { id: "near" } };
    const ctx = far.ContextFactory.create(far, endpoint as never, { alias: "pg_local" }, {});
    ctx.nodeID = "near";
    const forged = (far as never as { transit: { request(ctx: unknown): Promise<unknown> } })
      .transit;
    await assert.rejects(forged.request(ctx), { type: "REJECTED", code: 403 });
  });
});
