// The schema: migrations that many may run at once, partitions, and what must never be there.
import { strict as assert } from "node:assert";
import { readdir } from "node:fs/promises";
import { ensurePartitions } from "../../mixins/postgres/execution.ts";
import { openDatabase, type Database } from "../../mixins/postgres/index.ts";
import { migrate } from "../../mixins/postgres/migrate.ts";
import { idAtTime } from "../../schemas/ids.ts";
import { ask } from "../support/actors.ts";
import { testDatabase, type TestDatabase } from "../support/postgres.ts";

const WEEK_MS = 604_800_000;
const FILES = (await readdir(new URL("../../mixins/postgres/migrations/", import.meta.url)))
  .filter(name => name.endsWith(".sql"))
  .toSorted();

describe("migrations", function () {
  this.timeout(60_000);
  let empty: TestDatabase;
  let sessions: Database[];
  beforeEach(async () => {
    empty = await testDatabase();
    sessions = Array.from({ length: 6 }, () => openDatabase({ url: empty.url, size: 1 }));
  });
  afterEach(async () => {
    await Promise.all(sessions.map(one => one.close()));
    await empty.drop();
  });

  it("many processes migrate an empty database at once: one does, all succeed", async () => {
    const applied = await Promise.all(sessions.map(one => migrate(one)));
    const busy = applied.filter(names => names.length > 0);
    assert.deepEqual(busy, [FILES]);
    for (const one of sessions) assert.deepEqual(await migrate(one), [], "again is nothing");
    const rows = await ask<{ name: string }>(
      empty.url,
      "select name from noetl.migration order by 1",
    );
    assert.deepEqual(
      rows.map(row => row.name),
      FILES,
    );
  });

  it("a database migrated by a newer build is refused, even if something is missing", async () => {
    const [one] = sessions as [Database];
    await migrate(one);
    await ask(empty.url, "insert into noetl.migration values ('9999_levitation.sql')");
    const refusal = { type: "REJECTED", code: 409, message: /9999_levitation\.sql/ };
    await assert.rejects(migrate(one), refusal);
    await ask(empty.url, "delete from noetl.migration where name = $1", [FILES.at(-1)]);
    await assert.rejects(migrate(one), refusal);
    const rows = await ask(empty.url, "select name from noetl.migration");
    assert.equal(rows.length, FILES.length, "nothing was applied");
  });
});

