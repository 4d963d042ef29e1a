// What the postgres tool answers, against a real server.
import { strict as assert } from "node:assert";
import type { JsonObject } from "../../schemas/json.ts";
import { dataOf, startPostgresTool } from "../support/tool-postgres.ts";
import type { PostgresToolUnderTest } from "../support/tool-postgres.ts";

describe("tool.postgres", () => {
  let tool: PostgresToolUnderTest;

  before(async () => {
    tool = await startPostgresTool();
  });

  after(() => tool.stop());

  it("answers the last statement's fields and command_<i> of every statement", async () => {
    const sql = `
      create table pair (id int, name text);
      insert into pair values (1, 'a;'), (2, 'b') returning id;
      update pair set name = 'c' where id = 2;
      select id, name from pair order by id;`;
    const answer = await tool.run({ command: sql });
    assert.equal(answer.status, "ok");
    const data = dataOf(answer);
    assert.deepEqual(data.rows, [
      { id: 1, name: "a;" },
      { id: 2, name: "c" },
    ]);
    assert.deepEqual([data.status, data.row_count, data.statement_count], ["success", 2, 4]);
    assert.deepEqual(data.columns, ["id", "name"]);
    assert.deepEqual((data.command_3 as JsonObject).rows, data.rows);
    assert.deepEqual((data.command_1 as JsonObject).rows, [{ id: 1 }, { id: 2 }]);
    const update = data.command_2 as JsonObject;
    assert.deepEqual([update.rows, update.row_count, update.message], [[], 1, "UPDATE 1"]);
    assert.deepEqual((data.command_0 as JsonObject).status, "success");
  });

  it("maps every type as documented", async () => {
    const [row] = await tool.rowsOf(`select 1::int2 a, 2::int4 b, count(*) c, 9007199254740993 d,
      1.50::numeric e, 12345678901234567890.5 f, 0.5::float8 g, 'NaN'::float8 h, true i,
      '{"k": [1]}'::jsonb j, '[1]'::json k, '{1,2}'::int[] l, '{a,"b c"}'::text[] m,
      '2024-01-02 03:04:05+00'::timestamptz n, '2024-01-02'::date o, '03:04:05'::time p,
      '\\x6869'::bytea q, '00000000-0000-0000-0000-000000000001'::uuid r, null s,
      '1 day 02:00'::interval t, '2024-01-02 03:04:05.5'::timestamp u, 'infinity'::timestamp v`);
    assert.deepEqual(row, {
      a: 1,
      b: 2,
      c: 1,
      d: "9007199254740993",
      e: 1.5,
      f: "12345678901234567890.5",
      g: 0.5,
      h: "NaN",
      i: true,
      j: { k: [1] },
      k: [1],
      l: [1, 2],
      m: ["a", "b c"],
      n: "2024-01-02T03:04:05+00:00",
      o: "2024-01-02",
      p: "03:04:05",
      q: "\\x6869",
      r: "00000000-0000-0000-0000-000000000001",
      s: null,
      t: "1 day 02:00:00",
      u: "2024-01-02T03:04:05.5",
      v: "infinity",
    });
  });

  it("binds parameters in the last statement, JSON and arrays by their shape", async () => {
    const query =
      "select 'x'; select $1::jsonb a, $2::jsonb b, $3::int[] c, $4::text d, $5::bool e";
    const params = [{ k: "é'" }, [{ n: 1 }], [1, 2], null, true];
    assert.deepEqual(await tool.rowsOf(query, params), [
      { a: { k: "é'" }, b: [{ n: 1 }], c: [1, 2], d: null, e: true },
    ]);
    assert.deepEqual(await tool.rowsOf("select 5 % 3 a, '?' b"), [{ a: 2, b: "?" }]);
    const wrong = await tool.run({ query: "select 1", params: [1] });
    assert.deepEqual([wrong.error?.kind, wrong.error?.retryable], ["client_error", false]);
  });

  it("stops at the first error, says where, and keeps what ran", async () => {
    const query =
      "create table stop (a int);\ninsert into stop values (1);\nselect nope\nfrom stop;select 1";
    const answer = await tool.run({ query });
    assert.equal(answer.status, "error");
    assert.deepEqual([answer.error?.kind, answer.error?.retryable], ["schema", false]);
    assert.deepEqual(answer.pg, { code: "42703", sqlstate: "42703" });
    const message = 'statement 3 of 4, line 3 column 8: column "nope" does not exist';
    assert.equal(answer.error?.message, message);
    const data = dataOf(answer);
    assert.equal((data.command_1 as JsonObject).row_count, 1);
    assert.equal("command_2" in data, false);
    assert.deepEqual(await tool.rowsOf("select a from stop"), [{ a: 1 }]);
  });

  it("transaction: true undoes all when one fails", async () => {
    await tool.run({ query: "create table undo (a int primary key)" });
    const query = "insert into undo values (1); insert into undo values (1)";
    const answer = await tool.run({ query, transaction: true });
    assert.deepEqual([answer.error?.kind, answer.pg?.sqlstate], ["db_constraint", "23505"]);
    assert.equal(dataOf(answer).rolled_back, true);
    assert.deepEqual(await tool.rowsOf("select a from undo"), []);
    const ok = await tool.run({
      query: "insert into undo values (1); select count(*) n from undo",
      transaction: true,
    });
    assert.deepEqual(dataOf(ok).rows, [{ n: 1 }]);
    assert.deepEqual(await tool.rowsOf("select a from undo"), [{ a: 1 }]);
  });

  it("a script that leaves its transaction open fails, and nobody inherits it", async () => {
    const answer = await tool.run({ query: "begin; create table open_end (a int)" });
    assert.deepEqual([answer.error?.kind, answer.error?.code], ["logic", "TRANSACTION_OPEN"]);
    const [row] = await tool.rowsOf("select to_regclass('open_end') is null as gone");
    assert.equal(row?.gone, true);
    const whole = await tool.run({ query: "begin; create table whole (a int); commit" });
    assert.equal(whole.error, null);
  });

  it("RAISE EXCEPTION is a logic error with its message", async () => {
    const answer = await tool.run({ query: "do $$ begin raise exception 'not; good'; end $$" });
    assert.deepEqual([answer.error?.kind, answer.error?.code], ["logic", "P0001"]);
    assert.match(answer.error?.message ?? "", /not; good$/);
  });

  it("session state does not reach the next task", async () => {
    const ask = (query: string) => tool.run({ query }, tool.direct);
    await Promise.all([1, 2, 3].map(() => ask("set search_path = nowhere")));
    const paths = await Promise.all([1, 2, 3, 4, 5].map(() => ask("show search_path")));
    for (const path of paths) {
      assert.deepEqual(dataOf(path).rows, [{ search_path: '"$user", public' }]);
    }
  });

  it("a result beyond its limits is an error that names the limit, not a shorter one", async () => {
    const rows = await tool.run({ query: "select * from generate_series(1, 2000)" });
    assert.deepEqual([rows.error?.code, rows.error?.retryable], ["RESULT_TOO_LARGE", false]);
    assert.match(rows.error?.message ?? "", /exceeds 1000 rows \(result_max_rows\)/);
    const bytes = await tool.run({ query: "select repeat('x', 2000000)" });
    assert.match(bytes.error?.message ?? "", /exceeds 1000000 bytes \(result_max_bytes\)/);
    const together = "select * from generate_series(1, 600); select * from generate_series(1, 600)";
    assert.equal((await tool.run({ query: together })).error?.code, "RESULT_TOO_LARGE");
    assert.equal((await tool.rowsOf("select * from generate_series(1, 1000)")).length, 1000);
  });

  it("a wrong password is an auth error, a missing database a config error", async () => {
    const url = new URL(tool.direct);
    url.password = "wrong";
    const auth = await tool.run({ query: "select 1" }, url.href);
    assert.deepEqual([auth.error?.kind, auth.error?.retryable], ["auth", false]);
    const missing = await tool.run({ query: "select 1" }, tool.direct.replace(/[^/]*$/, "nowhere"));
    assert.deepEqual([missing.error?.kind, missing.error?.code], ["config", "3D000"]);
  });

  it("rows may be lists, and an empty script is a config error", async () => {
    const lists = await tool.run({ query: "select 1 a, 2 a", as_objects: false });
    assert.deepEqual([dataOf(lists).rows, dataOf(lists).columns], [[[1, 2]], ["a", "a"]]);
    const empty = await tool.run({ query: " -- nothing\n;" });
    assert.deepEqual(
      [empty.error?.kind, empty.error?.message],
      ["config", "query: it came out empty (write a statement)"],
    );
  });
});
