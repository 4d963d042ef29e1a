// Values larger than a NATS message: they travel by reference, and rows stay small.
import { strict as assert } from "node:assert";
import { randomBytes } from "node:crypto";
import { openDatabase, type Database } from "../../mixins/postgres/index.ts";
import { natsServerBinary, startNats, type TestNats } from "../support/nats.ts";
import { startNode, type TestNode } from "../support/node.ts";
import { testDatabase, type TestDatabase } from "../support/postgres.ts";

const ROW_BYTES_MAX = 65_536;

const PLAYBOOK = `
apiVersion: noetl.io/v2
kind: Playbook
metadata: { name: large, path: tests/large }
workload: { blob: "", people: [], small: 7 }
workflow:
  - step: whole
    tool:
      kind: noop
      result: { blob: "{{ workload.blob }}", small: "{{ small }}" }
      spec:
        policy:
          rules:
            - else: { then: { do: continue, set: { ctx.copy: "{{ output.data.blob }}" } } }
    set: { ctx.twice: "{{ copy ~ copy }}" }
    next:
      arcs:
        - when: "{{ ctx.twice | length == 2 * (workload.blob | length) }}"
          step: each
  - step: each
    loop:
      in: "{{ workload.people }}"
      iterator: person
      spec: { mode: parallel, max_in_flight: 8 }
    tool: { kind: noop, result: { name: "{{ person.name }}", size: "{{ copy | length }}" } }
    next: { arcs: [{ step: last }] }
  - step: last
    tool:
      kind: noop
      result:
        first: "{{ people[0].name }}"
        sizes: "{{ [ctx.copy | length, twice | length, whole.blob | length] }}"
        names: "{{ each.results | map(attribute='name') | list | length }}"
`;

describe("values larger than a message", function () {
  this.timeout(60_000);
  let nats: TestNats;
  let database: TestDatabase;
  let store: Database;
  let nodes: TestNode[] = [];

  before(async function () {
    const binary = natsServerBinary();
    if (binary === undefined) {
      process.stdout.write("      skipped: no nats-server (NATS_SERVER_BIN, npm or PATH)\n");
      this.skip();
    }
    nats = await startNats(binary);
    database = await testDatabase({ migrated: true });
    store = openDatabase({ url: database.url, size: 1 });
    const env = {
      NATS_URL: nats.url,
      NOETL_NAMESPACE: `t${randomBytes(4).toString("hex")}`,
      NOETL_ENCRYPTION_KEY: randomBytes(32).toString("base64"),
    };
    const server = { url: database.url, env: { ...env, NOETL_NODE_ID: "large-server" } };
    const worker = { url: database.url, env: { ...env, NOETL_NODE_ID: "large-worker" } };
    // No data folder is shared: what one of them keeps, the other one can read.
    nodes = await Promise.all([
      startNode({ ...server, roles: ["server"] }),
      startNode({ ...worker, roles: ["worker"] }),
    ]);
  });
  after(async () => {
    await Promise.all(nodes.map(node => node.stop()));
    await store?.close();
    await database?.drop();
    await nats?.stop();
  });

  it("reach workers, guards, loops and later steps whole, and no row holds one", async () => {
    const blob = randomBytes(1_000_000).toString("hex");
    const people = Array.from({ length: 60 }, (_, index) => ({
      name: `n${index}`,
      notes: "x".repeat(30_000),
    }));
    const end = await nodes[0]!.run(PLAYBOOK, { blob, people });
    assert.equal(end.status, "COMPLETED", JSON.stringify(end.error));
    const { value } = await nodes[0]!.call<{ value: Record<string, unknown> }>(
      "executions.result",
      {
        execution_id: end.execution_id,
        step: "last",
      },
    );
    const size = blob.length;
    assert.deepEqual(value, { first: "n0", sizes: [size, 2 * size, size], names: 60 });
    const { rows } = await store.query<{ bytes: number; type: string }>(
      `select octet_length(coalesce(context::text, '') || coalesce(result::text, '')) as bytes,
              event_type as type
       from noetl.event where execution_id = $1 order by 1 desc limit 1`,
      [end.execution_id],
    );
    assert.ok(rows[0]!.bytes <= ROW_BYTES_MAX, `${rows[0]!.type} has ${rows[0]!.bytes} bytes`);
  });
});
