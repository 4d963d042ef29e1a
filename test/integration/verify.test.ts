// noetl verify: a real log proves what it says, and each forgery of its rows is named.
import { strict as assert } from "node:assert";
import pg from "pg";
import type { Verification } from "../../services/executions/verify.ts";
import { ask, until } from "../support/actors.ts";
import { provenFaults } from "../support/log-checker.ts";
import { FORGERIES } from "./forgeries.ts";
import { DONE, of, type Forge, type Found } from "../support/forging.ts";
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
    next: {arcs: [{step: fanned}]}
  - step: fanned
    spec: {loop_mode: fanout, fanout: {max_in_flight: 4, max_shard_retries: 1}}
    loop: {in: "{{ 20 }}", iterator: i}
    tool: {kind: noop, spec: {policy: {rules: [{when: "{{ i == 3 }}", then: {do: fail}}]}}}
    next: {arcs: [{step: end, when: "{{ fanin.status == 'partial' }}"}]}
  - step: end
    tool: {kind: noop}
`;

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
      /2 equal to the stored results; 1 of an older build, with no digest/,
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
