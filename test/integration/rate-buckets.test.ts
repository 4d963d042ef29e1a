// Buckets of calls: the shared ones in Postgres answer as those of one process, and never twice.
import { strict as assert } from "node:assert";
import { localBuckets, sharedBuckets, HORIZON_MS } from "../../mixins/rate-limit/buckets.ts";
import type { Buckets } from "../../mixins/rate-limit/buckets.ts";
import { openDatabase, type Database } from "../../mixins/postgres/index.ts";
import {
  clearLimit,
  forgetBuckets,
  listLimits,
  setLimit,
  type Grant,
} from "../../mixins/postgres/rate.ts";
import { testDatabase, type TestDatabase } from "../support/postgres.ts";

/** Turns of one bucket. */
async function lease(
  buckets: Buckets,
  wanted: number,
  rate: { perSecond: number; burst?: number },
) {
  const { perSecond, burst = 1 } = rate;
  const asked = { bucket: "b", wanted, intervalMs: 1_000 / perSecond, burst };
  const grants = await buckets.lease([asked]);
  return grants.get("b") as Grant;
}

describe("buckets of rates", () => {
  let database: TestDatabase;
  let opened: Database[] = [];

  const open = (): Database => {
    const one = openDatabase({ url: database.url, size: 4 });
    opened.push(one);
    return one;
  };
  const kinds: [string, () => Buckets][] = [
    ["of one process", () => localBuckets()],
    ["shared in Postgres", () => sharedBuckets(open())],
  ];

  beforeEach(async () => {
    database = await testDatabase({ migrated: true });
  });

  afterEach(async () => {
    for (const one of opened) await one.close();
    opened = [];
    await database.drop();
  });

  for (const [which, make] of kinds) {
    it(`${which}: the first turn is now, and the next are an interval apart`, async () => {
      const buckets = make();
      const first = await lease(buckets, 3, { perSecond: 10 });
      assert.deepEqual([first.granted, first.wait_ms], [3, 0]);
      const next = await lease(buckets, 1, { perSecond: 10 });
      assert.equal(next.granted, 1);
      assert.ok(next.wait_ms > 200 && next.wait_ms <= 300, `${next.wait_ms}`);
    });

    it(`${which}: a burst goes at once, then the rate holds`, async () => {
      const first = await lease(make(), 100, { perSecond: 10, burst: 5 });
      assert.equal(first.wait_ms, -400, "the last of five begins now");
      assert.equal(first.granted, 5 + HORIZON_MS / 100, "five now, the others within the horizon");
    });

    it(`${which}: beyond the horizon nothing is given, and nothing is lost by asking`, async () => {
      const buckets = make();
      await lease(buckets, 100, { perSecond: 10 });
      const refused = await lease(buckets, 1, { perSecond: 10 });
      const again = await lease(buckets, 1, { perSecond: 10 });
      assert.deepEqual([refused.granted, again.granted], [0, 0]);
      assert.ok(again.wait_ms <= refused.wait_ms && again.wait_ms > HORIZON_MS, "it comes nearer");
    });

    it(`${which}: a pause holds for its time, and a shorter one does not end it`, async () => {
      const buckets = make();
      await buckets.pause("b", 5_000);
      await buckets.pause("b", 10);
      const { granted, wait_ms } = await lease(buckets, 1, { perSecond: 100 });
      assert.equal(granted, 0);
      assert.ok(wait_ms > 4_000 && wait_ms <= 5_000, `${wait_ms}`);
      const left = (await buckets.paused()).get("b") ?? 0;
      assert.ok(left > 4_000 && left <= 5_000, `${left}`);
    });
  }

  it("never gives two processes the same moment, however they meet", async () => {
    const all = Array.from({ length: 4 }, () => sharedBuckets(open()));
    const startedAt = performance.now();
    const times: number[] = [];
    let refused = 0;
    await Promise.all(
      Array.from({ length: 200 }, async (_, n) => {
        const grant = await lease(all[n % 4] as Buckets, 1 + (n % 3), { perSecond: 100 });
        refused += grant.granted < 1 + (n % 3) ? 1 : 0;
        const at = performance.now() + grant.wait_ms;
        times.push(...Array.from({ length: grant.granted }, (_, place) => at + place * 10));
      }),
    );
    const spanMs = performance.now() - startedAt;
    const most = 1 + (spanMs + HORIZON_MS) / 10;
    assert.ok(times.length <= most, `${times.length} turns in ${spanMs} ms, ${most} are allowed`);
    assert.ok(times.length > 40, "the horizon is given out");
    assert.ok(refused > 0, "more was asked for than there is");
  });

  it("takes turns of many buckets in one round trip, in any order", async () => {
    const [one, other] = [sharedBuckets(open()), sharedBuckets(open())];
    const names = Array.from({ length: 20 }, (_, n) => `b${n}`);
    const wish = (bucket: string) => ({ bucket, wanted: 1, intervalMs: 1, burst: 1 });
    const rounds = Array.from({ length: 20 }, async (_, n) => {
      const order = n % 2 === 0 ? names : names.toReversed();
      return (n % 2 === 0 ? one : other).lease(order.map(wish));
    });
    const grants = await Promise.all(rounds);
    assert.ok(grants.every(({ size }) => size === 20));
  });

  it("keeps limits as they were set, and forgets buckets that are full again", async () => {
    const store = open();
    const rate = { per_second: 2.5, burst: 3 };
    await setLimit(store, { target: "http:host:a", rate: { per_second: 1, burst: 1 } }, "ann");
    await setLimit(store, { target: "http:host:a", rate }, "bob");
    await setLimit(store, { target: "http", rate: null }, undefined);
    const [spared, limited] = await listLimits(store, 10);
    assert.deepEqual([spared?.target, spared?.rate], ["http", null]);
    assert.deepEqual([limited?.rate, limited?.updated_by], [rate, "bob"]);
    assert.deepEqual(
      [await clearLimit(store, "http"), await clearLimit(store, "http")],
      [true, false],
    );
    await lease(sharedBuckets(store), 1, { perSecond: 10 });
    await forgetBuckets(store, 3_600);
    const kept = await store.query("select bucket from noetl.rate_bucket");
    await forgetBuckets(store, -3_600);
    const gone = await store.query("select bucket from noetl.rate_bucket");
    assert.deepEqual([kept.rowCount, gone.rowCount], [1, 0]);
  });
});
