// The event store (design §5): grouped appends that nothing tears, doubles or blocks.
import { strict as assert } from "node:assert";
import pg from "pg";
import type { AppendOutcome, EventStore, StreamName } from "../../mixins/event-store.ts";
import { createEventStore } from "../../mixins/event-store.ts";
import { errorType } from "../../schemas/errors.ts";
import type { StreamAppend } from "../../mixins/postgres/event.ts";
import { isRepeatable, openDatabase } from "../../mixins/postgres/index.ts";
import { listParked } from "../../mixins/postgres/stream.ts";
import {
  ask,
  headOf,
  logOf,
  newStream,
  seeded,
  startProcess,
  until,
  wakeNow,
  type TestProcess,
} from "../support/actors.ts";
import { testDatabase, type TestDatabase } from "../support/postgres.ts";
import { startProxy, type TcpProxy } from "../support/tcp-proxy.ts";

const ISSUED_GUARD = "uidx_event_command_issued_command_id";

function noting(
  process: TestProcess,
  stream: StreamName,
  expected: number,
  count = 1,
): StreamAppend {
  const events = Array.from({ length: count }, (_, index) => ({
    event_type: "call.partial" as const,
    event_id: process.ids.next(),
    meta: { command_id: `${expected + index}`, chunk_index: index },
  }));
  const wake_at = process.clock.now() + 30_000;
  return { ...stream, kind: "loops", expected, events, wake_at, ended: false, owner: "test" };
}

