// The stream of rings and its consumers: brought to the settings in place, made again when they
// vanish, and refused when they cannot serve. Against a real nats-server.
import { strict as assert } from "node:assert";
import { connect, type ConsumerConfig, type JetStreamManager, type NatsConnection } from "nats";
import { ownLaneOf } from "../../mixins/jetstream-config.ts";
import { openJetStream, type JetStreamDoorbell } from "../../mixins/jetstream.ts";
import type { Rung } from "../../mixins/notifications.ts";
import type { Ring } from "../../schemas/decider.ts";
import { loadSettings } from "../../schemas/env.ts";
import { errorType } from "../../schemas/errors.ts";
import type { WorkClass } from "../../schemas/work-class.ts";
import { until } from "../support/actors.ts";
import { chance } from "../support/chance.ts";
import { natsServerBinary, startNats, type TestNats } from "../support/nats.ts";

const STREAM = "NOETL_COMMANDS";
const POOL = "noetl_worker_pool";
const POOL_DB = "noetl_worker_pool_db";

function ringOf(number: number, kind = "http"): Ring {
  const ids = { execution_id: "1", stream_id: "1", command_id: `1:work:1:${number}:1` };
  return { ...ids, actor: "executions", step: "work", kind, delivery: 0 };
}

describe("the stream of rings", function () {
  this.timeout(30_000);
  let nats: TestNats;
  let connection: NatsConnection;
  let manager: JetStreamManager;
  const bells: JetStreamDoorbell[] = [];
  const said: [string, object][] = [];

  beforeEach(async function () {
    const binary = natsServerBinary();
    if (!binary) return this.skip();
    nats = await startNats(binary);
    connection = await connect({ servers: nats.url });
    manager = await connection.jetstreamManager();
    said.length = 0;
  });
  afterEach(async () => {
    for (const bell of bells.splice(0)) await bell.close();
    await connection?.close();
    await nats?.stop();
  });

  async function open(maxAckPending = 64, env: Record<string, string> = {}) {
    const pending = { NOETL_WORKER_NATS_MAX_ACK_PENDING: String(maxAckPending) };
    const settings = loadSettings({ NATS_URL: nats.url, ...pending, ...env });
    const bell = await openJetStream(settings, (fields, message) => said.push([message, fields]));
    bells.push(bell);
    return bell;
  }

  const infoOf = (consumer = POOL) => manager.consumers.info(STREAM, consumer);
  const pendingOf = async (consumer = POOL) => (await infoOf(consumer)).num_pending;

  async function ring(bell: JetStreamDoorbell, from: number, count: number, kind = "http") {
    const before = bell.counters.rung;
    for (let number = from; number < from + count; number += 1) bell.ring(ringOf(number, kind));
    await until(() => bell.counters.rung === before + count);
  }

  /** Takes and acknowledges until so many have come; gives their command ids. */
  async function take(bell: JetStreamDoorbell, count: number, work_class: WorkClass = "general") {
    const ids = new Set<string>();
    await until(async () => {
      for (const rung of await bell.look({ work_class, max: 100 })) {
        ids.add(rung.command_id);
        rung.ack();
      }
      return ids.size >= count;
    });
    return ids;
  }

  async function refusal(act: () => Promise<unknown>): Promise<string> {
    try {
      await act();
    } catch (error) {
      return `${errorType(error)} ${(error as Error).message}`;
    }
    return "accepted";
  }

  it("has a subject and a consumer for each class: one cannot hold up the other", async () => {
    const bell = await open();
    await ring(bell, 0, 100, "postgres");
    await ring(bell, 100, 3, "http");
    assert.deepEqual([await pendingOf(POOL_DB), await pendingOf(POOL)], [100, 3]);
    const held = await bell.look({ work_class: "database", max: 64 });
    assert.equal(held.length, 64, "its consumer gives no more until some are acknowledged");
    assert.equal((await take(bell, 3)).size, 3);
  });

  it("goes from 1000 to 64 in place, with rings pending and taken; none is lost", async () => {
    const before = await open(1_000);
    await ring(before, 0, 300);
    const taken: Rung[] = await before.look({ work_class: "general", max: 200 });
    for (const rung of taken.slice(0, 50)) rung.ack();
    await until(async () => (await infoOf()).num_ack_pending === 150);
    const { created } = await infoOf();

    const after = await open(64);
    const info = await infoOf();
    assert.deepEqual([info.config.max_ack_pending, info.created], [64, created]);
    assert.equal((await infoOf(POOL_DB)).config.max_ack_pending, 64);
    assert.deepEqual([info.num_pending, info.num_ack_pending], [100, 150]);
    const stopped = await after.look({ work_class: "general", max: 10 });
    assert.equal(stopped.length, 0, "150 are taken, so none is given until it is below 64");
    for (const rung of taken.slice(50)) rung.ack();
    assert.equal((await take(after, 100)).size, 100);
    assert.deepEqual(
      said.filter(([message]) => message === "doorbell.consumer_changed").map(([, of]) => of)[0],
      { consumer: POOL, before: { max_ack_pending: 1_000 }, after: { max_ack_pending: 64 } },
    );
  });

  it("starts that race each find it as it should be", async () => {
    const opened = await Promise.all(Array.from({ length: 8 }, () => open(128)));
    const { config } = await infoOf();
    assert.deepEqual([config.max_ack_pending, config.max_deliver], [128, -1]);
    await ring(opened[0]!, 0, 20);
    assert.equal((await take(opened[7]!, 20)).size, 20);
  });

  it("of two fleets with different values neither undoes the other's while it runs", async () => {
    const short = {
      NOETL_WORKER_NATS_FETCH_TIMEOUT_SECONDS: "2",
      NOETL_WORKER_NATS_FETCH_HEARTBEAT_SECONDS: "0.5",
    };
    const small = await open(64, short);
    // The last one to start decides.
    const large = await open(512);
    const { signal } = new AbortController();
    // A silent pull looks whether its consumer is still there: that must change nothing.
    assert.deepEqual(await small.fetch({ work_class: "general", max: 1 }, signal), []);
    await ring(large, 0, 1);
    assert.equal((await take(small, 1)).size, 1);
    assert.equal((await infoOf()).config.max_ack_pending, 512);
  });

  it("that pushes from now on gives nothing, and it is said why", async () => {
    const bell = await open();
    await manager.consumers.delete(STREAM, POOL);
    const pushing = { durable_name: POOL, ack_policy: "explicit", deliver_subject: "x" };
    await manager.consumers.add(STREAM, pushing as object);
    const { signal } = new AbortController();
    await bell.fetch({ work_class: "general", max: 1 }, signal);
    assert.match(bell.unanswered("general") ?? "", /noetl_worker_pool .*(push based|503)/);
    assert.equal(bell.unanswered("database"), undefined);
  });

  it("that vanishes is made again by whoever pulls, and takes rings again", async () => {
    const bell = await open();
    await ring(bell, 0, 5);
    await manager.streams.delete(STREAM);
    assert.deepEqual(await bell.look({ work_class: "general", max: 1 }), []);
    await until(async () => (await manager.streams.info(STREAM)).config.subjects.length === 3);
    await ring(bell, 5, 2, "postgres");
    assert.equal((await take(bell, 2, "database")).size, 2);
    assert.ok(said.some(([message]) => message === "doorbell.restored"));
  });

  it("that vanishes is made again by whoever rings", async () => {
    const bell = await open();
    await manager.streams.delete(STREAM);
    bell.ring(ringOf(1));
    await until(async () => (await manager.streams.list().next()).length === 1);
    await until(() => bell.counters.lost === 1);
  });

  it("a consumer that vanishes is made again, and begins with what is rung then", async () => {
    const bell = await open();
    await ring(bell, 0, 50);
    await take(bell, 50);
    await manager.consumers.delete(STREAM, POOL);
    assert.deepEqual(await bell.look({ work_class: "general", max: 10 }), []);
    await until(() => infoOf().catch(() => false));
    assert.equal(await pendingOf(), 0, "what was taken before does not come again");
    await ring(bell, 50, 1);
    assert.deepEqual([...(await take(bell, 1))], [ringOf(50).command_id]);
  });

  it("a ring that is given back comes again, and one that nobody takes is counted", async () => {
    const bell = await open(64, { NATS_MAX_DELIVER: "2" });
    await ring(bell, 0, 1);
    let offers = 0;
    await until(async () => {
      for (const rung of await bell.look({ work_class: "general", max: 1 })) {
        offers += 1;
        rung.giveBack();
      }
      return bell.counters.given_up === 1;
    }, 5_000);
    assert.equal(offers, 2);
    await until(async () => (await infoOf()).num_ack_pending === 0);
  });

  it("is not filled by repetitions of what waits, and takes them when nothing does", async () => {
    const bell = await open();
    await ring(bell, 0, 1);
    await take(bell, 1);
    await ring(bell, 0, 1);
    assert.equal((await take(bell, 1)).size, 1, "nothing waited: it was rung again");
    // From the first look at what waits on, a ring that waits is not taken twice.
    await until(async () => {
      await ring(bell, 1, 50);
      const before = await pendingOf();
      await ring(bell, 1, 50);
      return before > 0 && (await pendingOf()) === before;
    });
    const { state } = await manager.streams.info(STREAM);
    const before = state.messages;
    for (let round = 0; round < 20; round += 1) await ring(bell, 1, 50);
    assert.equal((await manager.streams.info(STREAM)).state.messages, before);
    await ring(bell, 51, 1);
    assert.ok((await take(bell, 51)).has(ringOf(51).command_id), "a new one is taken");
  });

  it("keeps a ring to one worker, and the one to all after it, where others wait", async () => {
    const bell = await open();
    await bell.attend("node-1");
    const kept = async () => (await manager.streams.info(STREAM)).state.messages;
    const rings = async (number: number, to?: string) => {
      const before = bell.counters.rung;
      bell.ring(ringOf(number), to);
      await until(() => bell.counters.rung > before);
      return kept();
    };
    for (const to of ["node-1", undefined]) {
      await until(async () => (await kept()) === (await rings(0, to)));
    }
    const before = await kept();
    assert.deepEqual([await rings(1, "node-1"), await rings(1)], [before + 1, before + 2]);
  });

  it("with room for one takes one, of one that names it and one for all", async () => {
    const [bell, other] = [await open(), await open()];
    await bell.attend("node-1");
    const { consumer } = ownLaneOf(loadSettings({}), "general", "node-1");
    const taken = async () =>
      (await infoOf()).num_ack_pending + (await infoOf(consumer)).num_ack_pending;
    const { signal } = new AbortController();
    for (let round = 0; round < 20; round += 1) {
      const pulling = bell.fetch({ work_class: "general", max: 1 }, signal);
      await connection.flush();
      // A step may be taken from its knock, and then none is taken from the stream.
      const actor = round % 2 === 0 ? "loops" : "executions";
      other.ring({ ...ringOf(2 * round), actor }, "node-1");
      other.ring({ ...ringOf(2 * round + 1), actor });
      const first = await pulling;
      await until(() => other.counters.rung === 2 * round + 2);
      assert.equal(first.length, 1);
      if (actor === "loops") assert.equal(await taken(), 1);
      // The copy of an earlier step may just be on its way out.
      else await until(async () => (await taken()) <= 1, 1_000);
      // The other one is found without anybody's saying so again.
      const second = await bell.fetch({ work_class: "general", max: 1 }, signal);
      const ids = [...first, ...second].map(rung => rung.command_id).sort();
      assert.deepEqual(
        ids,
        [ringOf(2 * round).command_id, ringOf(2 * round + 1).command_id].sort(),
      );
      for (const rung of [...first, ...second]) rung.ack();
    }
  });

  it("a worker that is full hears that a step waits for it, and finds it first", async () => {
    const [bell, other] = [await open(), await open()];
    await bell.attend("node-1");
    assert.deepEqual(await bell.look({ work_class: "general", max: 1 }), []);
    await ring(other, 0, 3);
    other.ring({ ...ringOf(3), actor: "loops" }, "node-1");
    await until(() => other.counters.rung === 4);
    await connection.flush();
    assert.equal(bell.waiting("general"), 0, "an item of a loop makes nobody hurry");
    other.ring(ringOf(4), "node-1");
    await until(() => bell.waiting("general") === 1);
    assert.equal(bell.waiting("database"), 0);
    const found: string[] = [];
    while (found.length < 5) {
      const rungs = await bell.look({ work_class: "general", max: 3 });
      found.push(...rungs.map(rung => rung.command_id));
    }
    const [own, pool] = [found.slice(0, 2), found.slice(2)];
    assert.deepEqual(new Set(own), new Set([ringOf(4).command_id, ringOf(3).command_id]));
    assert.deepEqual(new Set(pool), new Set([0, 1, 2].map(number => ringOf(number).command_id)));
    assert.equal(bell.waiting("general"), 0);
  });

  it("what comes in the moment a pull is ended is handed over, not lost to nobody", async () => {
    const bell = await open();
    const { between } = chance("ended pulls");
    const seen = new Set<string>();
    for (let round = 0; round < 100; round += 1) {
      const ends = new AbortController();
      const pulling = bell.fetch({ work_class: "general", max: 1 }, ends.signal);
      await connection.flush();
      bell.ring(ringOf(round));
      if (between(0, 1) === 1) await connection.flush();
      ends.abort();
      for (const rung of await pulling) {
        seen.add(rung.command_id);
        rung.ack();
      }
    }
    assert.ok(seen.size > 0 && seen.size < 100, "neither always nor never in time");
    // Those that came too late for their pull still wait, and nobody has them.
    await until(async () => {
      for (const rung of await bell.look({ work_class: "general", max: 100 })) {
        seen.add(rung.command_id);
        rung.ack();
      }
      return seen.size === 100;
    }, 2_000);
  });

  for (const retention of ["workqueue", "interest"]) {
    it(`of retention ${retention} is refused, with the way out, and not touched`, async () => {
      const config = { name: STREAM, subjects: ["noetl.commands"], retention };
      await manager.streams.add(config as object);
      const words = await refusal(() => open());
      assert.match(words, new RegExp(`^REJECTED .*retention '${retention}', expected 'limits'`));
      assert.match(words, /nats stream rm NOETL_COMMANDS/);
      assert.equal((await manager.streams.info(STREAM)).config.subjects.length, 1);
    });
  }

  it("whose subject another stream takes is refused, with the settings that cure it", async () => {
    await manager.streams.add({ name: "OTHERS", subjects: ["noetl.>"] });
    const words = await refusal(() => open());
    assert.match(words, /^REJECTED another stream .*NATS_STREAM.*NATS_SUBJECT/);
  });

  for (const [what, config, words] of [
    ["pushes", { ack_policy: "explicit", deliver_subject: "x" }, /pushes, and workers pull/],
    ["wants no acknowledgements", { ack_policy: "none" }, /ack_policy 'none', expected 'explicit'/],
  ] as const) {
    it(`a consumer that ${what} is refused, with the way out`, async () => {
      await manager.streams.add({ name: STREAM, subjects: ["noetl.commands"] });
      await manager.consumers.add(STREAM, { durable_name: POOL, ...config } as object);
      const said = await refusal(() => open());
      assert.match(said, words);
      assert.match(said, /nats consumer rm NOETL_COMMANDS noetl_worker_pool'/);
    });
  }

  it("is widened, and a consumer corrected in every field that is ours", async () => {
    await manager.streams.add({ name: STREAM, subjects: ["mine"], max_msg_size: 100 });
    await manager.consumers.add(STREAM, {
      durable_name: POOL,
      ...({
        ack_policy: "explicit",
        filter_subject: "mine",
        max_deliver: 3,
        ack_wait: 1e9,
      } as object),
    });
    await open();
    const { config: stream } = await manager.streams.info(STREAM);
    assert.deepEqual(stream.subjects, [
      ...["mine", "noetl.commands", "noetl.commands.db"],
      "noetl.commands.to.>",
    ]);
    assert.equal(stream.max_msg_size, 4_096);
    const { config } = await infoOf();
    const { max_deliver, ack_wait, filter_subject, max_ack_pending }: ConsumerConfig = config;
    assert.deepEqual(
      [max_deliver, ack_wait, filter_subject, max_ack_pending],
      [-1, 30e9, "noetl.commands", 64],
    );
  });
});
