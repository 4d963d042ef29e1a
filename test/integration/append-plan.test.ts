// How an append finds its streams: by their key, though its plan is as old as its connection.
import { strict as assert } from "node:assert";
import { readFile } from "node:fs/promises";
import { appendEvents, type StreamAppend } from "../../mixins/postgres/event.ts";
import { openDatabase, type Database, type Query } from "../../mixins/postgres/index.ts";
import { testDatabase, type TestDatabase } from "../support/postgres.ts";

const MANY = 5_000;
/** What an append of two streams reads of them: to lock and check them, and to write them. */
const OWN_MAX = 6;
/** After so many the plan is kept. */
const APPENDS = 10;
const EXECUTION = 1_000_000;

function noting(stream: number, expected: number): StreamAppend {
  const id = String(stream);
  const event_id = String(stream * 100 + expected);
  const meta = { command_id: id, chunk_index: expected };
  const events = [{ event_type: "call.partial" as const, event_id, meta }];
  const more = { kind: "loops", ended: false, owner: "test", wake_at: 4_000_000_000_000 };
  return { stream_id: id, execution_id: String(EXECUTION), expected, events, ...more };
}

/** Rows of streams that this transaction has read so far, in whatever way. */
async function rowsPassed(query: Query): Promise<number> {
  const { rows } = await query.query<{ passed: string }>(
    `select seq_tup_read + idx_tup_fetch as passed from pg_stat_xact_user_tables
     where schemaname = 'noetl' and relname = 'stream'`,
  );
  return Number(rows[0]?.passed);
}

describe("an append", function () {
  this.timeout(60_000);
  let target: TestDatabase;
  let database: Database;
  beforeEach(async () => {
    target = await testDatabase({ migrated: true });
    database = openDatabase({ url: target.url, size: 1 });
  });
  afterEach(async () => {
    await database.close();
    await target.drop();
  });

  /** Rows that an append passes by, with a plan that was made when there were few. */
  function passedOnOldPlan(text?: string): Promise<number> {
    return database.transaction(async query => {
      if (text !== undefined) await query.query(text);
      for (let stream = 1; stream <= APPENDS; stream += 1) {
        await appendEvents(query, [noting(stream, 0)]);
        await appendEvents(query, [noting(stream, 1)]);
      }
      await query.query(
        `insert into noetl.stream (stream_id, execution_id, kind, version)
         select n, $1, 'loops', 1 from generate_series(1000, $2) n`,
        [EXECUTION, 999 + MANY],
      );
      const before = await rowsPassed(query);
      const { accepted } = await appendEvents(query, [noting(1, 2), noting(1_000, 1)]);
      assert.equal(accepted.size, 2);
      return (await rowsPassed(query)) - before;
    });
  }

  it("looks its streams up by their key, though they were few when its plan was made", async () => {
    assert.ok((await passedOnOldPlan()) <= OWN_MAX);
  });

  it("does so where the planner has counted them", async () => {
    assert.ok((await passedOnOldPlan("analyze noetl.stream")) <= OWN_MAX);
  });

  it("sabotage: one that may choose reads them all", async () => {
    const file = new URL(
      "../../mixins/postgres/migrations/0007_cursor_frames.sql",
      import.meta.url,
    );
    const text = await readFile(file, "utf8");
    const [before = ""] = text.slice(text.indexOf("create or replace function")).split("\n\n");
    assert.ok((await passedOnOldPlan(before)) >= MANY);
  });
});
