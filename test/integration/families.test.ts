// Executions with more children than are asked at once: a pause, its end and a cancel reach all.
import { strict as assert } from "node:assert";
import { ask, until } from "../support/actors.ts";
import { startNode, type TestNode } from "../support/node.ts";
import { HEAD } from "../support/playbook-samples.ts";
import { testDatabase, type TestDatabase } from "../support/postgres.ts";

const CHILDREN = 620;
/** Nobody works here: whatever is started stays open. */
const OPEN = `${HEAD}workflow:
  - {step: start, tool: {kind: noop}}
`;

describe(`an execution with ${CHILDREN} open children`, function () {
  this.timeout(60_000);
  let database: TestDatabase;
  let node: TestNode;
  let parent: string;

  before(async () => {
    database = await testDatabase({ migrated: true });
    node = await startNode({ url: database.url, roles: ["server"] });
    parent = await start({});
    const many = Array.from({ length: CHILDREN }, () => start({ parent_execution_id: parent }));
    await Promise.all(many);
  });
  after(async () => {
    await node.stop();
    await database.drop();
  });

  async function start(more: object): Promise<string> {
    const params = { playbook: OPEN, ...more };
    return (await node.call<{ execution_id: string }>("executions.start", params)).execution_id;
  }

  /** How many children have this status, once all of them have it. */
  async function allAre(status: string): Promise<void> {
    const text = `select count(*)::integer as n from noetl.execution
                  where parent_execution_id = $1 and status = $2`;
    let n = 0;
    await until(async () => {
      [{ n } = { n: 0 }] = await ask<{ n: number }>(database.url, text, [parent, status]);
      return n === CHILDREN;
    }, 20_000).catch(() => undefined);
    assert.equal(n, CHILDREN, `${n} are ${status}`);
  }

  const request = (verb: string) => node.call(`executions.${verb}`, { execution_id: parent });
  const isNow = (status: string) =>
    until(async () => {
      const view = await node.call<{ status: string }>("executions.get", { execution_id: parent });
      return view.status === status;
    }, 20_000);

  it("is paused with all of them", async () => {
    await request("pause");
    await isNow("PAUSED");
    await allAre("PAUSED");
  });

  it("goes on with all of them", async () => {
    await request("resume");
    await isNow("RUNNING");
    await allAre("RUNNING");
  });

  it("is cancelled with all of them", async () => {
    await request("cancel");
    await isNow("CANCELLED");
    await allAre("CANCELLED");
  });
});
