// Forgeries of a fan-out's rows, each with what its proof must say of it.
import { copy, of, one, set, type Forge } from "../support/forging.ts";

const FANIN = `${of("fanned")} and event_type = 'loop.fanin.completed'`;
const SHARD = `${of("fanned")} and event_type = 'loop.shard.done'`;

/** Each forges rows, and what must be said of it. */
export const FANOUT_FORGERIES: [string, Forge, RegExp][] = [
  [
    "a fan-in counts a shard that did not succeed",
    sql => sql(set(FANIN, "succeeded", 20)),
    /^fanin: loop \d+ of fanned: the log has 19 succeeded and 1 failed of 20 shards; .* says/,
  ],
  [
    "a fan-in counts attempts instead of shards",
    sql => sql(set(FANIN, "failed", 2)),
    /^fanin: loop \d+ of fanned: the log has 19 succeeded and 1 failed of 20 shards; .* says/,
  ],
  [
    "a fan-in says complete of one that is not",
    sql => sql(set(FANIN, "status", "complete")),
    /^fanin: loop \d+ of fanned: loop.fanin.completed says complete of/,
  ],
  [
    "a fan-out is gathered twice",
    async sql => {
      await sql("drop index noetl.uidx_event_loop_fanin_completed_loop_id");
      await sql(copy(FANIN, "e.event_type, e.node_name, e.meta"));
    },
    /^loops: loop \d+ of fanned: has 2 × loop.done/,
  ],
  [
    "a shard is told twice",
    async sql => {
      await sql("drop index noetl.uidx_event_command_terminal");
      await sql(copy(SHARD, "e.event_type, e.node_name, e.meta"));
    },
    /^fanin: loop \d+ of fanned, shard \d+: has 2 terminals/,
  ],
  [
    "an attempt has another shard's key",
    sql =>
      sql(
        set(
          `${of("fanned")} and event_type = 'command.issued' and meta->>'attempt' = '2'`,
          "iter_key",
          "4",
        ),
      ),
    /^fanin: loop \d+ of fanned, shard 3: has 2 names/,
  ],
  [
    "a lost shard is missing",
    sql =>
      sql(`delete from noetl.event where ${of("fanned")} and event_type = 'loop.shard.failed'`),
    /^counts: loop \d+ of fanned: the log has 19 succeeded and 0 failed of 20;/,
  ],
  [
    "a shard's result was changed",
    sql => sql(`update noetl.event set result = result || '{"context": 7}' where ${one(SHARD)}`),
    /^digest: loop \d+ of fanned, item \d+: version \d+ says/,
  ],
  [
    "a row shows another fan-in",
    sql =>
      sql(
        `update noetl.execution
         set state = jsonb_set(state, '{fanout,fanned,done}', '20') where execution_id = $1`,
      ),
    /^row: loop \d+ of fanned: fanout_progress says 20 done and 1 failed, partial; the log has 19/,
  ],
];
