// Values, failures and fields of the postgres tool.
import { strict as assert } from "node:assert";
import { databaseFailure } from "../../services/tool.postgres/failure.ts";
import { changesSession, planStatements } from "../../services/tool.postgres/execute.ts";
import { readSql, readTarget } from "../../services/tool.postgres/source.ts";
import { splitStatements } from "../../services/tool.postgres/split.ts";
import { parserOf, toParameter } from "../../services/tool.postgres/values.ts";

const parse = (oid: number, text: string): unknown => parserOf(oid)(text);

describe("postgres values", () => {
  it("makes numbers of integers and numerics when they are exact, else text", () => {
    assert.equal(parse(20, "42"), 42);
    assert.equal(parse(20, "9007199254740993"), "9007199254740993");
    assert.equal(parse(1700, "1.50"), 1.5);
    assert.equal(parse(1700, "100"), 100);
    assert.equal(parse(1700, "-0.001"), -0.001);
    assert.equal(parse(1700, "1234567.0000000000"), 1234567);
    assert.equal(parse(1700, "12345678901234567890.5"), "12345678901234567890.5");
    assert.equal(parse(1700, "NaN"), "NaN");
    assert.equal(parse(701, "Infinity"), "Infinity");
    assert.equal(parse(701, "0.1"), 0.1);
  });

  it("makes ISO text of times and leaves other styles and infinity", () => {
    assert.equal(parse(1184, "2024-01-02 03:04:05.678+00"), "2024-01-02T03:04:05.678+00:00");
    assert.equal(parse(1184, "2024-01-02 03:04:05+05:30"), "2024-01-02T03:04:05+05:30");
    assert.equal(parse(1114, "2024-01-02 03:04:05"), "2024-01-02T03:04:05");
    assert.equal(parse(1184, "infinity"), "infinity");
    assert.equal(parse(1082, "2024-01-02"), "2024-01-02");
  });

  it("makes lists of arrays, nested, quoted, with nulls and bounds", () => {
    assert.deepEqual(parse(1007, "{1,NULL,3}"), [1, null, 3]);
    assert.deepEqual(parse(1007, "{{1,2},{3,4}}"), [
      [1, 2],
      [3, 4],
    ]);
    assert.deepEqual(parse(1009, '{a,"b,c","d\\"e","NULL",""}'), ["a", "b,c", 'd"e', "NULL", ""]);
    assert.deepEqual(parse(1007, "[0:1]={7,8}"), [7, 8]);
    assert.deepEqual(parse(3807, '{"{\\"a\\": 1}"}'), [{ a: 1 }]);
    assert.deepEqual(parse(1009, "{}"), []);
  });

  it("binds maps and lists with maps as JSON, lists of scalars as arrays", () => {
    assert.equal(toParameter({ a: 1 }), '{"a":1}');
    assert.equal(toParameter([{ a: 1 }]), '[{"a":1}]');
    assert.deepEqual(toParameter([1, 2]), [1, 2]);
    assert.equal(toParameter([[1], [{}]]), "[[1],[{}]]");
    assert.equal(toParameter(undefined), null);
    assert.equal(toParameter("x"), "x");
  });
});

