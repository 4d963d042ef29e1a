// The doors of actors: whatever a node of the namespace sends, only what is bad in it is refused.
import { strict as assert } from "node:assert";
import { ServiceBroker } from "moleculer";
import { actorActions, type Reply } from "../../mixins/actor-service.ts";
import { createIngest } from "../../mixins/ingest.ts";
import { createEventStore, type StreamName } from "../../mixins/event-store.ts";
import { JSON_DEPTH_MAX } from "../../mixins/json-size.ts";
import { BATCH_MAX } from "../../schemas/actor-requests.ts";
import type { Grant } from "../../schemas/frozen-scope.ts";
import { executionMachine } from "../../services/executions/machine.ts";
import {
  ask,
  headOf,
  logOf,
  newStream,
  startProcess,
  until,
  type TestHost,
  type TestProcess,
} from "../support/actors.ts";
import {
  claimant,
  claimItem,
  itemOf,
  loopHost,
  OK,
  startLoop,
  startOf,
  type LoopHost,
} from "../support/loop-scene.ts";
import { testDatabase, type TestDatabase } from "../support/postgres.ts";

type Replies = Reply<{ grant?: Grant }>[];

/** What nobody could ever do something with, as an entry of a batch. */
const TRASH: unknown[] = [
  null,
  5,
  "x",
  [],
  {},
  { execution_id: "abc", stream_id: "1", command_id: "c" },
  { execution_id: "1", stream_id: "99999999999999999999", command_id: "c" },
  { execution_id: "1", stream_id: { $ne: 1 }, command_id: "c" },
  { execution_id: "1", stream_id: "0", command_id: ["c"], delivery: {}, worker_id: 5, result: 5 },
];

