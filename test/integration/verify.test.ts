// noetl verify: a real log proves what it says, and each forgery of its rows is named.
import { strict as assert } from "node:assert";
import pg from "pg";
import type { Verification } from "../../services/executions/verify.ts";
import { digestOf, digestText } from "../../schemas/loop-digest.ts";
import { ask, until } from "../support/actors.ts";
import { provenFaults } from "../support/log-checker.ts";
import { startNode, type TestNode } from "../support/node.ts";
import { testDatabase, type TestDatabase } from "../support/postgres.ts";

const PLAYBOOK = `apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: proof, path: test/proof}
workflow:
  - step: framed
    loop: {in: "{{ 300 }}", iterator: i, spec: {mode: parallel, max_in_flight: 4}}
    tool: {kind: noop}
    next: {arcs: [{step: each}]}
  - step: each
    loop:
      in: "{{ 30 }}"
      iterator: i
      spec: {mode: parallel, max_in_flight: 2, policy: {exec: distributed}}
    tool: {kind: noop}
    next: {arcs: [{step: end}]}
  - step: end
    tool: {kind: noop}
`;

interface Found {
  rule: string;
  subject: string;
  ok: boolean;
  detail: string;
}

/** A forger's hands: statements inside one transaction, `$1` is the execution. */
type Forge = (sql: (text: string, values?: unknown[]) => Promise<Found[]>) => Promise<unknown>;

/** Rows of one loop by its step, or of the execution itself. */
const of = (step: string) => `execution_id = $1 and stream_id <> $1 and node_name = '${step}'`;
const OWN = "execution_id = $1 and stream_id = $1";
const one = (where: string, order = "version") =>
  `(execution_id, stream_id, version) in (select execution_id, stream_id, version
     from noetl.event where ${where} order by ${order} limit 1)`;
const set = (where: string, key: string, value: unknown) =>
  `update noetl.event set meta = meta || '${JSON.stringify({ [key]: value })}' where ${one(where)}`;
const DONE = `${of("each")} and event_type = 'command.completed'`;
const FRAME = `${of("framed")} and event_type = 'frame.committed'`;

/** One more fact, a copy of another with changes: after the last one of its stream. */
const copy = (where: string, more: string, version = "h.version") =>
  `with e as (select * from noetl.event where ${one(where)}), h as (
     update noetl.stream s set version = s.version + 1 from e where s.stream_id = e.stream_id
     returning s.stream_id, s.version
   )
   insert into noetl.event
     (execution_id, stream_id, version, event_id, event_type, node_name, meta, context, result)
   select e.execution_id, e.stream_id, ${version}, 1, ${more}, e.context, e.result from e, h`;

/** Makes room for one more fact after the first that is meant. */
const gapAfter = (where: string) => `with place as (select * from noetl.event where ${one(where)})
  update noetl.event e set version = e.version + 1000000 from place
  where e.stream_id = place.stream_id and e.version > place.version`;
const closeGap = "update noetl.event set version = version - 999999 where version > 999999";

