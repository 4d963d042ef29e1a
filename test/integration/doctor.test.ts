// `noetl doctor` against real servers: all is well, and each thing that can be wrong, made so.
import { strict as assert } from "node:assert";
import { connect, type JetStreamManager, type NatsConnection } from "nats";
import pg from "pg";
import { checkDatabase, DATABASE_LIMITS } from "../../cli/doctor-database.ts";
import type { DatabaseQuestion } from "../../cli/doctor-database.ts";
import type { Check } from "../../cli/check.ts";
import { openJetStream } from "../../mixins/jetstream.ts";
import { openDatabase, type Database } from "../../mixins/postgres/index.ts";
import { parkStream } from "../../mixins/postgres/stream.ts";
import { loadSettings } from "../../schemas/env.ts";
import { idAtTime } from "../../schemas/ids.ts";
import { ask, until } from "../support/actors.ts";
import { natsServerBinary, startNats, type TestNats } from "../support/nats.ts";
import { pgBouncerBinary, startPgBouncer } from "../support/pgbouncer.ts";
import { startServer, testDatabase, type TestDatabase } from "../support/postgres.ts";
import { endAll, newFolder, noetl } from "../support/process.ts";
import { startProxy } from "../support/tcp-proxy.ts";

const KEY = Buffer.from(crypto.getRandomValues(new Uint8Array(32))).toString("base64");
const WEEK_MS = 604_800_000;
const ID = "1000001";

function named(checks: Check[], name: string): Check[] {
  return checks.filter(check => check.name === name);
}

/** `warn …` of the first check of that name. */
function said(checks: Check[], name: string): string {
  const [first] = named(checks, name);
  return `${first?.state} ${first?.found}`;
}

async function doctor(
  env: Record<string, string>,
): Promise<{ code: number | null; checks: Check[] }> {
  const folder = await newFolder();
  const { code, stdout } = await noetl(["doctor", "--json"], { NOETL_DATA_DIR: folder, ...env });
  const { ok, checks } = JSON.parse(stdout) as { ok: boolean; checks: Check[] };
  assert.equal(
    ok,
    checks.every(check => check.state !== "fail"),
  );
  return { code, checks };
}

/** How often each table of ours was written to, by the database's own count, and its rows. */
async function tables(url: string): Promise<object[]> {
  const names = await ask<{ name: string }>(
    url,
    `select relname as name from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where n.nspname = 'noetl' and c.relkind in ('r', 'p') order by 1`,
  );
  const rows = names.map(async ({ name }) => {
    const text = `select $1 as name, count(*)::int as n, max(xmin::text::bigint) as newest
                  from noetl.${name}`;
    return (await ask<object>(url, text, [name]))[0] as object;
  });
  return Promise.all(rows);
}

