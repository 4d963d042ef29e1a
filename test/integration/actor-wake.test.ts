// Design §5 rule 6: wake_at is a lower bound of the next deadline, on every open stream.
import { strict as assert } from "node:assert";
import { ServiceBroker, type Context } from "moleculer";
import type { EventStore } from "../../mixins/event-store.ts";
import { pickDue, wakeStreamsOf } from "../../mixins/postgres/stream.ts";
import {
  ask,
  headOf,
  newStream,
  seeded,
  startProcess,
  until,
  wakeNow,
  type TestProcess,
} from "../support/actors.ts";
import type { Runtime } from "../../mixins/runtime.ts";
import { loadSettings } from "../../schemas/env.ts";
import reaperService from "../../services/reaper/reaper.service.ts";
import { testDatabase, type TestDatabase } from "../support/postgres.ts";

type StoreWrap = (store: EventStore) => EventStore;

/** Sabotage: appends say nothing of when the stream must be woken. */
const sleepyAppends: StoreWrap = store => ({
  ...store,
  append: append => store.append({ ...append, wake_at: undefined }),
});

describe("actors: wake_at", function () {
  this.timeout(30_000);
  let database: TestDatabase;
  let one: TestProcess;
  let two: TestProcess;
  before(async () => {
    database = await testDatabase({ migrated: true });
    one = await startProcess(database.url, { size: 8 });
    two = await startProcess(database.url, { size: 8 });
  });
  after(async () => {
    await one.stop();
    await two.stop();
    await database.drop();
  });

  const setWake = (stream: { stream_id: string }, seconds: number) =>
    ask(
      database.url,
      "update noetl.stream set wake_at = now() + make_interval(secs => $2) where stream_id = $1",
      [stream.stream_id, seconds],
    );

  async function bounds(store?: StoreWrap): Promise<void> {
    const stream = newStream(one);
    const host = one.ledger({ store });
    await host.send(stream, { type: "issue", command_id: stream.stream_id });
    const born = (await headOf(database.url, stream))?.wake_ms ?? Infinity;
    assert.ok(born <= 6_000, `a ring that may be lost is looked after in ${born} ms`);
    await setWake(stream, 2);
    await host.send(stream, { type: "add", id: "x" });
    const kept = (await headOf(database.url, stream))?.wake_ms ?? Infinity;
    assert.ok(kept <= 2_000, `an append did not move it later: ${kept} ms`);
  }

  it("an append moves wake_at earlier and never later", () => bounds());

  it("sabotage: an append without wake_at leaves the stream asleep", () =>
    assert.rejects(bounds(sleepyAppends), { name: "AssertionError" }));

  it("an append moves wake_at earlier also where another host has moved it later", async () => {
    const stream = newStream(one);
    const host = one.ledger();
    await host.send(stream, { type: "issue", command_id: `${stream.stream_id}:a` });
    await host.send(stream, { type: "take", command_id: `${stream.stream_id}:a` });
    await wakeNow(two, two.ledger(), stream);
    await until(async () => ((await headOf(database.url, stream))?.wake_ms ?? 0) > 60_000);
    await host.send(stream, { type: "issue", command_id: `${stream.stream_id}:b` });
    const after = (await headOf(database.url, stream))?.wake_ms ?? Infinity;
    assert.ok(after <= 7_000, `the ring of b is looked after in ${after} ms`);
  });

  it("a wake moves wake_at later only at the version it looked at", async () => {
    const stream = newStream(one);
    await one.ledger().send(stream, { type: "add", id: "x" });
    const far = one.clock.now() + 500_000;
    await one.store.setWake(stream.stream_id, 7, far);
    assert.ok(((await headOf(database.url, stream))?.wake_ms ?? 0) < 60_000, "of another version");
    await one.store.setWake(stream.stream_id, 1, far);
    assert.ok(((await headOf(database.url, stream))?.wake_ms ?? 0) > 400_000);
  });

  /** Many reapers pick at once until nothing is due. Gives how often each stream was picked. */
  async function pickAll(pick: (reaper: TestProcess) => Promise<{ stream_id: string }[]>) {
    const host = one.ledger();
    const streams = Array.from({ length: 200 }, () => newStream(one));
    await Promise.all(streams.map(stream => host.send(stream, { type: "add", id: "x" })));
    const ids = streams.map(stream => stream.stream_id);
    const due =
      "update noetl.stream set wake_at = now() - interval '1 second' where stream_id = any ($1)";
    await ask(database.url, due, [ids]);
    const picks = await Promise.all(
      Array.from({ length: 24 }, (_, index) => pick(index % 2 === 0 ? one : two)),
    );
    const picked = picks.flat().map(stream => stream.stream_id);
    assert.equal(new Set(picked).size, picked.length, "no stream was picked twice");
    assert.deepEqual(picked.toSorted(), ids.toSorted());
    return ids;
  }

  it("two reapers never pick the same stream; a pick moves wake_at by the backoff", async () => {
    const ids = await pickAll(reaper => pickDue(reaper.database, { limit: 30, backoffMs: 5_000 }));
    const [row] = await ask<{ least: number; most: number }>(
      database.url,
      `select extract(epoch from min(wake_at) - now())::double precision as least,
              extract(epoch from max(wake_at) - now())::double precision as most
       from noetl.stream where stream_id = any ($1)`,
      [ids],
    );
    assert.ok(row && row.least > 2 && row.most <= 5, JSON.stringify(row));
  });

  it("sabotage: a pick that does not move wake_at as it picks gives streams twice", () =>
    assert.rejects(
      pickAll(async reaper => {
        const { rows } = await reaper.database.query<{ stream_id: string }>(
          "select stream_id from noetl.stream where status = 'open' and wake_at <= now() limit 30",
        );
        return rows;
      }),
      /no stream was picked twice/,
    ));

  /** Two hosts do this and that with many streams, some statements failing. */
  async function busyRun(seed: number, store: StoreWrap = inner => inner): Promise<void> {
    const random = seeded(seed);
    const failing: StoreWrap = inner => ({
      ...inner,
      async append(append) {
        const outcome = await inner.append(append);
        if (random() < 0.02) throw Object.assign(new Error("lost"), { type: "UNAVAILABLE" });
        return outcome;
      },
    });
    const hosts = [one.ledger({ store: inner => failing(store(inner)) }), two.ledger({ store })];
    const streams = Array.from({ length: 40 }, () => newStream(one));
    const sends = Array.from({ length: 800 }, async (_, index) => {
      const host = hosts[Math.floor(random() * 2)];
      const stream = streams[Math.floor(random() * streams.length)];
      if (!host || !stream) return;
      const command_id = `${stream.stream_id}:${Math.floor(index / 80)}`;
      const dice = random();
      if (dice < 0.4) await host.send(stream, { type: "add", id: `${index}` });
      else if (dice < 0.7)
        await host.send(stream, { type: "issue", command_id: `${command_id}:${index}` });
      else if (dice < 0.93) await host.send(stream, { type: "take", command_id });
      else if (dice < 0.97) await host.send(stream, { type: "wake" });
      else await host.send(stream, { type: "finish" });
    });
    await Promise.all(sends);
    const [found] = await ask<{ open: number; asleep: number; ended: number }>(
      database.url,
      `select count(*) filter (where status = 'open')::int as open,
              count(*) filter (where status = 'ended')::int as ended,
              count(*) filter (where status = 'open' and
                (wake_at is null or wake_at > now() + interval '11 minutes'))::int as asleep
       from noetl.stream where stream_id = any ($1)`,
      [streams.map(stream => stream.stream_id)],
    );
    assert.ok(found && found.open > 5, `seed ${seed}: ${JSON.stringify(found)}`);
    assert.equal(found.asleep, 0, `seed ${seed}: ${JSON.stringify(found)}`);
  }

  it("every open stream of a busy run has a waker", () => busyRun(11));

  it("waking all streams of a node that is gone never deadlocks with appends", async () => {
    const owner = `gone-${one.ids.next()}`;
    const host = one.ledger({ owner });
    const streams = Array.from({ length: 150 }, () => newStream(one));
    const shuffled = streams.toSorted((a, b) =>
      a.stream_id.slice(-3) < b.stream_id.slice(-3) ? -1 : 1,
    );
    for (const stream of shuffled) await host.send(stream, { type: "add", id: "x" });
    let over = false;
    const waking = (async () => {
      while (!over) await wakeStreamsOf(two.database, [owner]);
    })();
    for (let round = 0; round < 60; round += 1) {
      await Promise.all(streams.map(stream => host.send(stream, { type: "add", id: `${round}` })));
    }
    over = true;
    await waking;
    assert.equal(one.store.counters.repeats + two.store.counters.repeats, 0, "no deadlock at all");
  });

  /** One stream's waking never ends; another one is due a little later. */
  it("a stream that cannot be woken holds up no other", async () => {
    const [stuck, later] = [newStream(one), newStream(one)];
    const host = one.ledger();
    for (const stream of [stuck, later]) await host.send(stream, { type: "add", id: "x" });
    const woken = new Set<string>();
    const broker = new ServiceBroker({ logger: false, registry: { stopDelay: 0 } });
    broker.createService({
      name: "loops",
      actions: {
        async wake(ctx: Context<{ streams: { stream_id: string }[] }>) {
          for (const { stream_id } of ctx.params.streams) woken.add(stream_id);
          if (woken.size > 0 && !woken.has(later.stream_id)) await until(() => false, 20_000);
        },
      },
    });
    const runtime = { store: one.store, clock: one.clock, settings: loadSettings({}) };
    const options = { scope: "all" as const, sweepMs: 50 };
    broker.createService(reaperService(runtime as unknown as Runtime, options));
    await setWake(stuck, -1);
    await broker.start();
    await until(() => woken.has(stuck.stream_id));
    await setWake(later, -1);
    await until(() => woken.has(later.stream_id), 4_000);
    await broker.stop();
  });

  it("sabotage: without wake_at in the appends some have none", () =>
    assert.rejects(busyRun(11, sleepyAppends), /asleep/));
});
