// The instruments of the other tests: databases, servers to break, a network to break.
import { strict as assert } from "node:assert";
import pg from "pg";
import {
  pgBouncerBinary,
  sayNoPgBouncer,
  startPgBouncer,
  type TestPgBouncer,
} from "../support/pgbouncer.ts";
import {
  startServer,
  testDatabase,
  type TestDatabase,
  type TestServer,
} from "../support/postgres.ts";
import { leftInSessions } from "../support/session-state.ts";
import { startProxy } from "../support/tcp-proxy.ts";

async function connected(url: string): Promise<pg.Client> {
  const client = new pg.Client(url);
  client.on("error", () => undefined);
  await client.connect();
  return client;
}

/** `events.once` would reject with the "error" that precedes the end. */
const ending = (client: pg.Client): Promise<void> =>
  new Promise(resolve => client.once("end", () => resolve()));

async function ask(url: string, text: string): Promise<unknown[]> {
  const client = await connected(url);
  return (await client.query(text).finally(() => client.end())).rows;
}

describe("test databases", function () {
  this.timeout(60_000);

  it("each is empty and apart from the others, and can be dropped while in use", async () => {
    const [one, two] = await Promise.all([testDatabase(), testDatabase()]);
    await ask(one.url, "create table mine (n int)");
    assert.deepEqual(await ask(two.url, "select to_regclass('mine') as found"), [{ found: null }]);
    const open = await connected(one.direct);
    const ended = ending(open);
    await one.drop();
    await ended;
    await two.drop();
  });

  it("a migrated one has the tables of schema noetl", async () => {
    const [one, two] = await Promise.all([
      testDatabase({ migrated: true }),
      testDatabase({ migrated: true }),
    ]);
    for (const { url, drop } of [one, two]) {
      const found = "select to_regclass('noetl.event') is not null as found";
      assert.deepEqual(await ask(url, found), [{ found: true }]);
      await drop();
    }
  });
});

describe("a server to break", function () {
  this.timeout(60_000);
  let server: TestServer;
  before(async () => {
    server = await startServer();
    await ask(server.url, "create table kept as select 1 as n");
  });
  after(() => server.remove());

  for (const how of ["immediate", "crash"] as const) {
    it(`comes back with its data on its port after kill ${how}`, async () => {
      const open = await connected(server.url);
      const ended = ending(open);
      await server.kill(how);
      await ended;
      await assert.rejects(ask(server.url, "select 1"), { code: "ECONNREFUSED" });
      await server.start();
      assert.deepEqual(await ask(server.url, "select n from kept"), [{ n: 1 }]);
    });
  }

  it("a cut resets connections and refuses new ones until it is healed", async () => {
    const proxy = await startProxy(server.port);
    const open = await connected(proxy.through(server.url));
    const ended = ending(open);
    proxy.cut();
    await ended;
    await assert.rejects(ask(proxy.through(server.url), "select 1"));
    proxy.heal();
    assert.equal((await ask(proxy.through(server.url), "select 1")).length, 1);
    await proxy.close();
  });

  it("a blackholed query is answered after it is healed, and a delay delays", async () => {
    const proxy = await startProxy(server.port);
    const open = await connected(proxy.through(server.url));
    proxy.blackhole();
    let isAnswered = false;
    const answer = open.query("select 1").then(() => (isAnswered = true));
    // The same statement straight to the server shows that time for an answer has passed.
    await ask(server.url, "select pg_sleep(0.1)");
    assert.equal(isAnswered, false);
    proxy.heal();
    await answer;
    proxy.delay(40);
    const before = performance.now();
    await open.query("select 1");
    assert.ok(performance.now() - before >= 79, "there and back is twice the delay");
    await open.end();
    await proxy.close();
  });
});

describe("a PgBouncer in transaction mode", function () {
  this.timeout(60_000);
  let url: string;
  let database: TestDatabase;
  let bouncer: TestPgBouncer;

  before(async function () {
    const binary = pgBouncerBinary();
    if (binary === undefined) {
      sayNoPgBouncer();
      return this.skip();
    }
    database = await testDatabase();
    bouncer = await startPgBouncer(binary, database.direct);
    url = bouncer.through(database.direct);
  });
  after(async () => {
    await bouncer?.stop();
    await database?.drop();
  });

  const LEAVINGS: [string, string | { name: string; text: string }][] = [
    ["setting lock_timeout", "set lock_timeout = 1000"],
    ["statement mine", { name: "mine", text: "select 1" }],
    ["listener news", "listen news"],
    ["advisory lock 7", "select pg_advisory_lock(7)"],
    ["cursor held", "declare held cursor with hold for select 1"],
    ["temporary table mine", "create temporary table mine (n int)"],
  ];

  it("what a transaction keeps to itself is not found in its sessions", async () => {
    await ask(url, "begin; set local lock_timeout = 1000; select pg_advisory_xact_lock(7); commit");
    assert.deepEqual(await leftInSessions(url), []);
  });

  for (const [left, statement] of LEAVINGS) {
    it(`finds this in whatever session it lies: ${left}`, async () => {
      const client = await connected(url);
      await client.query(statement);
      await client.end();
      assert.ok((await leftInSessions(url)).includes(left));
    });
  }
});
