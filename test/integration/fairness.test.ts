// A long loop must not keep a short run waiting: counted in frames that went before its steps,
// because times say little on a busy machine.
import { strict as assert } from "node:assert";
import { ask, until } from "../support/actors.ts";
import { startNode, type TestNode } from "../support/node.ts";
import { testNodes, type TestNodes } from "../support/nodes.ts";
import { HEAD } from "../support/playbook-samples.ts";
import { testDatabase, type TestDatabase } from "../support/postgres.ts";

/** Items of the long loop: it must last for as long as is measured. */
const ITEMS = 100_000;
const WINDOW = 64;
const RUNS = 9;
/** Slots of a worker that is told nothing else. */
const SLOTS = 8;

const SHORT = `${HEAD}workflow:
  - {step: one, tool: {kind: noop}, next: {arcs: [{step: two}]}}
  - {step: two, tool: {kind: noop}, next: {arcs: [{step: three}]}}
  - {step: three, tool: {kind: noop}}
`;

const LONG = `apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: long, path: demo/long}
workflow:
  - step: many
    loop: {in: ${ITEMS}, iterator: i, spec: {mode: parallel, max_in_flight: ${WINDOW}}}
    tool: {kind: noop}
`;

/** Frames of the loop that were claimed while a step of the run waited for its claim. */
const BEFORE = `
  with steps as (
    select i.created_at as issued, coalesce(min(c.created_at), i.created_at) as claimed
    from noetl.event i
    left join noetl.event c on c.execution_id = i.execution_id
      and c.event_type = 'command.claimed' and c.meta->>'command_id' = i.meta->>'command_id'
    where i.execution_id = $1 and i.event_type = 'command.issued'
    group by i.event_id, i.created_at
  )
  select count(*)::integer as n from noetl.event f
  where f.execution_id = $2 and f.meta ? 'claim_id'
    and exists (select 1 from steps where f.created_at > issued and f.created_at < claimed)`;

const middle = (numbers: number[]) =>
  numbers.sort((one, other) => one - other)[Math.floor(numbers.length / 2)] as number;

describe("a three-step execution beside a long loop", function () {
  this.timeout(120_000);

  async function times(node: TestNode): Promise<{ ms: number; ids: string[] }> {
    const taken: number[] = [];
    const ids: string[] = [];
    for (let run = 0; run < RUNS; run += 1) {
      const begun = performance.now();
      const view = await node.run(SHORT);
      assert.equal(view.status, "COMPLETED");
      taken.push(performance.now() - begun);
      ids.push(view.execution_id);
    }
    return { ms: middle(taken), ids };
  }

  async function assertFair(node: TestNode, url: string): Promise<void> {
    await times(node);
    const idle = await times(node);
    const { execution_id } = await node.call<{ execution_id: string }>("executions.start", {
      playbook: LONG,
    });
    const started = `select count(*)::integer as n from noetl.event
                     where execution_id = $1 and event_type = 'frame.committed'`;
    await until(
      async () => ((await ask<{ n: number }>(url, started, [execution_id]))[0]?.n ?? 0) > 50,
    );
    const busy = await times(node);
    const { status } = await node.call<{ status: string }>("executions.get", { execution_id });
    assert.equal(status, "RUNNING", "the loop was over too soon");
    await node.call("executions.cancel", { execution_id });
    const counts = busy.ids.map(async id => {
      const [row] = await ask<{ n: number }>(url, BEFORE, [id, execution_id]);
      return row?.n ?? 0;
    });
    const before = middle(await Promise.all(counts));
    const took = `${busy.ms.toFixed(0)} ms, ${idle.ms.toFixed(0)} ms idle`;
    const told = `${before} frames went before it; ${took}`;
    process.stdout.write(`      ${told}\n`);
    assert.ok(before <= 2 * SLOTS, told);
  }

  it("waits for no more frames than there are slots, in one process", async () => {
    const database: TestDatabase = await testDatabase({ migrated: true });
    const node = await startNode({ url: database.url });
    await assertFair(node, database.url);
    await node.stop();
    await database.drop();
  });

  it("waits for no more frames than there are slots, over NATS", async function () {
    const nodes: TestNodes | undefined = await testNodes();
    if (!nodes) return this.skip();
    const server = await nodes.start({ roles: ["server"] });
    await nodes.start({ roles: ["worker"] });
    await nodes.acquainted();
    await assertFair(server, nodes.database.url);
    await nodes.close();
  });
});
