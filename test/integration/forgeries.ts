// Forgeries of an execution's rows, each with what its proof must say of it.
import { digestOf, digestText } from "../../schemas/loop-digest.ts";

import { FANOUT_FORGERIES } from "./fanout-forgeries.ts";
import {
  of,
  OWN,
  one,
  set,
  DONE,
  FRAME,
  copy,
  gapAfter,
  closeGap,
  type Forge,
} from "../support/forging.ts";

/** Each forges rows, and what must be said of it. */
export const FORGERIES: [string, Forge, RegExp][] = [
  [
    "a command has a second terminal",
    async sql => {
      await sql("drop index noetl.uidx_event_command_terminal");
      await sql(copy(DONE, "'command.failed', e.node_name, e.meta"));
    },
    /^commands: command .*: has 2 terminals/,
  ],
  [
    "a terminal is missing",
    sql => sql(`delete from noetl.event where ${one(DONE)}`),
    /^commands: .* has no terminal, and its stream has ended/,
  ],
  [
    "an item is missing",
    sql => sql(`delete from noetl.event where ${one(DONE)}`),
    /^counts: loop .* of each: the log has 29 succeeded and 0 failed of 30; loop.done says/,
  ],
  [
    "a version is missing",
    sql => sql(`delete from noetl.event where ${one(DONE)}`),
    /^versions: stream .*: \d+ facts lie between version 1 and \d+/,
  ],
  [
    "the last fact is missing",
    sql => sql(`delete from noetl.event where ${one(OWN, "version desc")}`),
    /^versions: stream .*: its facts end at version \d+, its head says \d+/,
  ],
  [
    "a version was moved",
    sql => sql(`update noetl.event set version = 900 where ${one(DONE)}`),
    /^versions: stream .* lie between version 1 and 900/,
  ],
  [
    "a command was never issued",
    sql =>
      sql(
        `delete from noetl.event where ${one(`${of("each")} and event_type = 'command.issued'`)}`,
      ),
    /^commands: command .*: was never issued/,
  ],
  [
    "a command is issued twice",
    async sql => {
      await sql("drop index noetl.uidx_event_command_issued_command_id");
      await sql(
        copy(
          `${of("each")} and event_type = 'command.issued'`,
          "e.event_type, e.node_name, e.meta",
        ),
      );
    },
    /^commands: command .*: is issued 2 times/,
  ],
  [
    "a command has another's name",
    sql => sql(set(`${DONE} and meta->>'iter_index' = '3'`, "iter_index", 33)),
    /^names: command \d+:each:1:3:1: command.completed of version \d+ says \d+:…:1:33:1/,
  ],
  [
    "a result was changed",
    sql =>
      sql(`update noetl.event set result = '{"status": "ok", "context": 1}' where ${one(DONE)}`),
    /^digest: loop \d+ of each, item \d+: version \d+ says \w{32}, its stored result gives \w{32}$/,
  ],
  [
    "a frame's result was changed",
    sql =>
      sql(
        `update noetl.event set result = jsonb_set(result, '{context,ok,0}', '7')
         where ${one(FRAME)}`,
      ),
    /^digest: loop \d+ of framed, item \d+: version \d+ says/,
  ],
  [
    "an attempt was changed",
    sql => sql(set(DONE, "attempt", 2)),
    /^digest: loop \d+ of each, item/,
  ],
  [
    "an item of a frame is said to have failed",
    sql =>
      sql(
        `update noetl.event
         set meta = meta || jsonb_build_object('ok', '', 'failed', meta->'ok')
         where ${one(FRAME)}`,
      ),
    /^digest: loop \d+ of framed, item/,
  ],
  [
    "a result was changed together with its digest",
    sql => {
      const result = { status: "ok" as const, context: 1 };
      const digest = digestText(digestOf({ attempt: 1, result, ok: [3], failed: [] }));
      return sql(
        `update noetl.event
         set result = $2::jsonb, meta = meta || jsonb_build_object('digest', $3::text)
       where ${DONE} and meta->>'iter_index' = '3'`,
        [JSON.stringify(result), digest],
      );
    },
    /^digest: loop \d+ of each: loop.done says [0-9a-f]{32}, the log gives [0-9a-f]{32}/,
  ],
  [
    "an item is accepted twice",
    sql => sql(set(`${DONE} and meta->>'iter_index' = '3'`, "iter_index", 1)),
    /^items: loop \d+: item 1 of version \d+ was accepted before/,
  ],
  [
    "a frame accepts what it does not carry",
    sql => sql(set(FRAME, "ok", "300-301")),
    /^items: loop \d+ of framed: version \d+ accepts items 300 to 301 of a command that carries/,
  ],
  [
    "counts are wrong",
    sql =>
      sql(
        set(`${of("framed")} and event_type = 'loop.done'`, "stats", {
          total: 300,
          success: 299,
          failed: 1,
          not_run: 0,
        }),
      ),
    /^counts: loop \d+ of framed: the log has 300 succeeded and 0 failed .* says .*299/,
  ],
  [
    "a loop ends ok with items that did not run",
    async sql => {
      await sql(`delete from noetl.event where ${one(DONE)}`);
      await sql(
        set(`${of("each")} and event_type = 'loop.done'`, "stats", {
          total: 30,
          success: 29,
          failed: 0,
          not_run: 1,
        }),
      );
    },
    /^counts: loop \d+ of each/,
  ],
  [
    "a loop is done twice",
    async sql => {
      await sql("drop index noetl.uidx_event_loop_done_loop_id");
      await sql(
        copy(`${of("each")} and event_type = 'loop.done'`, "e.event_type, e.node_name, e.meta"),
      );
    },
    /^loops: loop \d+ of each: has 2 × loop.done/,
  ],
  [
    "a loop is not done",
    sql => sql(`delete from noetl.event where ${of("each")} and event_type = 'loop.done'`),
    /^loops: loop \d+ of each: is not done, and its execution has ended/,
  ],
  [
    "a loop never began",
    sql => sql(`delete from noetl.event where ${of("each")}`),
    /^loops: loop \d+ of each: was entered and never began/,
  ],
  [
    "a loop was not left",
    sql =>
      sql(
        `delete from noetl.event where ${OWN} and event_type = 'step.exit' and node_name = 'each'`,
      ),
    /^loops: loop \d+ of each: is entered 1 times and left 0 times/,
  ],
  ...FANOUT_FORGERIES,
  [
    "an outcome is of an old delivery",
    sql => sql(set(DONE, "delivery", 0)),
    /^fence: command .*: command.completed of .* is of delivery 0 by .*, who did not hold/,
  ],
  [
    "an outcome is another worker's",
    sql => sql(set(DONE, "worker_id", "zombie")),
    /^fence: .* is of delivery 1 by zombie, who did not hold it then/,
  ],
  [
    "a claim skips a delivery",
    sql => sql(set(`${of("each")} and event_type = 'command.claimed'`, "delivery", 3)),
    /^fence: command .*: delivery 3 is its claim number 1/,
  ],
  [
    "a command is claimed while it is held",
    async sql => {
      const claim = `${of("each")} and event_type = 'command.claimed'`;
      await sql(gapAfter(claim));
      await sql(
        copy(claim, `e.event_type, e.node_name, e.meta || '{"delivery": 2}'`, "e.version + 1"),
      );
      await sql(closeGap);
    },
    /^fence: command .*: is claimed in version \d+ while another holds it/,
  ],
  [
    "an outcome comes after its command was given back",
    async sql => {
      const claim = `${of("each")} and event_type = 'command.claimed'`;
      await sql(gapAfter(claim));
      await sql(copy(claim, "'command.released', e.node_name, e.meta", "e.version + 1"));
      await sql(closeGap);
    },
    /^fence: command .*: command.completed of version \d+ is of delivery 1 by .*, who did not hold/,
  ],
  [
    "a command is claimed after its stream's cancel",
    async sql => {
      const start = `${of("each")} and event_type = 'loop.started'`;
      await sql(gapAfter(start));
      await sql(copy(start, "'execution.cancel_requested', e.node_name, '{}'", "e.version + 1"));
      await sql(closeGap);
    },
    /^cancel: command .*: command.\w+ of version \d+ follows the cancel of version 2/,
  ],
  [
    "a command is claimed after the end",
    sql =>
      sql(`update noetl.event set tx = pg_current_xact_id(), created_at = now()
         where ${one(`${of("each")} and event_type = 'command.claimed'`)}`),
    /^end: command .*: command.claimed of stream \d+ is later than playbook.completed/,
  ],
  [
    "an execution ends twice",
    async sql => {
      await sql("drop index noetl.uidx_event_execution_terminal");
      await sql(
        copy(
          `${OWN} and event_type = 'playbook.completed'`,
          "'playbook.failed', e.node_name, e.meta",
        ),
      );
    },
    /^terminal: execution \d+: 2 facts end generation \d+: playbook.completed, playbook.failed/,
  ],
  [
    "something follows the end",
    sql =>
      sql(copy(`${OWN} and event_type = 'command.issued'`, "'ctx.updated', e.node_name, '{}'")),
    /^terminal: execution \d+: version \d+ follows the end of version \d+/,
  ],
  [
    "the row is missing",
    sql => sql("delete from noetl.execution where execution_id = $1"),
    /^row: execution \d+: there is no row of it/,
  ],
  [
    "the row says another status",
    sql => sql("update noetl.execution set status = 'FAILED' where execution_id = $1"),
    /^row: execution \d+: the row says FAILED, the log says COMPLETED/,
  ],
  [
    "the row counts other steps",
    sql =>
      sql(
        `update noetl.execution set state = jsonb_set(state, '{counts,steps}', '9')
         where execution_id = $1`,
      ),
    /^row: execution \d+: the row counts 9 steps, the log has 4/,
  ],
  [
    "the row shows other progress",
    sql =>
      sql(
        `update noetl.execution set state = jsonb_set(state, '{loop,each,done}', '4')
         where execution_id = $1`,
      ),
    /^row: loop \d+ of each: loop_progress says 4 done and 0 failed; the log has 30 and 0/,
  ],
  [
    "the row stays behind",
    async sql => {
      await sql(
        `update noetl.event set created_at = created_at - interval '1 minute'
         where execution_id = $1`,
      );
      await sql("update noetl.execution set version = version - 1 where execution_id = $1");
    },
    /^row: execution \d+: the row is at version \d+, the log at \d+/,
  ],
  [
    "an open stream sleeps for ever",
    sql => sql("update noetl.stream set status = 'open', wake_at = null where stream_id = $1"),
    /^wakers: stream \d+: is open, and nothing will wake it/,
  ],
];