describe("the event store", function () {
  this.timeout(60_000);
  let database: TestDatabase;
  let one: TestProcess;
  let two: TestProcess;
  before(async () => {
    database = await testDatabase({ migrated: true });
    one = await startProcess(database.url);
    two = await startProcess(database.url);
  });
  after(async () => {
    await one.stop();
    await two.stop();
    await database.drop();
  });

  it("appends of many streams made at once are one statement", async () => {
    const before = { ...one.store.counters };
    const appends = Array.from({ length: 100 }, () => noting(one, newStream(one), 0));
    const outcomes = await Promise.all(appends.map(append => one.store.append(append)));
    assert.ok(outcomes.every(outcome => outcome.status === "committed"));
    assert.equal(one.store.counters.statements - before.statements, 1);
    assert.equal(one.store.counters.appends - before.appends, 100);
  });

  it("a statement has a limit of streams and of events", async () => {
    const count = () => one.store.counters.statements;
    let before = count();
    const many = Array.from({ length: 600 }, () => noting(one, newStream(one), 0));
    await Promise.all(many.map(append => one.store.append(append)));
    assert.equal(count() - before, 3, "600 streams, 256 a statement");
    before = count();
    const long = Array.from({ length: 3 }, () => noting(one, newStream(one), 0, 1_900));
    await Promise.all(long.map(append => one.store.append(append)));
    assert.equal(count() - before, 2, "3 × 1,900 events, 4,000 a statement");
  });

  /** One of fifty streams appends what a guard refuses. */
  async function refusedInGroup(url: string): Promise<void> {
    const process = await startProcess(url);
    try {
      const host = process.ledger();
      const first = newStream(process);
      const guilty = { execution_id: first.execution_id, stream_id: process.ids.next() };
      const innocent = Array.from({ length: 49 }, () => newStream(process));
      const all = [guilty, ...innocent];
      await host.send(first, { type: "issue", command_id: "taken" });
      await Promise.all(all.map(stream => host.send(stream, { type: "add", id: "x" })));
      const before = process.store.counters.refused;
      const ends = await Promise.allSettled(
        all.map(stream => host.send(stream, { type: "issue", command_id: "taken" })),
      );
      assert.equal(process.store.counters.refused - before, 2, "once more on a fresh state");
      const lost = ends.flatMap((end, index) => (end.status === "rejected" ? [all[index]] : []));
      assert.deepEqual(lost, [guilty]);
      for (const stream of innocent) assert.equal((await headOf(url, stream))?.version, 2);
      const parked = await listParked(process.database, 10);
      assert.deepEqual(
        parked.map(({ stream_id, failures }) => ({ stream_id, failures })),
        [{ stream_id: guilty.stream_id, failures: 1 }],
      );
      assert.match(parked[0]?.last_error ?? "", /duplicate key value violates unique constraint/);
    } finally {
      await process.stop();
    }
  }

  it("of fifty streams one that a guard refuses is parked and named; the others commit", () =>
    refusedInGroup(database.url));

  it("sabotage: without the guard nobody refuses it", async () => {
    const open = await testDatabase({ migrated: true });
    await ask(open.url, `drop index noetl.${ISSUED_GUARD}`);
    await assert.rejects(refusedInGroup(open.url), { name: "AssertionError" });
    await open.drop();
  });

  it("a row that Postgres cannot index refuses its own stream only", async () => {
    const random = seeded(7);
    const name = Array.from({ length: 9_000 }, () => random().toString(36)[3]).join("");
    const host = one.ledger();
    const [guilty, innocent] = [newStream(one), newStream(one)];
    await host.send(guilty, { type: "add", id: "x" });
    await host.send(innocent, { type: "add", id: "a" });
    const [refused, fine] = await Promise.allSettled([
      host.send(guilty, { type: "issue", command_id: name }),
      host.send(innocent, { type: "add", id: "x" }),
    ]);
    assert.deepEqual([refused.status, fine.status], ["rejected", "fulfilled"]);
    assert.equal((await headOf(database.url, guilty))?.failures, 1);
  });

  it("NUL and lone surrogates in JSON park nothing: they are stored as U+FFFD", async () => {
    const host = one.ledger();
    const stream = newStream(one);
    const note = {
      nul: "a\u0000b",
      lone: "\ud800 and \udfff",
      "k\u0000ey": 1,
      pair: "\ud83d\ude00",
      literal: "\\u0000 \\ud800",
    };
    await host.send(stream, { type: "add", id: "x", note });
    const [row] = await logOf(database.url, stream);
    assert.deepEqual(row?.context, {
      note: {
        nul: "a\ufffdb",
        lone: "\ufffd and \ufffd",
        "k\ufffdey": 1,
        pair: "\ud83d\ude00",
        literal: "\\u0000 \\ud800",
      },
    });
    assert.equal((await headOf(database.url, stream))?.failures, 0);
    const raw = ask(database.url, "select $1::jsonb", [JSON.stringify(note)]);
    await assert.rejects(raw, { code: "22P05" }, "sabotage: unchanged it is refused");
  });

  it("a pool of one connection is enough", async () => {
    const small = await startProcess(database.url, { size: 1 });
    const host = small.ledger({ mustProve: () => true });
    const streams = Array.from({ length: 50 }, () => newStream(small));
    await Promise.all(streams.map(stream => host.send(stream, { type: "start", ids: ["a", "b"] })));
    const adds = streams.flatMap(stream =>
      ["c", "d", "e"].map(id => host.send(stream, { type: "add", id })),
    );
    await Promise.all([...adds, ...streams.map(stream => host.send(stream, { type: "wake" }))]);
    const heir = small.ledger();
    const answers = await Promise.all(
      streams.map(stream => heir.send(stream, { type: "add", id: "f" })),
    );
    assert.ok(answers.every(answer => answer.size === 6));
    assert.ok(small.database.stats().total <= 1);
    await small.stop();
  });

  it("a server that says nothing is Unavailable, in a statement and in a transaction", async () => {
    const proxy = await startProxy(Number(new URL(database.url).port));
    const options = {
      url: proxy.through(database.url),
      size: 2,
      connectTimeoutMs: 300,
      queryTimeoutMs: 300,
    };
    const sessions = openDatabase(options);
    const silence = (work: () => Promise<unknown>) =>
      assert.rejects(work(), (error: Error) => {
        assert.equal(errorType(error), "UNAVAILABLE", error.message);
        return true;
      });
    const since = performance.now();
    await silence(() =>
      sessions.transaction(async query => {
        await query.query("select 1");
        proxy.blackhole();
        await query.query("select 2");
      }),
    );
    await silence(() => sessions.query("select 3"));
    const took = performance.now() - since;
    assert.ok(took < 800, `each gives up after its own limit and holds nothing: ${took} ms`);
    proxy.heal();
    assert.equal((await sessions.query("select 4")).rowCount, 1);
    await sessions.close();
    await proxy.close();
  });

  it("deadlocks and serialization failures are repeated: no caller hears of them", async () => {
    const codes = ["40P01", "40001", "40P01"];
    const store = createEventStore(
      {
        ...one.database,
        query(text, values) {
          const code = codes.pop();
          return code
            ? Promise.reject(Object.assign(new Error(code), { code }))
            : one.database.query(text, values);
        },
      },
      one.clock,
    );
    assert.equal((await store.append(noting(one, newStream(one), 0))).status, "committed");
    assert.equal(store.counters.repeats, 3);
  });

  it("a real deadlock with a stranger is survived", async () => {
    const streams = [newStream(one), newStream(one)].toSorted((a, b) =>
      Number(BigInt(a.stream_id) - BigInt(b.stream_id)),
    );
    await Promise.all(streams.map(stream => one.store.append(noting(one, stream, 0))));
    const stranger = new pg.Client(database.url);
    await stranger.connect();
    const lock = (stream?: StreamName) =>
      stranger.query("select 1 from noetl.stream where stream_id = $1 for update", [
        stream?.stream_id,
      ]);
    // The stranger looks for deadlocks late, so that the store's statement is the victim.
    await stranger.query("begin; set local deadlock_timeout = '20s'");
    await lock(streams[1]);
    const before = one.store.counters.repeats;
    const appended = Promise.all(streams.map(stream => one.store.append(noting(one, stream, 1))));
    await until(async () => {
      const waiting = "select 1 from pg_locks where not granted and locktype = 'transactionid'";
      return (await ask(database.url, waiting)).length > 0;
    });
    await lock(streams[0]);
    await stranger.query("commit");
    await stranger.end();
    assert.deepEqual(
      (await appended).map(outcome => outcome.status),
      ["committed", "committed"],
    );
    assert.ok(one.store.counters.repeats > before);
  });

  /** Two processes append to the same streams, one in one order and one in the other. */
  async function crossed(
    append: (process: TestProcess, appends: StreamAppend[]) => Promise<AppendOutcome[]>,
  ): Promise<void> {
    const streams = Array.from({ length: 10 }, () => newStream(one));
    await append(
      one,
      streams.map(stream => noting(one, stream, 0)),
    );
    const total = { committed: 0, conflict: 0, refused: 0 };
    async function side(process: TestProcess, order: StreamName[]): Promise<void> {
      const versions = new Map(order.map(stream => [stream.stream_id, 1]));
      for (let round = 0; round < 250; round += 1) {
        const appends = order.map(stream =>
          noting(process, stream, versions.get(stream.stream_id) ?? 1),
        );
        const outcomes = await append(process, appends);
        let stale = false;
        for (const [index, outcome] of outcomes.entries()) {
          total[outcome.status] += 1;
          const id = order[index]?.stream_id ?? "";
          if (outcome.status === "committed") versions.set(id, (versions.get(id) ?? 0) + 1);
          else stale = true;
        }
        if (!stale) continue;
        const heads = await Promise.all(
          order.map(({ stream_id }) => process.store.readHead(stream_id)),
        );
        for (const head of heads) if (head) versions.set(head.stream_id, head.version);
      }
    }
    await Promise.all([side(one, streams), side(two, streams.toReversed())]);
    assert.equal(total.committed + total.conflict, 5_000, JSON.stringify(total));
    assert.ok(total.conflict > 100, `they met: ${JSON.stringify(total)}`);
    for (const stream of streams) {
      const log = await logOf(database.url, stream);
      const { version } = (await headOf(database.url, stream)) ?? {};
      assert.equal(log.length, version);
      assert.ok(
        log.every((row, index) => row.version === index + 1),
        "no version gap",
      );
    }
  }

  it("two processes append to the same streams in opposite orders: no error, no version gap", () =>
    crossed((process, appends) =>
      Promise.all(appends.map(append => process.store.append(append))),
    ));

  it("sabotage: heads moved one after the other in those orders deadlock", () =>
    assert.rejects(
      crossed(async ({ database: sessions, store }, appends) => {
        if (appends[0]?.expected === 0)
          return Promise.all(appends.map(append => store.append(append)));
        await sessions.transaction(async query => {
          const text = "update noetl.stream set version = version + 1 where stream_id = $1";
          for (const append of appends) await query.query(text, [append.stream_id]);
        });
        return appends.map(() => ({ status: "committed", at: 0 }));
      }),
      (error: unknown) => isRepeatable(error),
    ));

  /** Connections are reset at a moment that the seed chooses: before, in or after the commit. */
  async function cutShort(
    seed: number,
    proxy: TcpProxy,
    store?: (inner: EventStore) => EventStore,
  ) {
    const random = seeded(seed);
    const far = await startProcess(proxy.through(database.url));
    let unanswered = 0;
    const watched = (inner: EventStore): EventStore => ({
      ...inner,
      async append(append) {
        try {
          return await inner.append(append);
        } catch (error) {
          const log = await logOf(database.url, append);
          if (log.length >= append.expected + append.events.length) unanswered += 1;
          throw error;
        }
      },
    });
    const host = far.ledger({ store: inner => store?.(watched(inner)) ?? watched(inner) });
    const streams = Array.from({ length: 5 }, () => newStream(far));
    const errands = Array.from({ length: 10 }, (_, index) => `errand-${index}`);
    proxy.delay(2);
    const sends = streams.map(async stream => {
      for (const id of errands) {
        await host.send(stream, { type: "add", id });
        await host.send(stream, { type: "issue", command_id: `${stream.stream_id}:${id}` });
      }
    });
    let over = false;
    const breaking = (async () => {
      for (let cuts = 0; !over && cuts < 3; cuts += 1) {
        await new Promise(resolve => setTimeout(resolve, 40 + random() * 60));
        if (!over) proxy.reset();
      }
    })();
    await Promise.all(sends).finally(() => (over = true));
    await breaking;
    proxy.heal();
    // What the host may have committed without knowing it rings when it is woken, at the latest.
    far.clock.shift_ms = 6_000;
    await wakeNow(one, host, ...streams);
    for (const stream of streams) {
      const log = await logOf(database.url, stream);
      const facts = log.map(row => row.meta["command_id"]);
      const wanted = errands.flatMap(id => [id, `${stream.stream_id}:${id}`]);
      assert.deepEqual(facts, wanted, `seed ${seed}: nothing lost, nothing doubled`);
      for (const id of errands) {
        const command_id = `${stream.stream_id}:${id}`;
        const rung = host.rings.some(ring => ring.command_id === command_id);
        assert.ok(rung, `seed ${seed}: ${command_id} was rung`);
      }
    }
    await far.stop();
    return unanswered;
  }

  it("a connection cut between commit and answer loses nothing and doubles nothing", async () => {
    const proxy = await startProxy(Number(new URL(database.url).port));
    let unanswered = 0;
    for (let seed = 1; seed <= 8; seed += 1) unanswered += await cutShort(seed, proxy);
    await proxy.close();
    assert.ok(unanswered > 5, `${unanswered} commits were not answered`);
  });

  it("sabotage: a store that sends an unanswered append again doubles facts", async () => {
    const proxy = await startProxy(Number(new URL(database.url).port));
    const blind = (inner: EventStore): EventStore => ({
      ...inner,
      async append(append): Promise<AppendOutcome> {
        for (let expected = append.expected; ;) {
          try {
            return await inner.append({ ...append, expected });
          } catch {
            const head = await one.store.readHead(append.stream_id);
            expected = head?.version ?? 0;
          }
        }
      },
    });
    // Until one is cut between its commit and the answer: most are, sooner or later.
    const all = async () => {
      for (let seed = 1; seed <= 40; seed += 1) await cutShort(seed, proxy, blind);
    };
    await assert.rejects(all(), /nothing doubled|duplicate key/);
    await proxy.close();
  });
});
