// Rate limits: how they are written, which of them a call meets, and how its turns come.
import { strict as assert } from "node:assert";
import { localBuckets, HORIZON_MS } from "../../mixins/rate-limit/buckets.ts";
import { RateLimiter } from "../../mixins/rate-limit/limiter.ts";
import { Unavailable } from "../../schemas/errors.ts";
import {
  LimitBook,
  parseRate,
  parseTarget,
  readTaskLimit,
  showRate,
  withTaskLimit,
  type Limit,
} from "../../schemas/rate-limit.ts";
import { pauseOf } from "../../services/tool.http/response.ts";

const limit = (target: string, text: string): Limit => ({
  target,
  rate: text === "none" ? null : (parseRate(text) ?? null),
});

describe("a rate", () => {
  const table: [unknown, number, number][] = [
    ["200/s", 200, 4],
    [" 100 / min burst 7 ", 100 / 60, 7],
    ["36/hour", 0.01, 1],
    [2.5, 2.5, 1],
    ["10", 10, 1],
  ];
  for (const [text, per_second, burst] of table) {
    it(`'${String(text)}' is ${per_second} a second, ${burst} at once`, () => {
      assert.deepEqual(parseRate(text), { per_second, burst });
    });
  }

  it("is refused when it is none, or never lets anything through", () => {
    const bad = ["", "fast", "0/s", "-1/s", "10/year", "1e9/s", "10/s burst 0", true, null, [5]];
    for (const text of bad) assert.equal(parseRate(text), undefined, String(text));
    assert.equal(parseRate("10/s", 1.5), undefined);
  });

  it("is shown as it can be written again", () => {
    for (const text of ["200/s burst 4", "100/m burst 2", "5/h burst 1", "1/d burst 1"]) {
      const rate = parseRate(text);
      assert.equal(rate && showRate(rate), text);
    }
    assert.equal(showRate(null), "none");
  });
});

describe("a target", () => {
  it("names a tool, and a host, a credential or an action of it", () => {
    const good = ["http", "http:host:*", "http:host:*.example.com", "postgres:credential:my_db"];
    for (const text of good) assert.equal(parseTarget(text), text);
    assert.equal(parseTarget(" http:host:API.example.com:8443 "), "http:host:api.example.com:8443");
    const bad = ["", "hppt", "http:", "http:path:x", "http:host:", "http:host:a*b", "http:host:**"];
    for (const text of [...bad, "http:host:a b", `http:host:${"x".repeat(300)}`]) {
      assert.equal(parseTarget(text), undefined, text);
    }
  });
});

describe("the limits of a call", () => {
  const book = new LimitBook([
    limit("http", "100/s"),
    limit("http:host:*", "10/s"),
    limit("http:host:*.example.com", "20/s"),
    limit("http:host:api.example.com", "30/s"),
    limit("http:host:free.example.com", "none"),
    limit("http:credential:k", "5/s"),
  ]);
  const met = (labels: Record<string, string>, tool = "http") =>
    book.of(tool, labels).map(({ bucket, rate }) => `${bucket} ${rate.per_second}`);

  it("are the whole tool's, and of each label the closest one", () => {
    assert.deepEqual(met({ host: "api.example.com" }), [
      "http 100",
      "http:host:api.example.com 30",
    ]);
    assert.deepEqual(met({ host: "www.example.com" }), [
      "http 100",
      "http:host:www.example.com 20",
    ]);
    assert.deepEqual(met({ host: "other.org", credential: "k" }), [
      "http 100",
      "http:host:other.org 10",
      "http:credential:k 5",
    ]);
    assert.deepEqual(met({ host: "free.example.com" }), ["http 100"]);
    assert.deepEqual(met({ host: "api.example.com" }, "postgres"), []);
  });

  it("are never faster for what a task asks itself, and slower when it asks for that", () => {
    const uses = book.of("http", { host: "api.example.com" });
    const own = (text: string, bucket = "http:host:api.example.com") => ({
      bucket,
      rate: parseRate(text) ?? { per_second: 0, burst: 0 },
    });
    const rates = (added: ReturnType<typeof own>) =>
      withTaskLimit(uses, added).map(({ rate }) => rate.per_second);
    assert.deepEqual(rates(own("500/s")), [100, 30]);
    assert.deepEqual(rates(own("3/s")), [100, 3]);
    assert.deepEqual(rates(own("3/s", "http:task:p/s/t")), [100, 30, 3]);
  });

  it("of a task are a rate or a map of it, and what is wrong is named", () => {
    const rate = { per_second: 10, burst: 2 };
    assert.deepEqual(readTaskLimit({ rate: "10/s", burst: 2, per: "task" }), { rate, per: "task" });
    assert.match(String(readTaskLimit({ rate: "10/s", key: "x" })), /'key' is unknown/);
    assert.match(String(readTaskLimit({ rate: "10/s", per: "path" })), /per: one of host/);
    assert.match(String(readTaskLimit("soon")), /no rate/);
  });
});

/** Of a limiter whose turns are kept on a machine that does much else. */
const lateMs = 500;