describe("postgres failures", () => {
  const cases: [code: string, kind: string, retryable: boolean][] = [
    ["08006", "db_connection", true],
    ["57P01", "db_connection", true],
    ["53300", "db_connection", true],
    ["53200", "server_error", true],
    ["40001", "server_error", true],
    ["40P01", "server_error", true],
    ["55P03", "db_timeout", true],
    ["57014", "db_timeout", true],
    ["23505", "db_constraint", false],
    ["42P01", "schema", false],
    ["42601", "schema", false],
    ["42501", "auth", false],
    ["28P01", "auth", false],
    ["22P02", "client_error", false],
    ["P0001", "logic", false],
    ["3D000", "config", false],
    ["ECONNREFUSED", "db_connection", true],
    ["ECONNRESET", "db_connection", true],
    ["EPIPE", "db_connection", true],
  ];
  for (const [code, kind, retryable] of cases) {
    it(`${code} is ${kind}, ${retryable ? "retryable" : "final"}`, () => {
      const failure = databaseFailure(Object.assign(new Error("no"), { code }));
      assert.equal(failure?.error.kind, kind);
      assert.equal(failure?.error.retryable, retryable);
      assert.equal(failure?.pg.sqlstate, code.startsWith("E") ? "" : code);
    });
  }

  it("a wrong number of parameters is not a broken connection", () => {
    const error = Object.assign(new Error("bind message supplies 2 parameters, but"), {
      code: "08P01",
    });
    assert.equal(databaseFailure(error)?.error.retryable, false);
  });

  it("says which statement and where, counting lines over the whole text", () => {
    const sql = "select 1;\n\nselect\n  nope from t";
    const statement = splitStatements(sql)[1];
    assert.ok(statement);
    const error = Object.assign(new Error('column "nope" does not exist'), {
      code: "42703",
      position: "10",
    });
    const failure = databaseFailure(error, { sql, statement, index: 1, count: 2 });
    const message = 'statement 2 of 2, line 4 column 3: column "nope" does not exist';
    assert.equal(failure?.error.message, message);
  });

  it("an error that is not the database's is not taken for one", () => {
    assert.equal(databaseFailure(new TypeError("x is not a function")), undefined);
  });
});

describe("postgres fields", () => {
  it("reads every spelling of the SQL", async () => {
    const b64 = Buffer.from("select 'é'").toString("base64");
    assert.deepEqual(await readSql({ query: "select 1" }, "."), ["select 1"]);
    assert.deepEqual(await readSql({ command: ["a", "b"] }, "."), ["a", "b"]);
    assert.deepEqual(await readSql({ commands_b64: b64 }, "."), ["select 'é'"]);
    await assert.rejects(readSql({}, "."), /query: it is required/);
    await assert.rejects(readSql({ query: "a", command: "b" }, "."), /query and command: keep one/);
    await assert.rejects(readSql({ query: 5 }, "."), /query: expected SQL text/);
  });

  it("reads script files below its folder only", async () => {
    const script = (uri: string) => ({ script: { uri, source: { type: "file" } } });
    assert.match((await readSql(script("package.json"), "."))[0] ?? "", /moleculer-noetl/);
    await assert.rejects(readSql(script("/etc/passwd"), "."), /outside the working directory/);
    await assert.rejects(readSql(script("../x"), "."), /cannot be read: ENOENT|outside/);
    const s3 = { script: { uri: "x", source: { type: "s3" } } };
    await assert.rejects(readSql(s3, "."), /'s3' is not supported/);
  });

  it("reads a target from a credential, a URL and plain fields", () => {
    const data = { db_host: "h", db_port: "6543", db_user: "u", db_password: "p", db_name: "d" };
    assert.deepEqual(readTarget({ name: "pg", type: "postgres", data }, {}), {
      host: "h",
      port: 6543,
      user: "u",
      password: "p",
      database: "d",
      sslmode: undefined,
    });
    const connection_string = "postgresql://u%40x:p%2F@h:1/d?sslmode=require";
    assert.deepEqual(readTarget(undefined, { connection_string }), {
      host: "h",
      port: 1,
      user: "u@x",
      password: "p/",
      database: "d",
      sslmode: "require",
    });
    assert.equal(readTarget(undefined, { host: "h", user: "u" }).database, "u");
  });

  it("refuses an incomplete target without repeating its values", () => {
    const bearer = { name: "api", type: "bearer", data: {} };
    assert.throws(() => readTarget(bearer, {}), /'api' is of type 'bearer'/);
    assert.throws(() => readTarget(undefined, {}), /auth: it is required/);
    const noUser = { name: "pg", type: "postgres", data: { db_host: "h", db_password: "hush" } };
    assert.throws(() => readTarget(noUser, {}), {
      message: "auth: credential 'pg' has no db_user",
    });
  });

  it("knows what changes a session", () => {
    const changes = (sql: string): boolean =>
      planStatements([sql]).some(p => changesSession(p.statement));
    assert.equal(changes("set search_path = x"), true);
    assert.equal(changes("set local search_path = x"), false);
    assert.equal(changes("create temp table t (a int)"), true);
    assert.equal(changes("select pg_advisory_lock(1)"), true);
    assert.equal(changes("update t set a = 1"), false);
  });
});