describe("noetl doctor", function () {
  this.timeout(90_000);
  afterEach(endAll);

  it("finds a new data folder good, and leaves it as it is", async () => {
    const { code, checks } = await doctor({});
    assert.deepEqual([code, checks.filter(one => one.state !== "ok")], [0, []]);
    assert.match(said(checks, "database"), /not made yet/);
  });

  it("exits 3 when the database is out of reach, tells the rest, and no secrets", async () => {
    const { code, checks } = await doctor({
      DATABASE_URL: "postgres://u:hunter2@127.0.0.1:1/x",
      NATS_URL: "nats://127.0.0.1:1",
      NOETL_SERVER_URL: "http://127.0.0.1:1",
    });
    assert.equal(code, 3);
    for (const name of ["database", "nats", "server"]) assert.match(said(checks, name), /^fail/);
    assert.doesNotMatch(JSON.stringify(checks), /hunter2/);
  });

  it("says what bounds a worker, asks whom its gate would ask, and reserves nothing", async () => {
    const server = await startServer();
    const { direct } = await server.database({ migrated: true });
    const gate = {
      ...{ NOETL_PREFETCH_GATE: "quota,http", NOETL_PREFETCH_RESERVED_LIMIT: "5" },
      NOETL_PREFETCH_HTTP_URL: "http://127.0.0.1:1/",
    };
    const before = await tables(direct);
    const { code, checks } = await doctor({
      ...{ DATABASE_URL: direct, NOETL_ENCRYPTION_KEY: KEY, ...gate },
    });
    assert.equal(code, 1, "the probe is away");
    const words = named(checks, "gate").map(({ state, found }) => `${state} ${found}`);
    assert.equal(words[0], "ok quota:commands: 4 free, 0 of 5 used");
    assert.match(words[1] ?? "", /^ok 8 items at once, 4 with databases; pools of 12, 2 waiters/);
    assert.match(words[2] ?? "", /^fail .*ECONNREFUSED/);
    assert.deepEqual(await tables(direct), before, "nothing was changed");
    await server.remove();
  });

  it("shows settings that contradict each other, and exits 1", async () => {
    const { code, checks } = await doctor({ NOETL_WORKER_MAX_INFLIGHT_DB_COMMANDS: "8" });
    assert.equal(code, 1);
    assert.match(said(checks, "settings"), /^fail NOETL_WORKER_MAX_INFLIGHT_DB_COMMANDS/);
  });

  it("is content with a durable and migrated database and a reconciled NATS", async function () {
    const binary = natsServerBinary();
    if (!binary) return this.skip();
    const [server, nats] = await Promise.all([startServer(), startNats(binary)]);
    const { direct } = await server.database({ migrated: true });
    const env = { DATABASE_URL: direct, NATS_URL: nats.url, NOETL_ENCRYPTION_KEY: KEY };
    const first = await doctor(env);
    assert.equal(first.code, 0);
    assert.deepEqual(
      first.checks.filter(one => one.state !== "ok").map(one => one.name),
      ["stream", "consumer", "consumer"],
    );
    const connection = await connect({ servers: nats.url });
    const manager = await connection.jetstreamManager();
    assert.equal((await manager.streams.list().next()).length, 0, "doctor makes nothing");
    await connection.close();
    const bell = await openJetStream(loadSettings(env), () => undefined);
    await bell.close();
    const second = await doctor(env);
    assert.deepEqual([second.code, second.checks.filter(one => one.state !== "ok")], [0, []]);
    assert.match(said(second.checks, "consumer"), /0 of 64 taken/);
    await Promise.all([server.remove(), nats.stop()]);
  });
});