describe("a limiter", () => {
  const call = { tool: "http", labels: { host: "h" } };
  const busy = (retry: (ms: number) => boolean) => (error: unknown) => {
    const { type, data } = error as { type: string; data: { retry_after_ms: number } };
    return type === "BUSY" && retry(data.retry_after_ms);
  };

  it("lets what has no limit pass without asking anybody", async () => {
    const limiter = new RateLimiter();
    await limiter.admit(call);
    assert.equal(limiter.counters.leases, 0);
  });

  it("spaces calls by the rate, with one lease for all that wait", async () => {
    const limiter = new RateLimiter({ fixed: [limit("http:host:h", "50/s burst 1")], lateMs });
    const startedAt = performance.now();
    const times = await Promise.all(
      Array.from({ length: 6 }, async () => {
        await limiter.admit(call);
        return performance.now() - startedAt;
      }),
    );
    assert.equal(limiter.counters.leases, 1);
    for (const [place, ms] of times.entries()) {
      assert.ok(ms >= place * 20 - 2, `call ${place} went after ${ms} ms`);
    }
  });

  it("takes another turn for one that it missed, so that two calls never meet", async () => {
    const limiter = new RateLimiter({ fixed: [limit("http:host:h", "20/s burst 1")] });
    await limiter.admit(call);
    const others = Promise.all([limiter.admit(call), limiter.admit(call)]);
    await new Promise(resolve => setTimeout(resolve, 10));
    const busyUntil = performance.now() + 250;
    while (performance.now() < busyUntil);
    await others;
    assert.equal(limiter.counters.leases, 3, "the two missed turns are leased anew, together");
  });

  it("tells who would wait beyond the horizon when to come back", async () => {
    const limiter = new RateLimiter({ fixed: [limit("http", "10/s burst 1")], lateMs });
    const settled = await Promise.allSettled(Array.from({ length: 20 }, () => limiter.admit(call)));
    const refused = settled.flatMap(one => (one.status === "rejected" ? [one.reason] : []));
    assert.equal(refused.length, 20 - (1 + HORIZON_MS / 100));
    const waits = refused.map(error => (error as { data: { retry_after_ms: number } }).data);
    assert.ok(
      waits.every((one, n) => n === 0 || one.retry_after_ms > waits[n - 1]!.retry_after_ms),
    );
    assert.equal((refused[0] as { type: string }).type, "BUSY");
  });

  it("holds calls of a host that asked for a pause, with a turn or without", async () => {
    const limiter = new RateLimiter({ fixed: [limit("http:host:h", "10/s burst 1")] });
    const told: [string, number][] = [];
    limiter.announce = (bucket, ms) => told.push([bucket, ms]);
    await limiter.admit(call);
    const later = limiter.admit(call);
    later.catch(() => undefined);
    await new Promise(resolve => setTimeout(resolve, 20));
    await limiter.pause("http:host:h", 30_000);
    await limiter.pause("http:host:h", 30_000);
    assert.deepEqual(told, [["http:host:h", 30_000]], "the same pause is told once");
    await assert.rejects(
      later,
      busy(ms => ms === 5_000),
    );
    await assert.rejects(
      limiter.admit(call),
      busy(ms => ms === 5_000),
    );
    await limiter.admit({ tool: "http", labels: { host: "other" } });
  });

  it("hears of a pause from another process, and shortens none by it", async () => {
    const limiter = new RateLimiter();
    limiter.heard("http:host:h", 3_000);
    limiter.heard("http:host:h", 5);
    await assert.rejects(
      limiter.admit(call),
      busy(ms => ms > 2_000),
    );
  });

  it("gives the call up with its signal, and its turn is nobody's loss", async () => {
    const limiter = new RateLimiter({ fixed: [limit("http", "5/s burst 1")] });
    await limiter.admit(call);
    const stop = new AbortController();
    const waiting = limiter.admit({ ...call, signal: stop.signal });
    stop.abort(new Error("taken back"));
    await assert.rejects(waiting, /taken back/);
  });

  it("reads limits that were set, and keeps the last ones while the store is away", async () => {
    let stored: Limit[] | undefined = [limit("http", "1/h")];
    const limiter = new RateLimiter({
      fixed: [limit("http", "1000/s"), limit("noop", "1/s")],
      stored: () =>
        stored ? Promise.resolve(stored) : Promise.reject(new Unavailable("no database")),
    });
    const shown = async () =>
      (await limiter.limits()).map(({ target, rate }) => `${target} ${showRate(rate)}`);
    assert.deepEqual(await shown(), ["http 1/h burst 1", "noop 1/s burst 1"]);
    stored = undefined;
    assert.deepEqual(await shown(), ["http 1/h burst 1", "noop 1/s burst 1"]);
    stored = [];
    assert.deepEqual(await shown(), ["http 1000/s burst 20", "noop 1/s burst 1"]);
  });

  it("is Busy while the shared buckets are away: nobody goes unlimited", async () => {
    const away = () => Promise.reject(new Unavailable("no database"));
    const buckets = { ...localBuckets(), lease: away };
    const limiter = new RateLimiter({ buckets, fixed: [limit("http", "10/s")] });
    await assert.rejects(
      limiter.admit(call),
      busy(ms => ms === 1_000),
    );
  });
});

describe("what an upstream asks for", () => {
  const asks = (status: number, after?: string) =>
    pauseOf(
      { status, headers: after === undefined ? {} : { "retry-after": after } },
      { nowMs: Date.parse("2026-01-01T00:00:00Z"), maxMs: 300_000, pauseMs: 1_000 },
    );

  it("is a pause of seconds, or until a date, to a limit", () => {
    assert.equal(asks(429, "7"), 7_000);
    assert.equal(asks(429, "Thu, 01 Jan 2026 00:00:30 GMT"), 30_000);
    assert.equal(asks(429, "Wed, 31 Dec 2025 00:00:00 GMT"), 0);
    assert.equal(asks(503, "2"), 2_000);
    assert.equal(asks(429, "86400"), 300_000);
  });

  it("is a short one for a bare 429, and none for anything else", () => {
    assert.equal(asks(429), 1_000);
    assert.deepEqual([asks(503), asks(200, "5"), asks(500, "5")], [0, 0, 0]);
  });
});
