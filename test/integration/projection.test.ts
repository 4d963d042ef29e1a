// The projection: rows follow from the log alone, hints make that sooner, and one holder writes.
import { strict as assert } from "node:assert";
import pg from "pg";
import type { Grant } from "../../schemas/frozen-scope.ts";
import { loadSettings } from "../../schemas/env.ts";
import { readExecution } from "../../mixins/postgres/event.ts";
import {
  holdShard,
  readExecutions,
  saveCheckpoint,
  writeExecutions,
} from "../../mixins/postgres/execution.ts";
import { followLog, type LogPosition } from "../../mixins/postgres/follow.ts";
import { openDatabase, type Database, type Row } from "../../mixins/postgres/index.ts";
import { createRuntime, type Runtime } from "../../mixins/runtime.ts";
import { ProjectionKeeper } from "../../services/projection/keeper.ts";
import { rebuildRow } from "../../services/projection/projector.ts";
import { ask, newStream, startProcess, until, type TestProcess } from "../support/actors.ts";
import { startNode, type TestNode } from "../support/node.ts";
import { HEAD } from "../support/playbook-samples.ts";
import { testDatabase, type TestDatabase } from "../support/postgres.ts";

const LOOPING = `${HEAD}workload: {count: 5}
workflow:
  - step: each
    loop: {in: "{{ workload.count }}", iterator: item, spec: {mode: parallel, max_in_flight: 3}}
    tool: {kind: noop, result: {n: "{{ iter.item }}"}}
    next: {arcs: [{step: last}]}
  - {step: last, tool: {kind: noop, result: {done: true}}}
`;

const silent = { info() {}, warn() {}, error() {}, debug() {}, trace() {}, fatal() {} } as never;

/** A process that does nothing but keep the projection; nobody hints to it. */
async function keeperOver(database: Database, nodeId: string) {
  const results = {
    put: () => Promise.reject(new Error()),
    find: () => Promise.reject(new Error()),
    get: () => Promise.reject(new Error()),
  };
  const settings = loadSettings({});
  const runtime: Runtime = await createRuntime({ settings, nodeId, database, results });
  const keeper = new ProjectionKeeper(runtime, silent, { push() {}, take: () => [] });
  keeper.start();
  return { keeper, runtime };
}

/** The row as `select *` gives it. */
async function rowOf(url: string, id: string): Promise<Record<string, unknown> | undefined> {
  const [row] = await ask<Record<string, unknown>>(
    url,
    "select * from noetl.execution where execution_id = $1",
    [id],
  );
  return row;
}

interface Shown {
  status: string;
  state: { loop?: Record<string, Record<string, unknown>> };
}