describe("the doors of actors", function () {
  this.timeout(30_000);
  let database: TestDatabase;
  let one: TestProcess;
  let loops: LoopHost;
  let executions: TestHost<never, { grant?: Grant }, unknown>;
  let broker: ServiceBroker;
  before(async () => {
    database = await testDatabase({ migrated: true });
    one = await startProcess(database.url);
    loops = loopHost(one);
    executions = one.host({ machine: executionMachine, kind: "executions" });
    broker = new ServiceBroker({ logger: false, registry: { stopDelay: 0 } });
    const ingest = createIngest(BATCH_MAX);
    broker.createService({ name: "loops", actions: actorActions(() => loops, { ingest }) });
    broker.createService({
      name: "executions",
      actions: actorActions(() => executions, { ingest }),
    });
    await broker.start();
  });
  after(async () => {
    await broker.stop();
    await one.stop();
    await database.drop();
  });

  const claims = (service: string, entries: unknown[]): Promise<Replies> =>
    broker.call(`${service}.claim`, { ...claimant(), claims: entries });
  const claimOf = (stream: StreamName, index = 0) => {
    return { ...stream, command_id: itemOf(stream, index) };
  };
  const outcomeOf = (stream: StreamName, index: number, result: unknown = OK) => {
    return { ...claimOf(stream, index), delivery: 1, worker_id: "w", result };
  };
  const statuses = (replies: Replies) =>
    replies.map(reply => (reply.status === "refused" ? reply.reason : reply.status));

  it("a bad claim among good ones is refused by name, and spoils none", async () => {
    const streams = [await startLoop(one, loops), await startLoop(one, loops)];
    const good = streams.map(stream => claimOf(stream));
    const replies = await claims("loops", [good[0], ...TRASH, good[1]]);
    const bad = TRASH.map(() => "malformed");
    assert.deepEqual(statuses(replies), ["ok", ...bad, "ok"]);
    const messages = replies.flatMap(reply => (reply.status === "refused" ? reply.message : []));
    assert.match(messages[1] ?? "", /^Entry 2 is refused/);
    assert.match(messages[5] ?? "", /execution_id: this cannot be used; expected an id/);
  });

  it("a bad outcome or release among good ones is refused by name, and spoils none", async () => {
    const stream = await startLoop(one, loops);
    await Promise.all([claimItem(loops, stream, 0), claimItem(loops, stream, 1)]);
    const outcomes = [
      outcomeOf(stream, 0),
      ...TRASH,
      outcomeOf(stream, 1, { status: "ok", error: 5 }),
      outcomeOf(stream, 1),
    ];
    const reported = await broker.call<Replies, object>("loops.report", { outcomes });
    const bad = TRASH.map(() => "malformed");
    assert.deepEqual(statuses(reported), ["ok", ...bad, "malformed", "ok"]);
    await claimItem(loops, stream, 2);
    const release = { ...claimOf(stream, 2), delivery: 1, worker_id: "w" };
    const releases = [...TRASH, release];
    const released = await broker.call<Replies, object>("loops.release", { releases });
    assert.deepEqual(statuses(released), [...bad, "ok"]);
    const woken = await broker.call("loops.wake", { streams: [...TRASH, stream] });
    assert.deepEqual(woken, { woken: 1 });
  });

  it("a batch that is none, or too large, is refused whole, naming the field", async () => {
    const many = Array(BATCH_MAX + 1).fill({});
    const bad: [string, unknown, RegExp][] = [
      ["claim", { ...claimant(), claims: many }, /claims.*at most 1000/],
      ["claim", { ...claimant(), claims: "all" }, /claims.*expected a list/],
      ["claim", { ...claimant(), worker_id: "", claims: [] }, /worker_id.*expected a name/],
      ["claim", { claims: [] }, /worker_id: this is missing/],
      ["report", { outcomes: many }, /outcomes.*at most 1000/],
      ["report", null, /outcomes: this is missing/],
      ["report", [], /expected/],
      ["release", { releases: null }, /releases/],
      ["wake", 5, /expected/],
    ];
    for (const [action, params, message] of bad) {
      for (const service of ["loops", "executions"]) {
        const call = broker.call(`${service}.${action}`, params as object);
        await assert.rejects(call, { type: "REJECTED", code: 422, message }, action);
      }
    }
  });

  /** Nothing that was asked may leave something behind. */
  async function leavesNothing(work: () => Promise<void>): Promise<void> {
    const look = async () => ({
      heads: await ask(database.url, "select * from noetl.stream order by stream_id"),
      events: await ask(database.url, "select count(*) from noetl.event"),
      mailboxes: [loops.size(), executions.size()],
    });
    const before = await look();
    await work();
    assert.deepEqual(await look(), before);
  }

  it("what is asked of a stream that there is not is refused, and leaves no mailbox", () =>
    leavesNothing(async () => {
      const stream = newStream(one);
      const before = [loops.counters.loads, executions.counters.loads];
      for (const service of ["loops", "executions"]) {
        assert.deepEqual(statuses(await claims(service, [claimOf(stream)])), ["unknown"]);
        const outcomes = [outcomeOf(stream, 0)];
        const reported = await broker.call<Replies, object>(`${service}.report`, { outcomes });
        assert.deepEqual(statuses(reported), ["unknown"]);
      }
      await broker.call("loops.wake", { streams: [stream] });
      await assert.rejects(executions.send(stream, { type: "describe" } as never), { code: 404 });
      const loads = [loops.counters.loads, executions.counters.loads];
      assert.ok(loads[0]! > before[0]! && loads[1]! > before[1]!, "there were mailboxes");
    }));

  it("who only waits for what there is not leaves no mailbox either", () =>
    leavesNothing(async () => {
      const stop = executions.watch(newStream(one), () => undefined);
      assert.equal(executions.size(), 1);
      stop();
    }));

  it("a stream of another kind or another execution is refused and left in peace", async () => {
    const stream = await startLoop(one, loops);
    // The snapshot of a loop is no execution: nobody may look into it as such.
    const { version } = (await headOf(database.url, stream)) ?? { version: 0 };
    await one.store.writeSnapshot(stream.stream_id, version, { status: "running", open: 5 });
    const { stream_id } = stream;
    const elsewhere = { execution_id: one.ids.next(), stream_id };
    const itself = { execution_id: stream_id, stream_id };
    await leavesNothing(async () => {
      for (let times = 0; times < 4; times += 1) {
        for (const name of [elsewhere, itself, stream]) {
          const replies = await claims("executions", [claimOf(name)]);
          assert.deepEqual(statuses(replies), ["unknown"]);
        }
        for (const name of [elsewhere, itself]) {
          assert.deepEqual(statuses(await claims("loops", [claimOf(name)])), ["unknown"]);
          const refused = { type: "REJECTED", code: 404 };
          await assert.rejects(loops.send(name, startOf(name, ["x"])), refused);
        }
      }
    });
    assert.deepEqual(statuses(await claims("loops", [claimOf(stream)])), ["ok"]);
  });

  it("a start under the name of a stream of another kind is refused at once", async () => {
    const stream = newStream(one);
    const ledger = one.ledger({ kind: "executions" });
    await ledger.send(stream, { type: "add", id: "x" });
    const since = performance.now();
    await assert.rejects(loops.send(stream, startOf(stream, ["x"])), { code: 404 });
    const took = performance.now() - since;
    assert.ok(took < 2_000, `${took} ms`);
    assert.equal((await headOf(database.url, stream))?.version, 1);
  });

  it("an outcome that is nested too deeply is refused, and spoils none", async () => {
    const stream = await startLoop(one, loops);
    await Promise.all([claimItem(loops, stream, 0), claimItem(loops, stream, 1)]);
    const deep = (levels: number): unknown => JSON.parse("[".repeat(levels) + "]".repeat(levels));
    const outcomes = [
      outcomeOf(stream, 0, { status: "ok", context: deep(JSON_DEPTH_MAX) }),
      outcomeOf(stream, 0, { status: "ok", context: deep(100_000) }),
      { ...outcomeOf(stream, 0), ctx: { a: deep(6_000) } },
      outcomeOf(stream, 0, { status: "ok", context: deep(1_024) }),
      outcomeOf(stream, 1),
    ];
    const replies = await broker.call<Replies, object>("loops.report", { outcomes });
    const bad = ["malformed", "malformed", "malformed"];
    assert.deepEqual(statuses(replies), [...bad, "ok", "ok"]);
    assert.equal((await headOf(database.url, stream))?.failures, 0);
  });

  it("who finds a stream with a megabyte waiting hears Busy, and is taken later", async () => {
    const stream = newStream(one);
    let free = () => {};
    const held = new Promise<void>(resolve => (free = resolve));
    const host = one.ledger({
      store: inner => ({
        ...inner,
        append: append => held.then(() => inner.append(append)),
      }),
    });
    const note = "x".repeat(400_000);
    const add = (id: string) => host.send(stream, { type: "add", id, note });
    const first = add("first");
    await until(() => host.size() === 1);
    await new Promise(resolve => setImmediate(resolve));
    const waiting = [add("second"), add("third")];
    await assert.rejects(add("fourth"), { type: "BUSY", code: 429 });
    free();
    await Promise.all([first, ...waiting]);
    assert.equal((await add("fourth")).size, 4);
  });

  it("of many appends one that no serializer can write is refused alone", async () => {
    const store = createEventStore(one.database, one.clock);
    const deep: unknown = JSON.parse("[".repeat(50_000) + "]".repeat(50_000));
    const streams = Array.from({ length: 30 }, () => newStream(one));
    const outcomes = await Promise.all(
      streams.map((stream, index) =>
        store.append({
          ...stream,
          kind: "loops",
          expected: 0,
          ended: false,
          owner: "test",
          wake_at: one.clock.now() + 60_000,
          events: [
            {
              event_id: one.ids.next(),
              event_type: "call.partial",
              meta: { command_id: `${index}`, chunk_index: 0 },
              ...(index === 17 && { context: { deep } as never }),
            },
          ],
        }),
      ),
    );
    const ends = outcomes.map(outcome => outcome.status);
    assert.deepEqual(
      ends,
      streams.map((_stream, index) => (index === 17 ? "refused" : "committed")),
    );
    assert.equal((await logOf(database.url, streams[0]!)).length, 1);
  });
});
