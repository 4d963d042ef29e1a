// Whatever happens in random worlds, the database proves the log that they leave.
import { strict as assert } from "node:assert";
import pg from "pg";
import type { StoredEvent } from "../../schemas/events.ts";
import { rebuildRow } from "../../services/projection/projector.ts";
import { playWorld } from "../support/chaos-worlds.ts";
import { EXECUTION_ID } from "../support/execution-play.ts";
import { testDatabase, type TestDatabase } from "../support/postgres.ts";

const SEEDS = Number(process.env["NOETL_TEST_SEEDS"] ?? 150);

describe(`the logs of ${SEEDS} random worlds`, function () {
  this.timeout(120_000);
  let database: TestDatabase;
  let client: pg.Client;
  before(async () => {
    database = await testDatabase({ migrated: true });
    client = new pg.Client(database.direct);
    await client.connect();
  });
  after(async () => {
    await client.end();
    await database.drop();
  });

  /** What is found wrong with a log and its row that lie in the tables; nothing stays there. */
  async function faultsOf(log: StoredEvent[]): Promise<string[]> {
    await client.query("begin");
    try {
      await write(client, log);
      const { rows } = await client.query<{ line: string }>(
        `select rule || ': ' || subject || ': ' || detail as line
         from noetl.verify_execution($1) where not ok`,
        [EXECUTION_ID],
      );
      return rows.map(row => row.line);
    } finally {
      await client.query("rollback");
    }
  }

  it("are proved, and none of them when one of its outcomes is changed", async () => {
    const met = { frames: 0, failed: 0, expired: 0, released: 0, cancelled: 0, not_run: 0 };
    for (let seed = 1; seed <= SEEDS; seed += 1) {
      const { play } = playWorld(seed);
      assert.deepEqual(await faultsOf(play.log), [], `seed ${seed}`);
      met.frames += play.all("frame.committed").length;
      met.failed += play.all("command.failed").length;
      met.expired += play.all("command.expired").length;
      met.released += play.all("command.released").length;
      met.cancelled += play.all("execution.cancelled").length;
      met.not_run += play.all("loop.done").filter(one => one.meta.stats.not_run > 0).length;
      const forged = structuredClone(play.log);
      const outcome = forged.findLast(event => "digest" in event.meta && "attempt" in event.meta);
      if (!outcome) continue;
      outcome.result = { ...outcome.result, context: "another" };
      const faults = await faultsOf(forged);
      assert.ok(
        faults.some(fault => fault.startsWith("digest: ")),
        `seed ${seed}: ${faults.join()}`,
      );
    }
    // Worlds in which nothing went wrong would prove nothing.
    for (const [what, count] of Object.entries(met))
      assert.ok(count > SEEDS / 50, `${what} ${count}`);
  });
});

async function write(client: pg.Client, log: StoredEvent[]): Promise<void> {
  await client.query(
    `insert into noetl.event (execution_id, stream_id, version, event_id, event_type, node_name,
                              meta, context, result, created_at)
     select execution_id, stream_id, version, event_id, event_type, node_name,
            meta, context, result, to_timestamp(at / 1000)
     from json_to_recordset($1::json) as e(
       execution_id bigint, stream_id bigint, version integer, event_id bigint, event_type text,
       node_name text, meta jsonb, context jsonb, result jsonb, at double precision)`,
    [JSON.stringify(log)],
  );
  await client.query(
    `insert into noetl.stream (stream_id, execution_id, kind, version, status)
     select stream_id, execution_id,
            case when stream_id = execution_id then 'executions' else 'loops' end,
            max(version), 'ended'
     from noetl.event where execution_id = $1 group by stream_id, execution_id`,
    [EXECUTION_ID],
  );
  await client.query(
    `insert into noetl.execution (execution_id, path, playbook_version, hash, status,
                                  last_event_type, start_time, state, version)
     select execution_id, path, playbook_version, hash, status,
            last_event_type, now(), state, version
     from json_to_record($1::json) as r(
       execution_id bigint, path text, playbook_version integer, hash text, status text,
       last_event_type text, state jsonb, version integer)`,
    [JSON.stringify(rebuildRow(log))],
  );
}
