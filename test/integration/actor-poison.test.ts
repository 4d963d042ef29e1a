// Design §5 rule 7: a stream that keeps failing is parked and named, and the others go on.
import { strict as assert } from "node:assert";
import type { EventStore } from "../../mixins/event-store.ts";
import { listParked } from "../../mixins/postgres/stream.ts";
import {
  ask,
  headOf,
  logOf,
  newStream,
  startProcess,
  type TestProcess,
} from "../support/actors.ts";
import { ledger } from "../support/ledger.ts";
import { testDatabase, type TestDatabase } from "../support/postgres.ts";

describe("actors: poison", function () {
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

  async function parked(store?: (inner: EventStore) => EventStore): Promise<void> {
    const [bad, good] = [newStream(one), newStream(one)];
    const host = one.ledger({ store });
    await host.send(bad, { type: "add", id: "x" });
    for (let turn = 1; turn <= 3; turn += 1) {
      const [boom] = await Promise.allSettled([
        host.send(bad, { type: "boom" }),
        host.send(good, { type: "add", id: `${turn}` }),
      ]);
      assert.equal(boom.status === "rejected" && boom.reason.type, "UNAVAILABLE");
      const { failures = 0 } = (await headOf(database.url, bad)) ?? {};
      assert.equal(failures, turn === 3 ? 1 : 0, `after ${turn} failed turns`);
    }
    assert.equal((await logOf(database.url, good)).length, 3);
    const head = await headOf(database.url, bad);
    assert.match(head?.last_error ?? "", /a bug of the ledger/);
    const [named] = (await listParked(one.database, 10)).filter(
      stream => stream.stream_id === bad.stream_id,
    );
    assert.equal(named?.failures, 1);
    assert.equal(host.failed.length, 3, "each failure is logged");
    await assert.rejects(host.send(bad, { type: "boom" }));
    const later = await headOf(database.url, bad);
    assert.equal(later?.failures, 2);
    assert.ok((later?.wake_ms ?? 0) > 2_500, `the backoff grows: ${later?.wake_ms} ms`);
  }

  it("a stream whose turn fails three times is parked and named, and others go on", () => parked());

  it("sabotage: where nothing parks it the check fails", () =>
    assert.rejects(
      parked(inner => ({ ...inner, park: async () => {} })),
      {
        name: "AssertionError",
      },
    ));

  it("a parked stream that can be decided again is no longer named", async () => {
    const stream = newStream(one);
    const host = one.ledger();
    await host.send(stream, { type: "add", id: "x" });
    for (let turn = 0; turn < 3; turn += 1)
      await assert.rejects(host.send(stream, { type: "boom" }));
    assert.equal((await headOf(database.url, stream))?.failures, 1);
    await host.send(stream, { type: "add", id: "y" });
    const head = await headOf(database.url, stream);
    assert.deepEqual([head?.failures, head?.last_error], [0, null]);
  });

  it("only the input that meets the bug fails: its neighbours are taken", async () => {
    const stream = newStream(one);
    const host = one.ledger();
    const ends = await Promise.allSettled([
      host.send(stream, { type: "add", id: "x" }),
      host.send(stream, { type: "boom" }),
      host.send(stream, { type: "add", id: "y" }),
    ]);
    assert.deepEqual(
      ends.map(end => end.status),
      ["fulfilled", "rejected", "fulfilled"],
    );
    assert.equal((await logOf(database.url, stream)).length, 2);
  });

  /** An event of a newer build lies in one stream; the answer must come soon, and be no refusal. */
  async function unknownType(store?: (inner: EventStore) => EventStore): Promise<void> {
    const [strange, plain] = [newStream(one), newStream(one)];
    await one.ledger().send(strange, { type: "add", id: "x" });
    await ask(
      database.url,
      `with head as (update noetl.stream set version = 2 where stream_id = $1 returning stream_id)
       insert into noetl.event (execution_id, stream_id, version, event_id, event_type, meta)
       select $1, stream_id, 2, $2, 'command.levitated', '{}' from head`,
      [strange.stream_id, one.ids.next()],
    );
    const host = one.ledger({ store });
    const since = performance.now();
    await assert.rejects(host.send(strange, { type: "need", id: "y" }), { type: "UNAVAILABLE" });
    assert.ok(performance.now() - since < 5_000, "no use to wait for a newer build");
    await host.send(plain, { type: "add", id: "x" });
    assert.equal((await headOf(database.url, strange))?.version, 2);
  }

  it("an unknown event type makes its stream Unavailable, and refuses nothing", () =>
    unknownType());

  it("sabotage: where unknown events are passed over the input is refused", () =>
    assert.rejects(
      unknownType(inner => ({
        ...inner,
        async readEvents(stream, after, limit) {
          const events = await inner.readEvents(stream, after, limit).catch(() => []);
          return after === 0 && events.length === 0
            ? [{ ...stream, event_type: "call.partial", meta: {}, version: 2, at: 0 } as never]
            : events;
        },
      })),
      { name: "AssertionError" },
    ));

  it("a fold that throws is a bug like any other: the stream is parked", async () => {
    const stream = newStream(one);
    const host = one.ledger({
      machine: {
        ...ledger,
        evolve(state, event, at, version) {
          if (event.event_type === "execution.paused") throw new RangeError("a bug of the fold");
          return ledger.evolve(state, event, at, version);
        },
      },
    });
    await host.send(stream, { type: "add", id: "x" });
    for (let turn = 0; turn < 3; turn += 1) {
      await assert.rejects(host.send(stream, { type: "finish" }), { type: "UNAVAILABLE" });
    }
    assert.match((await headOf(database.url, stream))?.last_error ?? "", /a bug of the fold/);
    assert.equal((await host.send(stream, { type: "add", id: "y" })).size, 2);
  });
});
