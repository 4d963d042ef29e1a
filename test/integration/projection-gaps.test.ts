// Hints that are lost, doubled and out of order, while the log's watermark stands still: what is
// missing before a hint is read from the log, so the row is right all the same.
import { strict as assert } from "node:assert";
import { isDeepStrictEqual } from "node:util";
import pg from "pg";
import { readExecution } from "../../mixins/postgres/event.ts";
import { readExecutions } from "../../mixins/postgres/execution.ts";
import { openDatabase, type Database } from "../../mixins/postgres/index.ts";
import { createRuntime } from "../../mixins/runtime.ts";
import { loadSettings } from "../../schemas/env.ts";
import type { StoredEvent } from "../../schemas/events.ts";
import { foldable, newestOf } from "../../services/projection/fold.ts";
import { ProjectionKeeper } from "../../services/projection/keeper.ts";
import { rebuildRow } from "../../services/projection/projector.ts";
import { ask, until } from "../support/actors.ts";
import { chance, type Chance } from "../support/chance.ts";
import { startNode, type TestNode } from "../support/node.ts";
import { HEAD } from "../support/playbook-samples.ts";
import { testDatabase, type TestDatabase } from "../support/postgres.ts";

const TWO_LOOPS = `${HEAD}workload: {count: 12}
workflow:
  - step: first
    loop:
      in: "{{ workload.count }}"
      iterator: item
      spec: {mode: parallel, max_in_flight: 16, policy: {exec: distributed}}
    tool: {kind: noop}
    next: {arcs: [{step: second}]}
  - step: second
    loop: {in: 5, iterator: item, spec: {mode: parallel, max_in_flight: 2}}
    tool: {kind: noop}
    set: {ctx.round: "{{ (ctx.round or 0) + 1 }}"}
    next: {arcs: [{step: second, when: "{{ ctx.round < 2 }}"}, {step: last}]}
  - {step: last, tool: {kind: noop, result: {done: true}}}
`;

/** Nothing here is kept elsewhere. */
const nothing = () => Promise.reject(new Error());
const results = { put: nothing, get: nothing, find: nothing };
const silent = { info() {}, warn() {}, error() {}, debug() {}, trace() {}, fatal() {} } as never;
const RUNS = 8;
/** What is looked at here is what is shown in the end, not how soon (projection-nodes). */
const SHOWN_MS = 3_000;

