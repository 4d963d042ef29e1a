// Loops in the log: what their rows are, and their results as later steps read them.
import { strict as assert } from "node:assert";
import { ask } from "../support/actors.ts";
import { startNode, type TestNode } from "../support/node.ts";
import { testDatabase, type TestDatabase } from "../support/postgres.ts";

const PLAYBOOK = `apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: many, path: test/many}
workload: {at: 2017, broken: 1500}
workflow:
  - step: each
    loop: {in: "{{ 2500 }}", iterator: i, spec: {mode: parallel, max_in_flight: 8,
      tolerated_failure_count: 1}}
    tool:
      - {name: take, kind: noop, result: {n: "{{ i }}", square: "{{ i * i }}"}}
      - name: check
        kind: noop
        result: {n: "{{ i }}", square: "{{ i * i }}"}
        spec:
          policy:
            rules:
              - {when: "{{ i == broken }}", then: {do: fail}}
              - else: {then: {do: continue}}
    next: {arcs: [{step: pick, when: "{{ each.results[-1].n == 2499 }}"}]}
  - step: pick
    tool:
      kind: noop
      result:
        square: "{{ each.results[at].square }}"
        count: "{{ each.results | length }}"
        broken: "{{ each.failures[0].index }}"
        none: "{{ each.data[broken] is none }}"
`;

const countingTo = (n: number, exec: string) => `apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: count, path: test/count}
workflow:
  - step: each
    loop: {in: "{{ ${n} }}", iterator: i, spec: {mode: parallel, max_in_flight: 8,
      policy: {exec: ${exec}}}}
    tool: {kind: noop}
`;

describe("a loop in the log", function () {
  this.timeout(60_000);
  let database: TestDatabase;
  let node: TestNode;

  before(async () => {
    database = await testDatabase({ migrated: true });
    node = await startNode({ url: database.url });
  });
  after(async () => {
    await node.stop();
    await database.drop();
  });

  interface Rows {
    rows: number;
    commands: number;
    flushes: number;
  }

  /** Rows of the loop's stream without its begin and its end. */
  async function rowsOf(playbook: string): Promise<Rows> {
    const { status, execution_id } = await node.run(playbook);
    assert.equal(status, "COMPLETED");
    const [found] = await ask<Rows>(
      database.url,
      `select (count(*) filter (where event_type not like 'loop.%'))::integer as rows,
              (count(*) filter (where event_type = 'command.issued'))::integer as commands,
              (count(*) filter (where event_type = 'frame.committed'
                                  and not (meta->>'final')::boolean))::integer as flushes
       from noetl.event where execution_id = $1 and stream_id <> $1`,
      [execution_id],
    );
    return found as Rows;
  }

  it("costs at most 3 rows an item when each is a command", async () => {
    const { rows, commands } = await rowsOf(countingTo(500, "distributed"));
    assert.equal(commands, 500);
    assert.ok(rows <= 3 * 500, `${rows} rows`);
    assert.ok(rows >= 2 * 500, `${rows} rows: an item has its command and its end`);
  });

  it("costs at most 3 rows a frame, and one more for each flush", async () => {
    const { rows, commands, flushes } = await rowsOf(countingTo(5_000, "local"));
    assert.ok(commands < 1_000, `${commands} commands: nothing was framed`);
    assert.ok(rows <= 3 * commands + flushes, `${rows} rows of ${commands} frames`);
  });

  it("has results that are read by any index, from either end, and counted", async () => {
    const { status, result } = await node.run(PLAYBOOK);
    assert.equal(status, "COMPLETED");
    assert.deepEqual(result, { square: 2017 ** 2, count: 2500, broken: 1500, none: true });
  });
});
