// The statement splitter of the postgres tool.
import { strict as assert } from "node:assert";
import { indexOfCharacter, placeOf, splitStatements } from "../../services/tool.postgres/split.ts";

const texts = (sql: string): string[] => splitStatements(sql).map(statement => statement.text);

describe("splitStatements", () => {
  it("cuts at semicolons and drops blanks and the last semicolon", () => {
    assert.deepEqual(texts(" select 1 ;\n\n select 2;; "), ["select 1", "select 2"]);
    assert.deepEqual(texts("select 1"), ["select 1"]);
    assert.deepEqual(texts(""), []);
  });

  it("drops pieces that are only comments and keeps comments of statements", () => {
    const sql = "-- it's; fine\n/* a; /* b; */ c; */;\n-- note; it's\nselect 1 -- tail; '\n;-- end";
    assert.deepEqual(texts(sql), ["-- note; it's\nselect 1 -- tail; '"]);
  });

  it("keeps semicolons in quotes, doubled quotes and backslashes of plain strings", () => {
    assert.deepEqual(texts("select 'a;''b;' ; select \"x;\"\"y;\""), [
      "select 'a;''b;'",
      'select "x;""y;"',
    ]);
    assert.deepEqual(texts("select '\\'; select 2"), ["select '\\'", "select 2"]);
  });

  it("honours backslashes in escape strings only", () => {
    assert.deepEqual(texts("select E'a\\'; b'; select 2"), ["select E'a\\'; b'", "select 2"]);
    assert.deepEqual(texts("select e'\\\\'; select 2"), ["select e'\\\\'", "select 2"]);
    // The e of a name or a number is not the mark of an escape string.
    assert.deepEqual(texts("select date'\\'; select 2"), ["select date'\\'", "select 2"]);
    assert.deepEqual(texts("select 1e'\\'; select 2"), ["select 1e'\\'", "select 2"]);
  });

  it("keeps dollar quotes whole, with and without tags", () => {
    const block = "do $$ begin raise notice 'a;'; end $$";
    assert.deepEqual(texts(`${block}; select 1`), [block, "select 1"]);
    const nested = 'select $json${"a": "$$;"}$json$::jsonb';
    assert.deepEqual(texts(`${nested}; select $x$;$y$;$x$`), [nested, "select $x$;$y$;$x$"]);
  });

  it("does not take parameters or names with a dollar for dollar quotes", () => {
    assert.deepEqual(texts("select $1; select $2"), ["select $1", "select $2"]);
    assert.deepEqual(texts("select a$b$ from t; select c$b$"), [
      "select a$b$ from t",
      "select c$b$",
    ]);
  });

  it("keeps rules in parentheses and begin atomic bodies whole", () => {
    const rule = "create rule r as on insert to t do (delete from a; delete from b)";
    assert.deepEqual(texts(`${rule}; select 1`), [rule, "select 1"]);
    const body =
      "create or replace function f(x int) returns int begin atomic " +
      "select case when x > 0 then 1 end; select 2; end";
    assert.deepEqual(texts(`${body}; select 1`), [body, "select 1"]);
    assert.deepEqual(texts("begin; select 1; end; select 2"), [
      "begin",
      "select 1",
      "end",
      "select 2",
    ]);
  });

  it("runs what is left open to the end", () => {
    for (const open of ["'a; b", '"a; b', "$$ a; b", "$t$ a; $$ b", "/* a; b", "(a; b"]) {
      const sql = `select 1; select ${open}`;
      assert.deepEqual(texts(sql).slice(1), [`select ${open}`], open);
    }
  });

  it("names the operation and where the statement starts", () => {
    const sql = "-- first\n select 1;\n\n /* x */ insert into t values (1)";
    const [first, second] = splitStatements(sql);
    assert.equal(first?.operation, "SELECT");
    assert.equal(second?.operation, "INSERT");
    assert.equal(sql.slice(second?.start).startsWith("/* x */"), true);
    assert.deepEqual(placeOf(sql, second?.start ?? 0), { line: 4, column: 2 });
  });

  it("counts characters, not code units, as the server does", () => {
    assert.equal(indexOfCharacter("a😀b", 3), 3);
    assert.equal(indexOfCharacter("abc", 1), 0);
  });

  it("never loses, doubles or reorders text, whatever the text (seeded)", () => {
    const atoms = [
      "select",
      " ",
      "\n",
      ";",
      "'",
      "''",
      '"',
      "$$",
      "$t$",
      "$1",
      "--",
      "/*",
      "*/",
      "E'",
      "\\",
      "(",
      ")",
      "é",
      "😀",
      "a",
      "1",
      "begin",
      "end",
      "create function f() ",
      "case",
    ];
    for (let seed = 1; seed <= 4000; seed++) {
      const next = generator(seed);
      let sql = "";
      for (let length = next() % 40; length > 0; length--) sql += atoms[next() % atoms.length];
      let at = 0;
      for (const { text, start } of splitStatements(sql)) {
        assert.ok(start >= at, `seed ${seed}: overlap`);
        assert.equal(sql.slice(start, start + text.length), text, `seed ${seed}: moved`);
        assert.deepEqual(texts(text), [text], `seed ${seed}: not one statement`);
        at = start + text.length;
      }
      const rest = splitStatements(sql)
        .map(({ text }) => text.replace(/[\s;]/g, ""))
        .join("");
      const whole = sql.replace(/[\s;]/g, "");
      if (!/--|\/\*/.test(sql)) assert.equal(rest, whole, `seed ${seed}: text lost`);
    }
  });

  it("is linear in the length of the text", () => {
    const insert = `insert into t values ('${"x;".repeat(1_000_000)}');`;
    const sql = insert + "select 1;\n".repeat(50_000);
    const startedAt = performance.now();
    assert.equal(splitStatements(sql).length, 50_001);
    assert.ok(performance.now() - startedAt < 2_000);
  });
});

/** A small deterministic generator (mulberry32), so that a failing seed can be run again. */
function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return (mixed ^ (mixed >>> 14)) >>> 0;
  };
}
