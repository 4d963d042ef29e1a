// The NATS KV cacher: Moleculer's Memory cacher plays the same script.
import { strict as assert } from "node:assert";
import { Cachers, ServiceBroker, type Context } from "moleculer";
import { NatsKvCacher } from "../../mixins/cacher/nats-kv.ts";
import { fromKvKey, isMeant, toKvKey } from "../../mixins/cacher/kv-keys.ts";
import { needsNats } from "../support/cluster.ts";
import { until } from "../support/actors.ts";
import { natsServerBinary, startNats, type TestNats } from "../support/nats.ts";

const ENTRIES: [string, unknown][] = [
  ["posts.find", [1, 2]],
  ["posts.find:null", { rows: [] }],
  ['posts.get:"a b/ü*>.|"', { title: "ü" }],
  ["posts.get:", "empty params"],
  ["v2.posts.list:page|5", 0],
  ["users.get:5", null],
  ["users.list", false],
  [`users.get:"${"x".repeat(3_000)}"`, "long"],
  [`users.get:"${"x".repeat(3_001)}"`, "longer"],
];
const PATTERNS = ["posts.*", "posts.**", "posts.find:**", "**.list**", "users.get:*", "v2.**", "*"];

type AnyCacher = InstanceType<typeof Cachers.Base>;

/** What is left of the entries after each pattern, with a fresh cache each time. */
async function script(cacher: AnyCacher): Promise<unknown> {
  const seen: unknown[] = [];
  for (const pattern of [...PATTERNS, ["posts.find", "users.**"], undefined]) {
    for (const [key, value] of ENTRIES) await cacher.set(key, value);
    await cacher.clean(pattern);
    const left: unknown[] = [];
    for (const [key] of ENTRIES) left.push(await cacher.get(key));
    seen.push([pattern, left]);
  }
  for (const [key, value] of ENTRIES) await cacher.set(key, value);
  await cacher.del("posts.find");
  await cacher.del(["users.list", "nowhere"]);
  const count = ((await cacher.getCacheKeys()) as unknown[]).length;
  await cacher.set("posts.find", "again", 60);
  const kept = (await cacher.getWithTTL("posts.find")) as { data: unknown; ttl: number };
  const endless = await cacher.getWithTTL("posts.find:null");
  return [seen, count, kept.data, kept.ttl > 55 && kept.ttl <= 60, endless];
}

/** Two that want the same lock, and one that comes while it is held. */
async function locks(cacher: AnyCacher): Promise<string[]> {
  const said: string[] = [];
  const unlock = await cacher.lock("report", 5_000);
  const second = cacher.lock("report", 5_000).then(async release => {
    said.push("second has it");
    await release();
  });
  await cacher.tryLock("report", 5_000).catch((error: Error) => said.push(error.message));
  const other = await cacher.tryLock("another", 5_000);
  said.push("first lets go");
  await unlock();
  await other();
  await second;
  const last = await cacher.tryLock("report", 5_000);
  await last();
  return said;
}