describe("hints over a log whose watermark stands still", function () {
  this.timeout(60_000);
  let database: TestDatabase;
  let sessions: Database;
  let node: TestNode;
  let slow: pg.Client;
  let keepers = 0;

  before(async () => {
    database = await testDatabase({ migrated: true });
    sessions = openDatabase({ url: database.url, size: 6 });
    node = await startNode({ url: database.url, roles: ["client", "worker"] });
    slow = new pg.Client(database.url);
    await slow.connect();
    await slow.query("begin");
    await slow.query("select pg_current_xact_id()");
  });
  after(async () => {
    await slow.end();
    await node.stop();
    await sessions.close();
    await database.drop();
  });

  /** A run that is over, of which its row knows nothing: nobody keeps the projection yet. */
  async function run(payload: object = {}): Promise<StoredEvent[]> {
    const request = { playbook: TWO_LOOPS, payload };
    const { execution_id } = await node.call<{ execution_id: string }>("executions.start", request);
    await until(async () => {
      const over = `select 1 from noetl.event where execution_id = $1
                    and event_type = 'playbook.completed'`;
      return (await ask(database.url, over, [execution_id])).length > 0;
    }, 20_000);
    const [row] = await readExecutions(sessions, [execution_id]);
    assert.deepEqual([row?.status, row?.version], ["RUNNING", 0]);
    return readExecution(sessions, execution_id);
  }

  async function keeping<T>(
    store: Database,
    work: (keeper: ProjectionKeeper) => Promise<T>,
  ): Promise<T> {
    const nodeId = `keeper-${(keepers += 1)}`;
    const settings = loadSettings({});
    const runtime = await createRuntime({ settings, nodeId, database: store, results });
    const keeper = new ProjectionKeeper(runtime, silent, { push() {}, take: () => [] });
    keeper.start();
    try {
      await until(() => keeper.holds);
      return await work(keeper);
    } finally {
      await keeper.stop();
    }
  }

  async function assertShown(log: StoredEvent[]): Promise<void> {
    const wanted = rebuildRow(log);
    assert.equal(wanted?.status, "COMPLETED");
    const shown = async () => (await readExecutions(sessions, [log[0]!.execution_id]))[0];
    await until(async () => isDeepStrictEqual(await shown(), wanted), SHOWN_MS).catch(
      () => undefined,
    );
    assert.deepEqual(await shown(), wanted);
  }

  /** Of each stream the last is there; of the others some are missing, some come twice. */
  function mangled(log: StoredEvent[], luck: Chance): StoredEvent[][] {
    const last = new Set(newestOf(log));
    const hints = log.flatMap(event => {
      const roll = luck.between(1, 100);
      if (roll <= 40 && !last.has(event)) return [];
      return roll > 80 ? [event, event] : [event];
    });
    for (let index = hints.length - 1; index > 0; index -= 1) {
      const other = luck.between(0, index);
      [hints[index], hints[other]] = [hints[other]!, hints[index]!];
    }
    const batches: StoredEvent[][] = [];
    while (hints.length > 0) batches.push(hints.splice(0, luck.between(1, 12)).map(foldable));
    return batches;
  }

  async function disordered(store: Database): Promise<void> {
    const luck = chance("disordered hints");
    const logs = await Promise.all(Array.from({ length: RUNS }, () => run()));
    await keeping(store, async keeper => {
      for (const log of logs) {
        const answers = mangled(log, luck).map(batch => keeper.take(batch));
        for (const { taken } of await Promise.all(answers)) assert.ok(taken);
      }
      for (const log of logs) await assertShown(log);
      assert.ok(keeper.counters.early > 0, "nothing was out of order");
    });
  }

  it("rows are right from hints that are lost, doubled and out of order", () =>
    disordered(sessions));

  it("sabotage: where the log is not asked for what is missing they stay behind", () =>
    assert.rejects(
      disordered({
        ...sessions,
        async query(text, values) {
          if (text.includes(") missing limit")) return { rows: [], rowCount: 0 };
          return sessions.query(text, values);
        },
      }),
      { name: "AssertionError" },
    ));

  it("the last fact of each stream is enough, also where thousands are missing", async () => {
    const log = await run({ count: 800 });
    assert.ok(log.length > 1_600);
    await keeping(sessions, async keeper => {
      assert.deepEqual(await keeper.take(newestOf(log).map(foldable)), { taken: true });
      await assertShown(log);
    });
  });

  it("a hint of what the log does not hold changes nothing", async () => {
    const log = await run();
    const end = log.find(event => event.event_type === "playbook.completed")!;
    await keeping(sessions, async keeper => {
      await keeper.take(log.map(foldable));
      await keeper.take([{ ...end, version: end.version + 3, event_id: "1" }]);
      await assertShown(log);
    });
  });

  it("a keeper that could not write what it was told does so later, and says so", async () => {
    const log = await run();
    let failures = 2;
    const failing: Database = {
      ...sessions,
      async query(text, values) {
        if (text.includes("insert into noetl.execution as x") && failures > 0) {
          failures -= 1;
          throw Object.assign(new Error("away"), { type: "UNAVAILABLE" });
        }
        return sessions.query(text, values);
      },
    };
    await keeping(failing, async keeper => {
      assert.deepEqual(await keeper.take(log.map(foldable)), { taken: false });
      await until(async () => {
        const [row] = await readExecutions(sessions, [log[0]!.execution_id]);
        return row?.status === "COMPLETED";
      });
      assert.equal(failures, 0);
      await assertShown(log);
    });
  });

  it("who does not keep the rows says so at once", async () => {
    await keeping(sessions, async () => {
      const options = { settings: loadSettings({}), nodeId: "late", database: sessions, results };
      const late = new ProjectionKeeper(await createRuntime(options), silent, {
        push() {},
        take: () => [],
      });
      late.start();
      assert.deepEqual(await late.take([]), { taken: false });
      await late.stop();
    });
  });
});