describe("the projection", function () {
  this.timeout(60_000);
  let database: TestDatabase;
  let sessions: Database;
  before(async () => {
    database = await testDatabase({ migrated: true });
    sessions = openDatabase({ url: database.url, size: 6 });
  });
  after(async () => {
    await sessions.close();
    await database.drop();
  });

  /** What the log says the row must be. */
  const folded = async (id: string) => rebuildRow(await readExecution(sessions, id));
  const settled = (id: string) =>
    until(async () => {
      const [row] = await readExecutions(sessions, [id]);
      try {
        assert.deepEqual(row, await folded(id));
        return row;
      } catch {
        return undefined;
      }
    }, 4_000);

  describe("kept by a node", () => {
    let node: TestNode;
    before(async () => {
      node = await startNode({ url: database.url });
    });
    after(() => node.stop());

    it("a wait is given the very row that is read afterwards", async () => {
      const params = { playbook: LOOPING };
      const { execution_id } = await node.call<{ execution_id: string }>(
        "executions.start",
        params,
      );
      const waited = await node.call("executions.wait", { execution_id, timeout_ms: 20_000 });
      const read = await node.call("executions.get", { execution_id });
      assert.equal(JSON.stringify(waited), JSON.stringify(read));
    });

    it("a row that was deleted or spoiled is rebuilt, equal in every column", async () => {
      const { execution_id } = await node.run(LOOPING);
      await settled(execution_id);
      const row = await rowOf(database.url, execution_id);
      assert.equal(row?.["status"], "COMPLETED");
      const spoil =
        "update noetl.execution set path = 'x', state = '{}', version = 1 where execution_id = $1";
      for (const harm of ["delete from noetl.execution where execution_id = $1", spoil]) {
        await ask(database.url, harm, [execution_id]);
        assert.notDeepEqual(await rowOf(database.url, execution_id), row);
        await node.call("projection.rebuild", { execution_id });
        assert.deepEqual(await rowOf(database.url, execution_id), row);
      }
      const unknown = node.call("projection.rebuild", { execution_id: "12345" });
      await assert.rejects(unknown, { type: "REJECTED", code: 404 });
    });
  });

  describe("kept by others than those who decide", () => {
    let node: TestNode;
    before(async () => {
      node = await startNode({ url: database.url, roles: ["client", "worker"] });
    });
    after(() => node.stop());

    /** No hint ever comes: the log alone must do. */
    async function followed(start: boolean, limitMs = 4_000): Promise<void> {
      const { keeper } = start ? await keeperOver(sessions, "follower") : { keeper: undefined };
      try {
        const { execution_id } = await node.call<{ execution_id: string }>("executions.start", {
          playbook: LOOPING,
        });
        const row = await until(async () => {
          const [found] = await readExecutions(sessions, [execution_id]);
          return found?.status === "COMPLETED" && found;
        }, limitMs);
        assert.deepEqual(row, await folded(execution_id));
      } finally {
        await keeper?.stop();
      }
    }

    it("without hints the follower alone brings a row up to date", () => followed(true));

    it("sabotage: without a follower the row stays behind", () =>
      assert.rejects(followed(false, 1_500), /nothing came/));

    it("a keeper that stops hands over at once, and the next goes on where it was", async () => {
      const first = await keeperOver(sessions, "first");
      const shard = "select holder, epoch from noetl.projection_checkpoint where shard = 0";
      const holder = () =>
        ask<{ holder: string; epoch: number }>(database.url, shard).then(rows => rows[0]);
      const before = await until(async () => {
        const row = await holder();
        return row?.holder === "first" && row;
      });
      await first.keeper.stop();
      const second = await keeperOver(sessions, "second");
      const { execution_id } = await node.call<{ execution_id: string }>("executions.start", {
        playbook: LOOPING,
      });
      await until(
        async () => (await readExecutions(sessions, [execution_id]))[0]?.status === "COMPLETED",
      );
      const after = await holder();
      assert.deepEqual([after?.holder, after?.epoch], ["second", before.epoch + 1]);
      await second.keeper.stop();
    });
  });

  /** An old holder does not know that it was replaced; `believed` is the epoch it writes with. */
  async function fencing(believed: (old: number, current: number) => number): Promise<void> {
    const { execution_id } = await startedRow();
    const shard = 7;
    const old = await holdShard(sessions, { shard, holder: "old", leaseMs: -1 });
    const current = await holdShard(sessions, { shard, holder: "new", leaseMs: 60_000 });
    assert.ok(old && current && current.epoch === old.epoch + 1);
    assert.equal(await holdShard(sessions, { shard, holder: "old", leaseMs: 1_000 }), undefined);
    const [row] = await readExecutions(sessions, [execution_id]);
    assert.ok(row);
    const claim = { shard, epoch: believed(old.epoch, current.epoch) };
    assert.equal(await writeExecutions(sessions, claim, [{ ...row, status: "FAILED" }]), false);
    await saveCheckpoint(sessions, claim, { tx: "999999", event_id: "1" });
    assert.deepEqual(await readExecutions(sessions, [execution_id]), [row]);
    const renewed = { shard, holder: "new", leaseMs: 60_000, epoch: current.epoch };
    const kept = await holdShard(sessions, renewed);
    assert.equal(kept?.position.tx, current.position.tx);
    assert.equal(await writeExecutions(sessions, current, [{ ...row, version: 9 }]), true);
  }

  async function startedRow(): Promise<{ execution_id: string }> {
    const [row] = await ask<{ execution_id: string }>(
      database.url,
      `insert into noetl.execution
         (execution_id, path, playbook_version, hash, status, last_event_type, start_time, version)
       values
         ((random() * 1e15)::bigint, 'demo', 1, 'h', 'RUNNING', 'playbook.initialized', now(), 1)
       returning execution_id`,
    );
    return row as { execution_id: string };
  }

  it("a holder that was replaced writes nothing: neither rows nor checkpoint", () =>
    fencing(old => old));

  it("sabotage: without the fence of its epoch it does", () =>
    assert.rejects(
      fencing((_old, current) => current),
      { name: "AssertionError" },
    ));

  it("a rebuild while others are being folded takes nothing from them", async () => {
    const node = await startNode({ url: database.url, roles: ["client"] });
    let armed = () => Promise.resolve();
    const hooked: Database = {
      ...sessions,
      async query(text, values) {
        if (text.includes("from noetl.execution where execution_id = any")) await armed();
        return sessions.query(text, values);
      },
    };
    const { keeper } = await keeperOver(hooked, "rebuilder");
    const start = () =>
      node.call<{ execution_id: string }>("executions.start", { playbook: LOOPING });
    const [spoiled, other] = [await start(), await start()];
    const loop = await until(async () => {
      const row = (await rowOf(database.url, other.execution_id)) as Partial<Shown> | undefined;
      return row?.state?.loop?.["each"];
    });
    let rebuilt: Promise<unknown> = Promise.resolve();
    armed = () => {
      armed = () => Promise.resolve();
      rebuilt = keeper.rebuild(spoiled.execution_id);
      // It may go on now, or only after what is under way; either must be right.
      return Promise.race([rebuilt, until(() => false, 200)]).then(
        () => {},
        () => {},
      );
    };
    const claims = [
      {
        execution_id: other.execution_id,
        stream_id: loop["loop_id"],
        command_id: `${other.execution_id}:each:1:0:1`,
      },
    ];
    await node.call("loops.claim", { worker_id: "w", incarnation: "i", claim_id: "c", claims });
    const { execution_id } = await start();
    for (const id of [execution_id, other.execution_id, spoiled.execution_id]) await settled(id);
    await rebuilt;
    await keeper.stop();
    await node.stop();
  });

  it("a loop's progress is right after each fact of it", async () => {
    const node = await startNode({ url: database.url, roles: ["client"] });
    const { keeper } = await keeperOver(sessions, "progress");
    const { execution_id } = await node.call<{ execution_id: string }>("executions.start", {
      playbook: LOOPING,
      payload: { count: 2 },
    });
    const progress = (wanted: object) =>
      until(async () => {
        const { state } = ((await rowOf(database.url, execution_id)) ?? {}) as Partial<Shown>;
        const loop = state?.loop?.["each"];
        const { total, done, failed, in_flight, completed } = loop ?? {};
        const now = JSON.stringify({ total, done, failed, in_flight, completed });
        return now === JSON.stringify(wanted) && loop;
      });
    const loop = await progress({ total: 2, done: 0, failed: 0, in_flight: 0, completed: false });
    const name = { execution_id, stream_id: loop["loop_id"] as string };
    const worker_id = "by-hand";
    for (let done = 0; done < 2; done += 1) {
      const command_id = `${execution_id}:each:1:${done}:1`;
      const claim = {
        worker_id,
        incarnation: "i",
        claim_id: `c${done}`,
        claims: [{ ...name, command_id }],
      };
      const [reply] = await node.call<{ grant: Grant }[]>("loops.claim", claim);
      assert.equal(reply?.grant.iteration?.index, done);
      await progress({ total: 2, done, failed: 0, in_flight: 1, completed: false });
      const result = { status: "ok", context: null };
      const outcome = { ...name, command_id, delivery: 1, worker_id, result };
      await node.call("loops.report", { outcomes: [outcome] });
      const completed = done === 1;
      await progress({ total: 2, done: done + 1, failed: 0, in_flight: 0, completed });
    }
    await keeper.stop();
    await node.stop();
  });
});