describe("the NATS KV cacher", function () {
  this.timeout(40_000);
  let nats: TestNats;
  let brokers: ServiceBroker[] = [];

  before(needsNats);
  beforeEach(async () => {
    nats = await startNats(natsServerBinary() ?? "nats-server");
  });
  afterEach(async () => {
    for (const broker of brokers) await broker.stop();
    brokers = [];
    await nats.stop();
  });

  async function brokerWith(cacher: AnyCacher): Promise<ServiceBroker> {
    const registry = { stopDelay: 0 };
    const broker = new ServiceBroker({ logger: false, registry, cacher: cacher as never });
    brokers.push(broker);
    if (cacher instanceof NatsKvCacher) await cacher.ready();
    return broker;
  }

  const make = () =>
    new NatsKvCacher({ connection: { servers: nats.url, reconnectTimeWait: 50 }, bucket: "CACHE" });

  it("keeps, deletes, cleans by pattern and ends as the Memory cacher does", async () => {
    const [ours, theirs] = [make(), new Cachers.Memory({ clone: true })];
    await brokerWith(ours);
    await brokerWith(theirs);
    const expected = await script(theirs);
    assert.deepEqual(await script(ours), expected);
    assert.deepEqual(await locks(ours), await locks(theirs));
  });

  it("gives an entry up at its end", async () => {
    const cacher = make();
    await brokerWith(cacher);
    await cacher.set("a.b", 1, 0.05);
    assert.equal(await cacher.get("a.b"), 1);
    await until(async () => (await cacher.get("a.b")) === undefined);
  });

  it("is one cache for all nodes: what one knows, another need not find out", async () => {
    let runs = 0;
    const action = {
      name: "reports",
      actions: {
        get: {
          cache: { keys: ["id"], ttl: 30, lock: { enabled: true } },
          async handler(ctx: Context<{ id: number }>) {
            runs += 1;
            await new Promise(resolve => setTimeout(resolve, 30));
            return { id: ctx.params.id, runs };
          },
        },
      },
    };
    const nodes = await Promise.all([make(), make()].map(brokerWith));
    for (const broker of nodes) {
      broker.createService(action);
      await broker.start();
    }
    const calls = Array.from({ length: 20 }, (_, n) =>
      nodes[n % 2]!.call("reports.get", { id: 7 }),
    );
    const answers = await Promise.all(calls);
    assert.deepEqual(
      new Set(answers.map(one => JSON.stringify(one))),
      new Set(['{"id":7,"runs":1}']),
    );
    await nodes[0]!.cacher?.clean("reports.**");
    await nodes[1]!.call("reports.get", { id: 7 });
    assert.equal(runs, 2);
  });

  it("lets nobody wait for a lock whose holder is gone", async () => {
    const cacher = make();
    await brokerWith(cacher);
    const late = await cacher.lock("report", 40);
    const unlock = await cacher.lock("report", 5_000);
    await late();
    await assert.rejects(cacher.tryLock("report", 5_000), /Locked/, "the late one ends no other's");
    await unlock();
  });

  it("costs time only when the bucket is deleted, and is made again", async () => {
    const cacher = make();
    await brokerWith(cacher);
    await cacher.set("a.b", 1);
    const { connect } = await import("nats");
    const connection = await connect({ servers: nats.url });
    await (await connection.jetstreamManager()).streams.delete("KV_CACHE");
    await connection.close();
    assert.equal(await cacher.get("a.b"), undefined);
    await until(async () => {
      await cacher.set("a.b", 2);
      return (await cacher.get("a.b")) === (2 as never);
    });
  });

  it("is a miss while NATS is away, and owes what should have been cleaned meanwhile", async () => {
    const [cacher, other] = [make(), make()];
    const broker = await brokerWith(cacher);
    await brokerWith(other);
    let runs = 0;
    broker.createService({
      name: "a",
      actions: { b: { cache: true, handler: () => ({ runs: (runs += 1) }) } },
    });
    await broker.start();
    // Nobody waits for what is being kept, so the first call after another may be a miss.
    await until(async () => {
      const before = runs;
      await broker.call("a.b");
      return runs === before;
    });
    const kept = runs;
    await nats.loseAll();
    await until(() => Promise.resolve(cacher.connected === false));
    await broker.call("a.b");
    assert.equal(runs, kept + 1, "the action itself is asked");
    await cacher.set("a.b", "lost");
    assert.equal(await cacher.get("a.b"), undefined);
    const unlock = await cacher.lock("a.b");
    await unlock();
    await cacher.clean("a.**");
    await nats.start();
    await other.ready();
    await other.set("a.b", { runs: "stale" });
    await cacher.ready();
    await until(async () => (await broker.call<{ runs: unknown }>("a.b")).runs !== "stale");
  });
});

describe("keys of the NATS KV cacher", () => {
  it("are of NATS' alphabet, and tell any two keys apart", () => {
    const keys = [...ENTRIES.map(([key]) => key), "", ":", "a", "a:", "a:_", "A", "a.b:c.d"];
    const kvKeys = keys.map(toKvKey);
    assert.equal(new Set(kvKeys).size, keys.length);
    for (const [place, kvKey] of kvKeys.entries()) {
      assert.match(kvKey, /^[-/=.\w]+$/);
      assert.doesNotMatch(kvKey, /^\.|\.\.|\.$/);
      const key = keys[place] ?? "";
      if (key.length < 500) assert.equal(fromKvKey(kvKey), key);
    }
  });

  it("with long params are cleaned by what comes before them, rather too much", () => {
    const kvKey = toKvKey(`users.get:"${"x".repeat(1_000)}"`);
    assert.equal(isMeant(kvKey, "users.**"), true);
    assert.equal(isMeant(kvKey, 'users.get:"y"'), true);
    assert.equal(isMeant(kvKey, "posts.**"), false);
  });
});
