// Design §5 rule 3: effects are a function of state: a death after the commit loses none of them.
import { strict as assert } from "node:assert";
import type { EventStore } from "../../mixins/event-store.ts";
import { createValues, valuesOf } from "../../mixins/values.ts";
import { Needs, type Machine } from "../../schemas/decider.ts";
import type { Json } from "../../schemas/json.ts";
import { Rejected, Unavailable } from "../../schemas/errors.ts";
import {
  ledger,
  type LedgerAnswer,
  type LedgerInput,
  type LedgerState,
} from "../support/ledger.ts";
import {
  headOf,
  logOf,
  newStream,
  startProcess,
  until,
  wakeNow,
  type TestProcess,
} from "../support/actors.ts";
import { testDatabase, type TestDatabase } from "../support/postgres.ts";

type LedgerMachine = Machine<LedgerState, LedgerInput, LedgerAnswer>;

/** Sabotage: an effect follows from an event, once, and not from the state. */
function effectsOfEvents(): LedgerMachine {
  const gone = new Set<string>();
  return {
    ...ledger,
    *pending(state) {
      for (const effect of ledger.pending(state)) {
        if (!gone.has(effect.key)) yield effect;
        gone.add(effect.key);
      }
    },
  };
}

describe("actors: effects", function () {
  this.timeout(30_000);
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

  /** A process commits and dies before it rings or tells; another one is woken for its stream. */
  async function death(machine: LedgerMachine): Promise<void> {
    const [busy, done] = [newStream(one), newStream(one)];
    const dying = one.ledger({ machine, deliver: () => new Promise(() => {}) });
    await dying.send(busy, { type: "issue", command_id: busy.stream_id });
    await dying.send(done, { type: "add", id: "x" });
    await dying.send(done, { type: "finish" });
    assert.equal(dying.rings.length, 1);
    assert.equal(dying.messages.length, 1);
    const heir = two.ledger({ machine });
    await wakeNow(two, heir, busy, done);
    await until(() => heir.rings.some(ring => ring.command_id === busy.stream_id), 500);
    await until(() => heir.messages.some(message => message.input["size"] === 1), 500);
    await until(async () => (await headOf(database.url, done))?.status === "ended", 500);
  }

  it("what a process that died had yet to ring and to tell goes out after a load", () =>
    death(ledger));

  it("sabotage: with effects of events instead of state it never does", () =>
    assert.rejects(death(effectsOfEvents()), /nothing came/));

  /** The ring is lost on its way; the same host is woken later. */
  async function lostRing(machine: LedgerMachine): Promise<void> {
    const stream = newStream(one);
    const host = one.ledger({ machine });
    await host.send(stream, { type: "issue", command_id: "lost" });
    assert.equal(host.rings.length, 1);
    await wakeNow(one, host, stream);
    assert.equal(host.rings.length, 1, "not again at once");
    one.clock.shift_ms = 6_000;
    await wakeNow(one, host, stream).finally(() => (one.clock.shift_ms = 0));
    await until(() => host.rings.length === 2, 500);
    await host.send(stream, { type: "take", command_id: "lost" });
    one.clock.shift_ms = 60_000;
    await wakeNow(one, host, stream).finally(() => (one.clock.shift_ms = 0));
    assert.equal(host.rings.length, 2, "never again once it is taken");
  }

  it("a lost ring is rung again on wake, until its command is taken", () => lostRing(ledger));

  it("sabotage: with effects of events instead of state it stays lost", () =>
    assert.rejects(lostRing(effectsOfEvents()), /nothing came/));

  /** The receiver is away at first; the stream must stay open until it has acknowledged. */
  async function unacknowledged(store?: (store: EventStore) => EventStore): Promise<void> {
    const stream = newStream(one);
    let away = true;
    const host = one.ledger({
      store,
      deliver: () => (away ? Promise.reject(new Unavailable("away")) : Promise.resolve()),
    });
    await host.send(stream, { type: "add", id: "x" });
    await host.send(stream, { type: "finish" });
    await until(() => host.warned.length > 0);
    const head = await headOf(database.url, stream);
    assert.equal(head?.status, "open");
    assert.ok((head?.wake_ms ?? Infinity) < 7_000, `woken in ${head?.wake_ms} ms`);
    away = false;
    one.clock.shift_ms = 6_000;
    await wakeNow(one, host, stream).finally(() => (one.clock.shift_ms = 0));
    await until(async () => (await headOf(database.url, stream))?.status === "ended");
    assert.equal(host.messages.length, 2);
  }

  it("a stream is ended only when its messages are acknowledged", () => unacknowledged());

  it("sabotage: a stream that ends with its last fact fails this check", () =>
    assert.rejects(
      unacknowledged(store => ({
        ...store,
        append: append => {
          const ended = append.events.some(event => event.event_type === "execution.paused");
          return store.append({ ...append, ended });
        },
      })),
      { name: "AssertionError" },
    ));

  it("a receiver that does not exist has acknowledged", async () => {
    const stream = newStream(one);
    const gone = new Rejected("no such execution", 404, { reason: "unknown" });
    const host = one.ledger({ deliver: () => Promise.reject(gone) });
    await host.send(stream, { type: "finish" });
    await until(async () => (await headOf(database.url, stream))?.status === "ended", 1_000);
  });

  it("an ending that could not be written is written on wake", async () => {
    const stream = newStream(one);
    let failures = 0;
    const host = one.ledger({
      store: store => ({
        ...store,
        end(streamId, version) {
          failures += 1;
          if (failures > 1) return store.end(streamId, version);
          return Promise.reject(new Unavailable("away"));
        },
      }),
    });
    await host.send(stream, { type: "finish" });
    await until(() => host.warned.length > 0);
    assert.equal((await headOf(database.url, stream))?.status, "open");
    await wakeNow(one, host, stream);
    await until(async () => (await headOf(database.url, stream))?.status === "ended", 1_000);
  });

  it("a long stream is loaded from its snapshot and the tail behind it", async () => {
    const stream = newStream(one);
    const host = one.ledger();
    const ids = Array.from({ length: 1_500 }, (_, index) => `a${index}`);
    await host.send(stream, { type: "start", ids });
    await Promise.all(
      Array.from({ length: 800 }, (_, index) =>
        host.send(stream, { type: "add", id: `b${index}` }),
      ),
    );
    await host.send(stream, { type: "add", id: "last" });
    const snapshot = await until(() => one.store.readSnapshot(stream.stream_id));
    assert.ok(snapshot.version >= 2_000, `at version ${snapshot.version}`);
    const read: number[] = [];
    const heir = two.ledger({
      store: store => ({
        ...store,
        async readEvents(name, after, limit) {
          read.push(after);
          return store.readEvents(name, after, limit);
        },
      }),
    });
    assert.equal((await heir.send(stream, { type: "add", id: "heir" })).size, 2_302);
    assert.deepEqual(read, [snapshot.version]);
  });

  it("an answer that needs a value is given once the value is loaded", async () => {
    const reference = { ref: "noetl://execution/1/scope", bytes: 1, tier: "test" };
    const needy: LedgerMachine = {
      ...ledger,
      answer(input, state, context, changed) {
        if (!context.loaded.has(reference.ref)) throw new Needs({ load: [reference] });
        return ledger.answer(input, state, context, changed);
      },
    };
    const host = one.ledger({
      machine: needy,
      provide: async (needs, loaded) => needs.load.forEach(({ ref }) => loaded.set(ref, true)),
    });
    assert.equal((await host.send(newStream(one), { type: "add", id: "x" })).size, 1);
  });

  it("a decision has all the values it needs, though they are more than are kept", async () => {
    const bytes = 40 * 1024 * 1024;
    const references = ["a", "b", "c"].map(name => ({ ref: `noetl://${name}`, bytes, tier: "x" }));
    const get = () => Promise.resolve("large");
    const put = () => Promise.reject(new Error("nothing is stored here"));
    const values = createValues({ ...valuesOf(one.database), results: { get, put, find: get } });
    const needy: LedgerMachine = {
      ...ledger,
      decide(input, state, context) {
        for (const reference of references) {
          if (!context.loaded.has(reference.ref)) throw new Needs({ load: [reference] });
        }
        return ledger.decide(input, state, context);
      },
    };
    const host = one.ledger({
      machine: needy,
      loaded: values.loaded as Map<string, Json>,
      provide: needs => values.provide(needs, newStream(one), {} as never),
    });
    assert.equal((await host.send(newStream(one), { type: "add", id: "x" })).size, 1);
  });

  it("a value that cannot be had refuses the input that needs it, and no other", async () => {
    const needy: LedgerMachine = {
      ...ledger,
      decide(input, state, context) {
        if (input.type === "need") throw new Needs({ load: [] });
        return ledger.decide(input, state, context);
      },
    };
    const gone = new Rejected("playbook 'x' version 1 is not in the catalog", 404);
    const host = one.ledger({ machine: needy, provide: () => Promise.reject(gone) });
    const stream = newStream(one);
    const [refused, fine] = await Promise.allSettled([
      host.send(stream, { type: "need", id: "x" }),
      host.send(stream, { type: "add", id: "y" }),
    ]);
    assert.equal(refused.status, "rejected");
    assert.equal(fine.status, "fulfilled");
    assert.equal((await logOf(database.url, stream)).length, 1);
  });

  it("a host stops although somebody still watches a stream", async () => {
    const host = one.ledger();
    const stream = newStream(one);
    await host.send(stream, { type: "add", id: "x" });
    host.watch(stream, () => {});
    const stopped = host.stop().then(() => true);
    assert.equal(await Promise.race([stopped, until(() => false, 500).catch(() => false)]), true);
  });
});