describe("doctor and the database", function () {
  this.timeout(60_000);
  let test: TestDatabase;
  let database: Database;
  beforeEach(async () => {
    test = await testDatabase({ migrated: true });
    database = openDatabase({ url: test.direct, size: 1 });
  });
  afterEach(async () => {
    await database.close();
    await test.drop();
  });

  async function look(question: Partial<DatabaseQuestion> = {}): Promise<Check[]> {
    const settings = loadSettings({ DATABASE_URL: test.direct });
    return (await checkDatabase(database, { url: test.direct, settings, ...question })).checks;
  }
  const limits = (changed: Partial<typeof DATABASE_LIMITS>) => ({
    limits: { ...DATABASE_LIMITS, ...changed },
  });
  const change = (text: string, ...values: unknown[]) => ask(test.direct, text, values);
  const addStream = (late: string) =>
    change(
      `insert into noetl.stream (stream_id, execution_id, kind, version, wake_at)
       values ($1, $1, 'executions', 1, now() - $2::interval)`,
      ID,
      late,
    );
  const addFact = (executionId: string, age = "0") =>
    change(
      `insert into noetl.event
         (execution_id, stream_id, version, event_id, event_type, meta, created_at)
       values ($1, $1, 1, $1, 'step.enter', '{}', now() - $2::interval)`,
      executionId,
      age,
    );
  const addCheckpoint = (lease = "1 hour") =>
    change(
      `insert into noetl.projection_checkpoint
         (shard, tx, event_id, epoch, holder, lease_until, system_identifier)
       select 0, '0', 0, 1, 'node-7', now() + $1::interval, system_identifier::text
       from pg_control_system()`,
      lease,
    );

  it("refuses a server that forgets: fsync off, or commits that do not wait", async () => {
    assert.match(said(await look(), "durability"), /^fail fsync off/);
    const name = new URL(test.direct).pathname.slice(1);
    await change(`alter database ${name} set synchronous_commit = off`);
    const fresh = openDatabase({ url: test.direct, size: 1 });
    const settings = loadSettings({ DATABASE_URL: test.direct });
    const { checks } = await checkDatabase(fresh, { url: test.direct, settings });
    await fresh.close();
    assert.match(said(checks, "durability"), /^fail .*synchronous_commit off/);
  });

  it("refuses a server that is too old, takes no writes, or is slow to answer", async () => {
    assert.match(said(await look(), "database"), /^ok Postgres \d+/);
    assert.match(said(await look(limits({ versionMin: 990_000 })), "database"), /^fail/);
    const proxy = await startProxy(Number(new URL(test.direct).port));
    proxy.delay(15);
    const name = new URL(test.direct).pathname.slice(1);
    const slow = openDatabase({ url: proxy.through(test.direct), size: 1 });
    const settings = loadSettings({ DATABASE_URL: test.direct });
    const question = { url: test.direct, settings };
    const late = await checkDatabase(slow, question);
    assert.match(said(late.checks, "database"), /^warn .*answers in [3-9]\d\.\d ms/);
    await slow.close();
    await proxy.close();
    await change(`alter database ${name} set default_transaction_read_only = on`);
    const readOnly = openDatabase({ url: test.direct, size: 1 });
    const refused = await checkDatabase(readOnly, question);
    await readOnly.close();
    assert.match(said(refused.checks, "database"), /^fail .*takes no writes/);
  });

  it("sees clocks that differ, either way", async () => {
    assert.match(said(await look(), "clock"), /^ok/);
    const warned = await look({ nowMs: () => Date.now() + 10_000 });
    assert.match(said(warned, "clock"), /^warn .*10\.\d s behind|^warn .*9\.9 s behind/);
    const failed = await look({ nowMs: () => Date.now() - 120_000 });
    assert.match(said(failed, "clock"), /^fail .*2 m 00 s ahead of/);
  });

  it("tells a pooler from the server itself", async function () {
    assert.match(said(await look(), "pooler"), /^ok none/);
    const settings = loadSettings({ DATABASE_URL: test.direct, DB_POOLER: "transaction" });
    const passedBy = await look({ settings });
    assert.match(said(passedBy, "pooler"), /^warn none, though DB_POOLER says/);
    const binary = pgBouncerBinary();
    if (!binary) return this.skip();
    const bouncer = await startPgBouncer(binary, test.direct);
    const checks = await look({ url: bouncer.through(test.direct), settings });
    assert.match(said(checks, "pooler"), /^ok one is in between/);
    await bouncer.stop();
  });

  it("sees migrations that are missing, and those of a newer build", async () => {
    await change("delete from noetl.migration where name like '0002%'");
    assert.match(said(await look(), "migrations"), /^warn 0002_credential\.sql not applied/);
    await change("insert into noetl.migration values ('9999_levitation.sql')");
    assert.match(said(await look(), "migrations"), /^fail .*9999_levitation/);
    await change("drop schema noetl cascade");
    const empty = await look();
    assert.match(said(empty, "migrations"), /^warn there are no tables/);
    assert.deepEqual(named(empty, "partitions"), []);
  });

  it("sees partitions that nobody made, and facts that fell beside them", async () => {
    assert.match(said(await look(), "partitions"), /^ok/);
    await addFact(idAtTime(Date.now() + 8 * WEEK_MS));
    assert.match(said(await look(), "partitions"), /^fail 1 rows in noetl\.event_default/);
    const [{ name = "" } = {}] = await ask<{ name: string }>(
      test.direct,
      "select max(relname) as name from pg_class where relname ~ '^event_2\\d+$'",
    );
    await change(`drop table noetl.${name}`);
    const checks = named(await look(), "partitions").map(one => `${one.state} ${one.found}`);
    assert.deepEqual(checks[0], `warn ${name} missing`);
  });

  it("names the transaction that holds readers of the log back, and how long", async () => {
    const writer = new pg.Client({ connectionString: test.direct, application_name: "a long one" });
    await writer.connect();
    await writer.query("begin");
    await writer.query("select pg_current_xact_id()");
    await addFact(idAtTime(Date.now()));
    try {
      const warning = await until(async () => {
        const checks = await look(limits({ waitWarnMs: 50 }));
        return said(checks, "transactions").startsWith("warn") && checks;
      });
      const words = said(warning, "transactions");
      assert.match(words, /oldest that writes is pid \d+ \(a long one\).*facts wait for/);
      const failing = await look(limits({ waitWarnMs: 10, waitFailMs: 20 }));
      assert.match(said(failing, "transactions"), /^fail/);
      assert.match(said(await look(), "transactions"), /^ok/);
    } finally {
      await writer.end();
    }
  });

  it("names parked streams with what went wrong in them", async () => {
    await addStream("-1 hour");
    await parkStream(database, ID, "the fold failed\n    at some line");
    const checks = await look();
    assert.equal(said(checks, "parked"), `fail executions ${ID} failed 1 times: the fold failed`);
    assert.match(named(checks, "parked")[0]?.remedy ?? "", new RegExp(`noetl events ${ID}`));
  });

  it("sees work that nobody wakes: without a server, and with one that does not look", async () => {
    await addStream("10 minutes");
    assert.match(said(await look(), "servers"), /^fail none runs, and 1 stream overdue.*10 m/);
    const embedded = loadSettings({});
    const onLaptop = said(await look({ settings: embedded }), "servers");
    assert.match(onLaptop, /^warn/, "on a laptop work may wait for its owner");
    await addCheckpoint();
    assert.match(said(await look(), "servers"), /^fail node-7 runs, but 1 stream overdue/);
    await change("update noetl.stream set wake_at = now() + interval '1 minute'");
    assert.match(said(await look(), "servers"), /^ok node-7 runs/);
  });

  it("sees a projection that does not keep up, and one from another cluster", async () => {
    assert.match(said(await look(), "projection"), /^ok has not begun/);
    await addCheckpoint();
    assert.match(said(await look(), "projection"), /^ok has read the whole log/);
    await addFact(idAtTime(Date.now()), "1 minute");
    assert.match(said(await look(), "projection"), /^warn 1 fact behind.* 1 m 0\d s.*node-7/);
    await change("update noetl.event set created_at = now() - interval '1 hour'");
    assert.match(said(await look(), "projection"), /^fail/);
    await change("update noetl.projection_checkpoint set lease_until = now()");
    assert.match(said(await look(), "projection"), /^ok .*no server runs/);
    await change("update noetl.projection_checkpoint set system_identifier = '1'");
    assert.match(said(await look(), "projection"), /^warn .*another cluster/);
  });

  it("counts the workers that live, and names those that fell silent", async () => {
    await addStream("-1 hour");
    assert.match(said(await look(), "workers"), /^warn none runs for 1 open stream/);
    await change(
      `insert into noetl.runtime (worker_id, incarnation, machine, pid, status, capacity, seen_at)
       values ('w-1', 'a', 'm', 1, 'ready', '{"slots": 8}', now()),
              ('w-2', 'b', 'm', 2, 'ready', '{"slots": 8}', now() - interval '5 minutes'),
              ('w-3', 'c', 'm', 3, 'gone', '{"slots": 8}', now() - interval '5 minutes')`,
    );
    const workers = named(await look(), "workers").map(one => `${one.state} ${one.found}`);
    assert.deepEqual(workers, ["ok 1 alive, 8 slots", "warn w-2 has been silent for 5 m 00 s"]);
  });
});

