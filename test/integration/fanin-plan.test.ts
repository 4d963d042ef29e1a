// How the database counts a fan-in: by its index, among many other facts of the same execution.
import { strict as assert } from "node:assert";
import pg from "pg";
import { idAtTime } from "../../schemas/ids.ts";
import { ask } from "../support/actors.ts";
import { testDatabase, type TestDatabase } from "../support/postgres.ts";

/** Fan-outs of one execution, and facts of each: a scan of all of them would lose. */
const LOOPS = 60;
const SHARDS = 400;
const ONE = "7";

/** The count of rows (S-117), and the set of shards (S-177) as the proof has it. */
const ROWS = `select count(*) filter (where event_type = 'loop.shard.done'),
       count(*) filter (where event_type = 'loop.shard.failed')
  from noetl.event
  where meta ? 'loop_id' and execution_id = $1 and meta->>'loop_id' = $2
    and event_type in ('loop.shard.done', 'loop.shard.failed')`;

describe("the count of a fan-in", function () {
  this.timeout(60_000);
  let database: TestDatabase;
  let id: string;

  before(async () => {
    database = await testDatabase({ migrated: true });
    id = idAtTime(Date.now());
    await ask(
      database.url,
      `insert into noetl.event (execution_id, stream_id, version, event_id, event_type, meta)
       select $1, $1::bigint + loop, shard * 3 + fact, 1,
              (array['command.issued', 'command.claimed', 'loop.shard.done'])[fact + 1],
              jsonb_build_object('loop_id', loop::text, 'shard_id', shard::text,
                                 'command_id', concat_ws(':', $1, loop, shard))
       from generate_series(1, ${LOOPS}) loop, generate_series(1, ${SHARDS}) shard,
            generate_series(0, 2) fact`,
      [id],
    );
    // Told again, as only a log without its guard could: of a set it changes nothing.
    await ask(
      database.url,
      `insert into noetl.event (execution_id, stream_id, version, event_id, event_type, meta)
       select $1, $1::bigint + ${ONE}, 100000 + n, 1, 'loop.shard.failed',
              jsonb_build_object('loop_id', '${ONE}', 'shard_id', n::text, 'command_id', 'x' || n)
       from generate_series(1, 3) n`,
      [id],
    );
    await ask(database.url, "analyze noetl.event");
  });
  after(() => database.drop());

  /** What `noetl.fanin_counts` runs, with its arguments as parameters. */
  async function setQuery(): Promise<string> {
    const [found] = await ask<{ body: string }>(
      database.url,
      "select prosrc as body from pg_proc where oid = 'noetl.fanin_counts'::regproc",
    );
    const body = found?.body ?? "";
    assert.match(body, /distinct on/);
    return body.replace("= id ", "= $1 ").replace("= loop\n", "= $2\n");
  }

  async function planOf(query: string, mode: string): Promise<string> {
    const client = new pg.Client(database.url);
    await client.connect();
    try {
      await client.query(`set plan_cache_mode = ${mode}`);
      await client.query(`prepare counted (bigint, text) as ${query}`);
      const { rows } = await client.query<{ "QUERY PLAN": string }>(
        `explain execute counted (${id}, '${ONE}')`,
      );
      return rows.map(row => row["QUERY PLAN"]).join("\n");
    } finally {
      await client.end();
    }
  }

  async function indexName(): Promise<string> {
    const [index] = await ask<{ name: string }>(
      database.url,
      `select c.relname as name from pg_inherits i
       join pg_class c on c.oid = i.inhrelid
       join pg_index x on x.indexrelid = c.oid
       where i.inhparent = 'noetl.idx_event_loop_id_type'::regclass
         and x.indrelid = (select tableoid from noetl.event where execution_id = $1 limit 1)`,
      [id],
    );
    return index?.name ?? "none";
  }

  for (const [form, query] of [
    ["as rows", () => Promise.resolve(ROWS)],
    ["as a set, as the proof has it", setQuery],
  ] as const) {
    for (const mode of ["force_custom_plan", "force_generic_plan"]) {
      it(`${form}, goes by idx_event_loop_id_type with ${mode}`, async () => {
        const plan = await planOf(await query(), mode);
        assert.match(plan, new RegExp(`\\b${await indexName()}\\b`), plan);
        assert.doesNotMatch(plan, /Seq Scan/, plan);
      });
    }
  }

  it("would not go by it without the clause that its predicate needs", async () => {
    const without = (await setQuery()).replace("e.meta ? 'loop_id' and", "");
    const plan = await planOf(without, "force_custom_plan");
    assert.doesNotMatch(plan, new RegExp(`\\b${await indexName()}\\b`), plan);
  });

  it("is of shards by their last terminal, however often one is told", async () => {
    const counts = await ask(database.url, "select * from noetl.fanin_counts($1, $2)", [id, ONE]);
    assert.deepEqual(counts, [{ succeeded: String(SHARDS - 3), failed: "3" }]);
  });

  it("is what noetl.verify_fanins asks for each fan-out", async () => {
    const [found] = await ask<{ body: string }>(
      database.url,
      "select prosrc as body from pg_proc where oid = 'noetl.verify_fanins'::regproc",
    );
    assert.match(found?.body ?? "", /lateral noetl\.fanin_counts\(id, /);
  });
});