describe("the watermark of the log", function () {
  this.timeout(30_000);
  let database: TestDatabase;
  let one: TestProcess;
  before(async () => {
    database = await testDatabase({ migrated: true });
    one = await startProcess(database.url);
  });
  after(async () => {
    await one.stop();
    await database.drop();
  });

  type Follow = (position: LogPosition) => ReturnType<typeof followLog>;

  /** A transaction takes its number, others commit, it writes and commits last. What was read? */
  async function slowTransaction(follow: Follow): Promise<void> {
    const host = one.ledger();
    const [early, late] = [newStream(one), newStream(one)];
    const read: string[] = [];
    let position: LogPosition = { tx: "0", event_id: "0" };
    async function readAll(): Promise<void> {
      for (;;) {
        const page = await follow(position);
        position = page.position;
        if (page.events.length === 0) return;
        read.push(...page.events.map(event => `${event.stream_id}:${event.version}`));
      }
    }
    await readAll();
    read.length = 0;
    const slow = new pg.Client(database.url);
    await slow.connect();
    await slow.query("begin");
    await slow.query("select pg_current_xact_id()");
    await host.send(late, { type: "start", ids: ["a", "b", "c"] });
    await readAll();
    await slow.query(
      `insert into noetl.event (execution_id, stream_id, version, event_id, event_type, meta)
       values ($1, $1, 1, $2, 'call.partial', '{"command_id": "x", "chunk_index": 0}')`,
      [early.stream_id, one.ids.next()],
    );
    await readAll();
    const held = [...read];
    await slow.query("commit");
    await slow.end();
    await until(async () => {
      await readAll();
      return read.length >= 4;
    }, 1_000);
    const wanted = [
      `${early.stream_id}:1`,
      ...[1, 2, 3].map(version => `${late.stream_id}:${version}`),
    ];
    assert.deepEqual(read, wanted, "everything once, in the order of transactions");
    assert.deepEqual(held, [], "held back while the older transaction was open");
  }

  it("an open older transaction holds the follower back, and nothing is missed", () =>
    slowTransaction(position => followLog(one.database, position, 2)));

  it("sabotage: a follower that reads past the watermark misses its events", () =>
    assert.rejects(
      slowTransaction(async position => {
        const { rows } = await one.database.query<{ tx: string; event_id: string } & Row>(
          `select * from noetl.event where (tx, event_id) > ($1::xid8, $2::bigint)
           order by tx, event_id limit 2`,
          [position.tx, position.event_id],
        );
        const last = rows.at(-1);
        return { events: rows as never, position: last ?? position };
      }),
      /nothing came/,
    ));
});