describe("doctor and NATS", function () {
  this.timeout(60_000);
  let nats: TestNats;
  let connection: NatsConnection;
  let manager: JetStreamManager;
  const binary = natsServerBinary();
  beforeEach(async function () {
    if (!binary) return this.skip();
    nats = await startNats(binary);
    connection = await connect({ servers: nats.url });
    manager = await connection.jetstreamManager();
  });
  afterEach(async () => {
    await connection?.close();
    await nats?.stop();
  });
  afterEach(endAll);

  const look = async (env = {}) => (await doctor({ NATS_URL: nats.url, ...env })).checks;
  const reconcile = async () => {
    const bell = await openJetStream(loadSettings({ NATS_URL: nats.url }), () => undefined);
    await bell.close();
  };

  it("compares what the consumer has in effect with what is configured", async () => {
    await reconcile();
    const checks = await look({ NOETL_WORKER_NATS_MAX_ACK_PENDING: "128" });
    assert.match(
      said(checks, "consumer"),
      /^fail .*max_ack_pending 64 in effect, configured is 128/,
    );
    const { config } = await manager.consumers.info("NOETL_COMMANDS", "noetl_worker_pool");
    assert.equal(config.max_ack_pending, 64, "nothing was changed");
    await manager.consumers.update("NOETL_COMMANDS", "noetl_worker_pool", { max_deliver: 5 });
    assert.match(said(await look(), "consumer"), /^fail .*max_deliver 5/);
  });

  it("refuses a stream whose retention or storage cannot serve, with the way out", async () => {
    await manager.streams.add({
      ...{ name: "NOETL_COMMANDS", subjects: ["other.subject"], max_msg_size: 100 },
      ...({ retention: "workqueue", storage: "memory", discard: "new", max_msgs: 10 } as object),
    });
    const words = named(await look(), "stream").map(one => `${one.state} ${one.found}`);
    assert.deepEqual(
      words.map(line => line.replace(/ NOETL_COMMANDS/, "")),
      [
        "fail has retention workqueue, expected limits",
        "fail does not take noetl.commands: rings are lost",
        "fail does not take noetl.commands.db: rings are lost",
        "fail does not take noetl.commands.to.>: rings are lost",
        "fail refuses messages above 100 bytes, rings may be larger",
        "warn refuses new messages when it is full",
        "warn is kept in memory: a restart of NATS loses waiting rings",
      ],
    );
  });

  it("refuses a consumer that pushes", async () => {
    await manager.streams.add({ name: "NOETL_COMMANDS", subjects: ["noetl.commands"] });
    await manager.consumers.add("NOETL_COMMANDS", {
      durable_name: "noetl_worker_pool",
      ...({
        ack_policy: "none",
        deliver_subject: "somewhere",
        filter_subject: "noetl.>",
      } as object),
    });
    const pushes = named(await look(), "consumer").map(one => one.found);
    assert.match(pushes.join("\n"), /pushes, workers pull[^]*ack_policy none[^]*filter_subject/);
  });

  it("says how many rings wait, and that nobody pulls", async () => {
    await reconcile();
    await connection.jetstream().publish("noetl.commands");
    const found = said(await look(), "consumer");
    assert.match(found, /^warn .*1 ring waiting, 0 of 64 taken.* 0 pulls open/);
  });

  it("says that a server has no JetStream", async () => {
    const plain = await startNats(binary ?? "", { jetStream: false });
    assert.match(said(await look({ NATS_URL: plain.url }), "nats"), /^fail .*without JetStream/);
    await plain.stop();
  });
});