/** Each forges rows, and what must be said of it. */
const FORGERIES: [string, Forge, RegExp][] = [
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
    /^row: execution \d+: the row counts 9 steps, the log has 3/,
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

describe("the proof of an execution", function () {
  this.timeout(60_000);
  let database: TestDatabase;
  let node: TestNode;
  let id: string;

  before(async () => {
    database = await testDatabase({ migrated: true });
    node = await startNode({ url: database.url });
    const { status, execution_id } = await node.run(PLAYBOOK);
    assert.equal(status, "COMPLETED");
    id = execution_id;
    await until(async () => (await provenFaults(database.url, id)).length === 0);
  });
  after(async () => {
    await node.stop();
    await database.drop();
  });

  /** What is found when this was forged; nothing of it stays. */
  async function forged(forge: Forge): Promise<Found[]> {
    const client = new pg.Client(database.direct);
    await client.connect();
    try {
      await client.query("begin");
      await forge(async (text, values = []) => {
        // Statements that name no execution take no parameters.
        const given = text.includes("$1") ? [id, ...values] : [];
        const { rows, rowCount, command } = await client.query<Found>(text, given);
        assert.ok(command === "DROP" || (rowCount ?? 0) > 0, `it forges nothing: ${text}`);
        return rows;
      });
      const { rows } = await client.query<Found>("select * from noetl.verify_execution($1)", [id]);
      return rows;
    } finally {
      await client.query("rollback");
      await client.end();
    }
  }

  it("holds for a real log, one line a rule", async () => {
    const report = await node.call<{ ok: boolean; checks: Found[] }>("executions.verify", {
      execution_id: id,
    });
    assert.deepEqual(
      report.checks.filter(check => !check.ok),
      [],
    );
    assert.equal(report.ok, true);
    const rules = report.checks.map(check => check.rule);
    assert.equal(new Set(rules).size, rules.length);
    const named = new Set(FORGERIES.map(([, , said]) => /^\^(\w+)/.exec(said.source)?.[1]));
    assert.deepEqual([...named].sort(), rules.toSorted(), "each rule has a forgery");
  });

  for (const [what, forge, said] of FORGERIES) {
    it(`says so when ${what}`, async () => {
      const found = await forged(forge);
      const faults = found.filter(({ ok }) => !ok);
      const lines = faults.map(({ rule, subject, detail }) => `${rule}: ${subject}: ${detail}`);
      assert.ok(
        lines.some(line => said.test(line)),
        `it says ${JSON.stringify(lines, null, 1)}`,
      );
      const broken = new Set(faults.map(fault => fault.rule));
      assert.ok(
        found.every(({ rule, ok }) => !ok || !broken.has(rule)),
        "a broken rule is not said to hold",
      );
    });
  }

  it("says at most twenty of a rule, and how many more", async () => {
    const found = await forged(sql =>
      sql(`update noetl.event set meta = meta || '{"digest": "00"}' where ${DONE}`),
    );
    const digests = found.filter(({ rule }) => rule === "digest");
    assert.equal(digests.length, 20);
    assert.match(digests.at(-1)?.detail ?? "", / \(and \d+ more\)$/);
  });

  it("holds for loops of an older build, and says that they have no digest", async () => {
    const found = await forged(sql =>
      sql(`update noetl.event set meta = meta - 'digest' where ${of("each")}`),
    );
    assert.ok(found.every(({ ok }) => ok));
    const digest = found.find(({ rule }) => rule === "digest");
    assert.match(
      digest?.detail ?? "",
      /1 equal to the stored results; 1 of an older build, with no digest/,
    );
  });

  it("gives a row that follows the log a few seconds", async () => {
    const found = await forged(async sql => {
      await sql("update noetl.event set created_at = now() where execution_id = $1");
      await sql("update noetl.execution set version = version - 1 where execution_id = $1");
    });
    assert.match(
      found.find(({ rule }) => rule === "row")?.detail ?? "",
      /^on its way: version \d+ of \d+$/,
    );
  });

  it("holds at every moment of a run", async () => {
    const playbook = PLAYBOOK.replace("{{ 300 }}", "{{ 4000 }}").replace("{{ 30 }}", "{{ 400 }}");
    const started = await node.call<{ execution_id: string }>("executions.start", { playbook });
    const seen = new Map<string, number>();
    for (let status = ""; status !== "COMPLETED"; seen.set(status, (seen.get(status) ?? 0) + 1)) {
      const report = await node.call<Verification>("executions.verify", {
        execution_id: started.execution_id,
      });
      const faults = report.checks.filter(check => !check.ok);
      assert.deepEqual(faults, [], `after ${JSON.stringify([...seen])}`);
      status = report.status ?? "";
    }
    assert.ok((seen.get("RUNNING") ?? 0) > 2, JSON.stringify([...seen]));
  });

  it("is unknown for an id that nothing is known of", async () => {
    const asked = node.call("executions.verify", { execution_id: "77" });
    await assert.rejects(asked, { type: "REJECTED", code: 404 });
    const [row] = await ask<Found>(database.url, "select * from noetl.verify_execution(77)");
    assert.deepEqual({ rule: row?.rule, ok: row?.ok }, { rule: "known", ok: false });
  });
});
