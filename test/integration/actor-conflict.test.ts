// Design §5 rules 1 and 2: rivals of one stream lose nothing, and a refusal is proved first.
import { strict as assert } from "node:assert";
import type { StreamName } from "../../mixins/event-store.ts";
import {
  ask,
  logOf,
  newStream,
  startProcess,
  until,
  wakeNow,
  type LedgerHost,
  type TestProcess,
} from "../support/actors.ts";
import type { LedgerInput } from "../support/ledger.ts";
import { testDatabase, type TestDatabase } from "../support/postgres.ts";
import { deafToConflict, withoutProof, type StoreWrap } from "../support/sabotage.ts";

describe("actors: conflict and proof", function () {
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

  /** Two hosts take inputs for the same streams: some for each, some for both. */
  async function rivalry(store?: StoreWrap): Promise<void> {
    const hosts = [one.ledger({ store }), two.ledger({ store })];
    const streams = Array.from({ length: 4 }, () => newStream(one));
    const wanted = Array.from({ length: 400 }, (_, index) => `id-${index}`);
    const sent: Promise<unknown>[] = [];
    for (const [index, id] of wanted.entries()) {
      for (const stream of streams) {
        for (const [side, host] of hosts.entries()) {
          // Every third id is sent to both: the second must find it there.
          if (index % 3 === 0 || index % 2 === side)
            sent.push(host.send(stream, { type: "add", id }));
        }
      }
      // Leaves the loop now and then, so that many turns are made and not one.
      if (index % 8 === 0) await new Promise(resolve => setTimeout(resolve, 2));
    }
    await Promise.all(sent);
    assert.ok(sent.length > 2_000, `${sent.length} inputs`);
    const conflicts = one.store.counters.conflicts + two.store.counters.conflicts;
    assert.ok(conflicts > 0, `the hosts were rivals: ${conflicts} conflicts`);
    for (const stream of streams) {
      const log = await logOf(database.url, stream);
      assert.deepEqual(
        log.map(row => row.version),
        log.map((_, index) => index + 1),
        "versions have no gap",
      );
      const noted = log.map(row => row.meta["command_id"] as string);
      assert.deepEqual(noted.toSorted(), wanted.toSorted(), "each fact exactly once");
    }
  }

  it("two hosts of one stream lose and double nothing, and no caller hears of a conflict", () =>
    rivalry());

  it("sabotage: a host that takes a conflict for a commit loses facts", () =>
    assert.rejects(rivalry(deafToConflict), { name: "AssertionError" }));

  /** Host A knows the stream; host B moves on; A is asked for what only the newer state allows. */
  async function staleRefusal(store?: StoreWrap): Promise<void> {
    const stream = newStream(one);
    const a = one.ledger({ store });
    const b = two.ledger();
    await a.send(stream, { type: "add", id: "first" });
    await b.send(stream, { type: "add", id: "second" });
    await a.send(stream, { type: "need", id: "second" });
  }

  it("a host slower than its rival waits, and no caller hears of a conflict", async () => {
    const stream = newStream(one);
    const fast = one.ledger();
    let ahead = 0;
    const slow = two.ledger({
      store: store => ({
        ...store,
        async append(append) {
          if (ahead < 10) await fast.send(append, { type: "add", id: `fast-${(ahead += 1)}` });
          return store.append(append);
        },
      }),
    });
    await Promise.all(
      Array.from({ length: 20 }, (_, index) =>
        slow.send(stream, { type: "add", id: `slow-${index}` }),
      ),
    );
    assert.equal(slow.counters.conflicts, 10);
    const noted = (await logOf(database.url, stream)).map(row => row.meta["command_id"] as string);
    assert.equal(noted.filter(id => id.startsWith("slow")).length, 20);
    assert.equal(new Set(noted).size, noted.length);
  });

  /** A host whose rival appends first, so often. */
  function outrun(rival: LedgerHost, times: number) {
    const sent: { to: string; count: number; conflicts: number }[] = [];
    let left = times;
    const host: LedgerHost = two.ledger({
      owner: "slow",
      store: store => ({
        ...store,
        async append(append) {
          left -= 1;
          if (left >= 0) await rival.send(append, { type: "add", id: `rival-${left}` });
          return store.append(append);
        },
      }),
      forward(to, stream, entries) {
        sent.push({ to, count: entries.length, conflicts: host.counters.conflicts });
        for (const { input, forwarded, resolve, reject } of entries) {
          if (forwarded) continue;
          const add = input as unknown as LedgerInput;
          rival
            .send(stream, add, undefined, true)
            .then(resolve as (answer: unknown) => void, reject);
        }
        return Promise.resolve(entries.filter(entry => entry.forwarded));
      },
    });
    return { host, sent };
  }

  it("a host that loses three times sends its inputs on to the winner", async () => {
    const stream = newStream(one);
    const fast = one.ledger({ owner: "fast" });
    await fast.send(stream, { type: "add", id: "first" });
    const { host, sent } = outrun(fast, 1_000);
    const ids = Array.from({ length: 20 }, (_, index) => `slow-${index}`);
    await Promise.all(ids.map(id => host.send(stream, { type: "add", id })));
    assert.deepEqual(sent, [{ to: "fast", count: 20, conflicts: 3 }]);
    const noted = (await logOf(database.url, stream)).map(row => row.meta["command_id"] as string);
    assert.equal(noted.filter(id => id.startsWith("slow")).length, 20);
  });

  it("what was sent on once is decided where it is, however often that host loses", async () => {
    const stream = newStream(one);
    const fast = one.ledger({ owner: "fast" });
    await fast.send(stream, { type: "add", id: "first" });
    const { host, sent } = outrun(fast, 6);
    await host.send(stream, { type: "add", id: "slow" }, undefined, true);
    assert.deepEqual([host.counters.conflicts, sent.length], [6, 4]);
    const log = await logOf(database.url, stream);
    assert.equal(log.at(-1)?.meta["command_id"], "slow");
  });

  it("a stale host never refuses what is possible on the newer state", () => staleRefusal());

  it("sabotage: without proof the stale host refuses", () =>
    assert.rejects(staleRefusal(withoutProof), { type: "REJECTED" }));

  it("a refusal that is proved reaches the caller", async () => {
    const stream = newStream(one);
    const a = one.ledger();
    await a.send(stream, { type: "add", id: "first" });
    await assert.rejects(a.send(stream, { type: "need", id: "other" }), { type: "REJECTED" });
    await assert.rejects(a.send(newStream(one), { type: "need", id: "x" }), { type: "REJECTED" });
  });

  it("an answer that is a read is given on the head's version", async () => {
    const stream = newStream(one);
    const a = one.ledger({ mustProve: input => input.type === "wake" });
    await a.send(stream, { type: "add", id: "first" });
    await two.ledger().send(stream, { type: "add", id: "second" });
    assert.equal((await a.send(stream, { type: "wake" })).size, 2);
  });

  /** Host A knows a stream that host B then gave an errand; B dies without ringing; A is woken. */
  async function staleWake(store?: StoreWrap): Promise<void> {
    const stream = newStream(one);
    const a = one.ledger({ store });
    await a.send(stream, { type: "add", id: "first" });
    await two
      .ledger({ ring: () => {} })
      .send(stream, { type: "issue", command_id: `${stream.stream_id}:errand` });
    await wakeNow(one, a, stream);
    await until(() => a.rings.some(ring => ring.command_id.startsWith(stream.stream_id)), 500);
  }

  it("a stale host that is woken catches up first, and does what its dead rival left", () =>
    staleWake());

  it("sabotage: without proof a stale host is woken in vain", () =>
    assert.rejects(staleWake(withoutProof), /nothing came/));

  /** One input whose values cannot be had, among others of the same turn. */
  it("a refusal of one input is not given to its neighbours", async () => {
    const stream = newStream(one);
    const a = one.ledger();
    const ends = await Promise.allSettled([
      a.send(stream, { type: "add", id: "x" }),
      a.send(stream, { type: "need", id: "nowhere" }),
      a.send(stream, { type: "add", id: "y" }),
      a.send(stream, { type: "need", id: "y" }),
    ]);
    assert.deepEqual(
      ends.map(end => end.status),
      ["fulfilled", "rejected", "fulfilled", "fulfilled"],
    );
  });

  it("a commit whose answer was lost is found again: the input is not written twice", async () => {
    const stream: StreamName = newStream(one);
    let lost = 0;
    const forgetful: StoreWrap = store => ({
      ...store,
      async append(append) {
        const outcome = await store.append(append);
        lost += 1;
        if (lost % 2 === 1) throw Object.assign(new Error("lost"), { type: "UNAVAILABLE" });
        return outcome;
      },
    });
    const host = one.ledger({ store: forgetful });
    await host.send(stream, { type: "start", ids: ["a", "b"] });
    for (let index = 0; index < 5; index += 1)
      await host.send(stream, { type: "add", id: `${index}` });
    const log = await logOf(database.url, stream);
    assert.deepEqual(
      log.map(row => row.meta["command_id"]),
      ["a", "b", "0", "1", "2", "3", "4"],
    );
    const gone = await ask(database.url, "select 1 from noetl.stream where version = 0");
    assert.equal(gone.length, 0);
  });
});
