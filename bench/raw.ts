// The bare work: three indexed event rows an item, written as fast as one process can group them.
import type { Database } from "../mixins/postgres/index.ts";
import type { IdSource } from "../schemas/ids.ts";

/** Items of one statement: what a wide window of a loop writes at once. */
const ITEMS_PER_STATEMENT = 64;
const STATEMENTS_IN_FLIGHT = 2;

const TYPES = ["command.issued", "command.claimed", "command.completed"];

/**
 * Writes `items` × 3 rows into noetl.event with all its guards and indexes, and no engine at all.
 */
export async function rawInserts(database: Database, ids: IdSource, items: number): Promise<void> {
  const execution = ids.next();
  let next = 0;
  async function writer(): Promise<void> {
    while (next < items) {
      const first = next;
      next = Math.min(items, next + ITEMS_PER_STATEMENT);
      await database.query(
        `insert into noetl.event
           (execution_id, stream_id, version, event_id, event_type, node_name, meta)
         select * from json_to_recordset($1::json) as e(
           execution_id bigint, stream_id bigint, version integer, event_id bigint, event_type text,
           node_name text, meta jsonb)`,
        [JSON.stringify(rowsOf(execution, ids, first, next))],
      );
    }
  }
  await Promise.all(Array.from({ length: STATEMENTS_IN_FLIGHT }, writer));
}

function rowsOf(execution: string, ids: IdSource, from: number, to: number): object[] {
  const rows: object[] = [];
  for (let item = from; item < to; item += 1) {
    for (const [place, event_type] of TYPES.entries()) {
      const version = item * TYPES.length + place + 1;
      const command_id = `${execution}:many:1:${item}:1`;
      const meta = { command_id, step: "many", activation: 1, attempt: 1, loop_id: execution };
      rows.push({
        execution_id: execution,
        stream_id: execution,
        version,
        event_id: ids.next(),
        event_type,
        node_name: "many",
        meta: { ...meta, iter_index: item, delivery: 1, worker_id: "bench" },
      });
    }
  }
  return rows;
}