describe("the schema", function () {
  this.timeout(60_000);
  let database: TestDatabase;
  let sessions: Database;
  before(async () => {
    database = await testDatabase({ migrated: true });
    sessions = openDatabase({ url: database.url, size: 8 });
  });
  after(async () => {
    await sessions.close();
    await database.drop();
  });

  const partitions = async () => {
    const rows = await ask<{ name: string }>(
      database.url,
      `select inhrelid::regclass::text as name from pg_inherits
       where inhparent = 'noetl.event'::regclass order by 1`,
    );
    return rows.map(row => row.name);
  };

  it("every unique index is on every partition, the default one and later ones too", async () => {
    await ensurePartitions(sessions, 6);
    const indexes = await ask<{ guard: string; partition: string }>(
      database.url,
      `select p.indexrelid::regclass::text as guard, c.indrelid::regclass::text as partition
       from pg_index p
       join pg_inherits i on i.inhparent = p.indexrelid
       join pg_index c on c.indexrelid = i.inhrelid and c.indisunique and c.indisvalid
       where p.indrelid = 'noetl.event'::regclass and p.indisunique and p.indisvalid`,
    );
    const places = await partitions();
    assert.ok(places.length >= 8 && places.includes("noetl.event_default"), places.join());
    const guards = Map.groupBy(indexes, index => index.guard);
    assert.deepEqual([...guards.keys()].toSorted(), [
      "noetl.event_pkey",
      "noetl.uidx_event_command_issued_command_id",
      "noetl.uidx_event_command_terminal",
      "noetl.uidx_event_execution_terminal",
      "noetl.uidx_event_loop_done_loop_id",
      "noetl.uidx_event_loop_fanin_completed_loop_id",
    ]);
    for (const [guard, found] of guards) {
      const covered = found.map(index => index.partition).toSorted();
      assert.deepEqual(covered, places, guard);
    }
  });

  it("partitions are made ahead once, however many ask at once", async () => {
    const ahead = 12;
    const before = (await partitions()).length;
    const made = await Promise.all(
      Array.from({ length: 8 }, () => ensurePartitions(sessions, ahead)),
    );
    const total = made.reduce((sum, count) => sum + count, 0);
    assert.ok(total > 0);
    assert.equal((await partitions()).length, before + total);
    assert.equal(await ensurePartitions(sessions, ahead), 0);
  });

  it("facts of this week and later ones have partitions, older ones the default", async () => {
    const placeOf = async (id: string) => {
      const [row] = await ask<{ place: string }>(
        database.url,
        `insert into noetl.event (execution_id, stream_id, version, event_id, event_type, meta)
         values ($1, $1, 1, $1, 'call.partial', '{}') returning tableoid::regclass::text as place`,
        [id],
      );
      return row?.place ?? "";
    };
    const places = [];
    for (const weeks of [0, 1, 2])
      places.push(await placeOf(idAtTime(Date.now() + weeks * WEEK_MS)));
    assert.equal(new Set(places).size, 3);
    assert.ok(
      places.every(place => /^noetl\.event_\d{8}$/.test(place)),
      places.join(),
    );
    assert.equal(await placeOf(idAtTime(Date.now() - 30 * WEEK_MS)), "noetl.event_default");
  });

  it("a week whose facts lie in the default partition does not stop later weeks", async () => {
    const late = await testDatabase({ migrated: true });
    const one = openDatabase({ url: late.url, size: 1 });
    const far = idAtTime(Date.now() + 3 * WEEK_MS);
    await one.query(
      `insert into noetl.event (execution_id, stream_id, version, event_id, event_type, meta)
       values ($1, $1, 1, $1, 'call.partial', '{}')`,
      [far],
    );
    assert.equal(await ensurePartitions(one, 5), 2, "the fourth and the fifth, not the third");
    await one.close();
    await late.drop();
  });

  it("there is no trigger in schema noetl, and the search for one finds one", async () => {
    const find = () =>
      ask<{ name: string }>(
        database.url,
        `select tgname as name from pg_trigger t join pg_class c on c.oid = t.tgrelid
         where c.relnamespace = 'noetl'::regnamespace`,
      );
    assert.deepEqual(await find(), []);
    await ask(
      database.url,
      `create trigger sabotage before update on noetl.stream
       for each row execute function suppress_redundant_updates_trigger()`,
    );
    assert.deepEqual(await find(), [{ name: "sabotage" }]);
    await ask(database.url, "drop trigger sabotage on noetl.stream");
  });

  it("events of a loop are counted by its index, with the clause meta ? 'loop_id'", async () => {
    const id = idAtTime(Date.now());
    await ask(
      database.url,
      `insert into noetl.event (execution_id, stream_id, version, event_id, event_type, meta)
       select $1, $1, n, n,
              case when n % 3 = 0 then 'command.completed' else 'command.claimed' end,
              jsonb_build_object('loop_id', (n % 50)::text)
       from generate_series(2, 20000) n`,
      [id],
    );
    await ask(database.url, "analyze noetl.event");
    const plan = async (clause: string) => {
      const rows = await ask<{ "QUERY PLAN": string }>(
        database.url,
        `explain select count(*) from noetl.event
         where execution_id = ${id} and meta->>'loop_id' = '7' ${clause}
           and event_type = 'command.completed'`,
      );
      return rows.map(row => row["QUERY PLAN"]).join("\n");
    };
    const [index] = await ask<{ name: string }>(
      database.url,
      `select c.relname as name from pg_inherits i
       join pg_class c on c.oid = i.inhrelid
       join pg_index x on x.indexrelid = c.oid
       where i.inhparent = 'noetl.idx_event_loop_id_type'::regclass
         and x.indrelid = (select tableoid from noetl.event where execution_id = $1 limit 1)`,
      [id],
    );
    const name = new RegExp(`\\b${index?.name}\\b`);
    assert.match(await plan("and meta ? 'loop_id'"), name);
    assert.doesNotMatch(await plan(""), name, "sabotage: without the clause it cannot be used");
  });
});
