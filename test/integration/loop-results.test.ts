// Results of a large loop as later steps read them: one of them costs its neighbours, not all.
import { strict as assert } from "node:assert";
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

describe("results of a loop", function () {
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

  it("are read by literal and computed index, from either end, and counted", async () => {
    const { status, result } = await node.run(PLAYBOOK);
    assert.equal(status, "COMPLETED");
    assert.deepEqual(result, { square: 2017 ** 2, count: 2500, broken: 1500, none: true });
  });
});
