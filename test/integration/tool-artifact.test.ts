// The artifact tool: what a step has kept elsewhere is loaded again by its reference.
import { strict as assert } from "node:assert";
import { startNode, type TestNode } from "../support/node.ts";
import { testDatabase, type TestDatabase } from "../support/postgres.ts";
import { TOOL_COMMAND } from "../support/tool-command.ts";

const PLAYBOOK = `
apiVersion: noetl.io/v2
kind: Playbook
metadata: { name: artifact }
workload: { rows: [], ref: "" }
workflow:
  - step: start
    tool:
      - { name: make, kind: noop, result: { status: ok, rows: "{{ rows }}" } }
    next: { arcs: [{ step: load }] }
  - step: load
    tool:
      kind: artifact
      action: get
      input: { result_ref: "{{ ref or start._ref }}" }
    next: { arcs: [{ step: end }] }
  - step: end
    tool:
      kind: noop
      result:
        rows: "{{ load.rows | length }}"
        same: "{{ load.make.rows == rows }}"
        status: "{{ load.status }}"
        store: "{{ start._store }}"
        preview: "{{ start._preview }}"
`;

describe("tool.artifact", function () {
  this.timeout(30_000);
  let store: TestDatabase;
  let node: TestNode;
  const rows = Array.from({ length: 2_000 }, (_, id) => ({ id, name: `row ${id}` }));

  before(async () => {
    store = await testDatabase({ migrated: true });
    node = await startNode({ url: store.url });
  });
  after(async () => {
    await node.stop();
    await store.drop();
  });

  it("gives the whole result that a step's _ref names", async () => {
    const { status, result, error } = await node.run(PLAYBOOK, { rows });
    assert.equal(status, "COMPLETED", JSON.stringify(error));
    assert.deepEqual(result, {
      ...{ rows: 2_000, same: true, status: "ok", store: "postgres", preview: { status: "ok" } },
    });
  });

  it("gives a value that is no reference as it is", async () => {
    const { data } = await node.call<{ data: unknown }>("tool.artifact.run", {
      ...request({ result_ref: { rows: [1] } }),
    });
    assert.deepEqual(data, { rows: [1] });
  });

  it("fails for what is kept no longer, for nothing, and for another action", async () => {
    const gone = await node.run(PLAYBOOK, { ref: "noetl://execution/1/result/start/1-1-1-00" });
    assert.deepEqual([gone.status, gone.error?.["kind"]], ["FAILED", "missing_reference"]);
    const none = await node.call<{ error: { message: string } }>("tool.artifact.run", request({}));
    assert.match(none.error.message, /^result_ref: it is empty/);
    const put = { ...request({}), config: { action: "put" } };
    const refused = await node.call<{ error: { message: string } }>("tool.artifact.run", put);
    assert.match(refused.error.message, /^action: 'put' is not supported/);
    const elsewhere = request({ result_ref: "noetl://catalog/x@1#0" });
    const other = await node.call<{ error: { kind: string } }>("tool.artifact.run", elsewhere);
    assert.equal(other.error.kind, "config");
  });
});

function request(input: object): object {
  return { input, command: TOOL_COMMAND };
}
