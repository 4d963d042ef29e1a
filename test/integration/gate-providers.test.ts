// What a gate asks outside: a quota kept in Postgres, a ResourceQuota of Kubernetes over HTTPS, a
// probe over HTTP, the pools of a tool. Real servers; Kubernetes is a stand-in for its API.
import { strict as assert } from "node:assert";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { createClock } from "../../mixins/clock.ts";
import { createQuotaReader } from "../../mixins/kubernetes.ts";
import { openDatabase, type Database } from "../../mixins/postgres/index.ts";
import { kubernetesProvider } from "../../services/worker/gate/kubernetes.ts";
import { probeProvider } from "../../services/worker/gate/probe.ts";
import { reservedProvider } from "../../services/worker/gate/reserved.ts";
import { ask, until } from "../support/actors.ts";
import { chance } from "../support/chance.ts";
import { QUOTA, startKubernetes, type TestKubernetes } from "../support/kubernetes-api.ts";
import { testDatabase, type TestDatabase } from "../support/postgres.ts";

const { signal: never } = new AbortController();
const clock = createClock();

describe("a quota that is kept in Postgres", function () {
  this.timeout(60_000);
  let test: TestDatabase;
  let database: Database;
  const open: { close?(): Promise<void> }[] = [];
  beforeEach(async () => {
    test = await testDatabase({ migrated: true });
    database = openDatabase({ url: test.url, size: 4 });
  });
  afterEach(async () => {
    for (const one of open.splice(0)) await one.close?.();
    await database.close();
    await test.drop();
  });

  function worker(holder: string, limit = 10, leaseMs = 30_000) {
    const options = { database, clock, name: "q", limit, ratio: 1, holder, leaseMs };
    const provider = reservedProvider(options);
    open.push(provider);
    return {
      provider,
      reserve: (count: number) => provider.reserve!(count, never),
      release: (count: number) => provider.release!(count),
      free: async () => (await provider.snapshot(never)).free,
    };
  }
  const used = async () =>
    (await ask<{ used: number }>(test.url, "select used from noetl.capacity"))[0]?.used;
  const leased = async () =>
    (await ask<{ n: number }>(test.url, "select sum(count)::int n from noetl.capacity_lease"))[0]
      ?.n;

  it("gives what is left of it, and no more, and takes it back", async () => {
    const [one, two] = [worker("one"), worker("two")];
    assert.deepEqual([await one.reserve(7), await two.reserve(7), await one.reserve(1)], [7, 3, 0]);
    assert.equal(await one.free(), 0);
    one.release(5);
    await until(async () => (await used()) === 5);
    assert.deepEqual([await two.free(), await two.reserve(9), await leased()], [5, 5, 10]);
  });

  it("whatever workers do at once, never more than the limit is held", async () => {
    const { between } = chance("quota");
    const limit = 10;
    const held = { all: 0, most: 0 };
    const lives = Array.from({ length: 6 }, async (_, at) => {
      const { reserve, provider } = worker(`w${at}`, limit);
      for (let round = 0; round < 60; round += 1) {
        const got = await reserve(between(1, 4));
        held.all += got;
        held.most = Math.max(held.most, held.all);
        assert.ok(held.all <= limit, `${held.all} held`);
        await database.query("select 1");
        held.all -= got;
        provider.release!(got);
      }
      await provider.snapshot(never);
      await provider.close!();
    });
    await Promise.all(lives);
    assert.ok(held.most > limit / 2, "there was no contention");
    assert.deepEqual([await used(), await leased()], [0, 0]);
  });

  it("what a dead worker held comes back within its lease, once", async () => {
    const dead = worker("dead", 10, 600);
    assert.equal(await dead.reserve(6), 6);
    // It renews no more; its row is as a kill -9 leaves it.
    await ask(
      test.url,
      "update noetl.capacity_lease set expires_at = now() - interval '1 s' where holder = 'dead'",
    );
    const living = worker("living");
    assert.equal(await living.reserve(10), 4);
    const frees = await Promise.all([living.free(), worker("other").free(), living.free()]);
    assert.deepEqual([await used(), await leased()], [4, 4]);
    assert.ok(frees.includes(6));
    assert.equal(await living.reserve(10), 6);
    // It was only slow: what it gives back now is not its any more.
    await until(() => dead.provider.overshoot!() === 6);
    dead.release(6);
    await dead.provider.close!();
    assert.deepEqual([await used(), await leased()], [10, 10]);
  });

  it("a worker that lives keeps its part, however long its work takes", async () => {
    const slow = worker("slow", 10, 300);
    await slow.reserve(8);
    const [{ at = "" } = {}] = await ask<{ at: string }>(
      test.url,
      "select expires_at::text as at from noetl.capacity_lease",
    );
    await until(async () => {
      const [row] = await ask<{ renewed: boolean }>(
        test.url,
        `select expires_at > $1::timestamptz + interval '0.6 s' as renewed
         from noetl.capacity_lease`,
        [at],
      );
      return row?.renewed;
    });
    const other = worker("other");
    assert.deepEqual([await other.free(), slow.provider.overshoot!()], [2, 0]);
  });
});

describe("a ResourceQuota of Kubernetes", function () {
  this.timeout(30_000);
  let api: TestKubernetes;
  beforeEach(async function () {
    const started = await startKubernetes();
    if (!started) return this.skip();
    api = started;
  });
  afterEach(() => api?.close());

  const place = (more: object = {}) => ({
    ...{ host: "127.0.0.1", port: api.port, serviceAccount: api.serviceAccount },
    ...{ name: QUOTA, resource: "count/jobs.batch", ...more },
  });

  it("is read with the service account's token, over its own authority", async () => {
    const provider = kubernetesProvider(place(), 0.95);
    api.quota.used = 70;
    assert.deepEqual(await provider.snapshot(never), { limit: 75, used: 70, free: 1 });
    api.quota.used = 71;
    assert.equal((await provider.snapshot(never)).free, 0);
    await provider.close?.();
  });

  it("a token that was changed is read anew", async () => {
    const reader = createQuotaReader(place());
    await reader.read(never);
    await api.setToken("second", false);
    await assert.rejects(
      reader.read(never),
      /may not get ResourceQuota noetl-test\/workflow-quota/,
    );
    await api.setToken("second");
    assert.equal((await reader.read(never)).limit, 75);
    await reader.close();
  });

  for (const [what, more, words] of [
    ["that is not there", { name: "other" }, /there is no ResourceQuota noetl-test\/other/],
    ["that has not the resource", { resource: "pods" }, /says nothing of pods/],
    ["of an account without files", { serviceAccount: "/nonexistent" }, /ENOENT/],
  ] as const) {
    it(`one ${what} is an error, in words, and never room`, async () => {
      const reader = createQuotaReader(place(more));
      await assert.rejects(reader.read(never), words);
      await reader.close();
    });
  }

  it("a server with another certificate is not believed", async () => {
    const other = (await startKubernetes())!;
    const reader = createQuotaReader(place({ port: other.port }));
    await assert.rejects(reader.read(never), /certificate|self.signed/i);
    await reader.close();
    await other.close();
  });
});

describe("a probe over HTTP", () => {
  let server: Server;
  let answer: { status: number; body: string };
  beforeEach(async () => {
    server = createServer((_request, response) => {
      response.writeHead(answer.status);
      response.end(answer.body);
    });
    await new Promise<void>(resolve => server.listen(0, "127.0.0.1", resolve));
  });
  afterEach(() => {
    server.closeAllConnections();
    server.close();
  });

  async function freeAfter(status: number, body: string): Promise<number | string> {
    answer = { status, body };
    const { port } = server.address() as AddressInfo;
    try {
      return (await probeProvider(`http://127.0.0.1:${port}/`, 0.5).snapshot(never)).free;
    } catch (error) {
      return (error as Error).message;
    }
  }

  it("says what is free, that it is full, or is an error", async () => {
    assert.equal(await freeAfter(200, '{"limit": 100, "used": 20}'), 30);
    assert.equal(await freeAfter(200, '{"free": 3}'), 3);
    assert.equal(await freeAfter(429, "slow down"), 0);
    assert.equal(await freeAfter(503, ""), 0);
    assert.match(String(await freeAfter(500, "")), /answers 500/);
    assert.match(String(await freeAfter(200, "[]")), /no JSON object/);
    assert.match(String(await freeAfter(200, '{"used": 3}')), /neither limit and used nor free/);
    assert.match(String(await freeAfter(200, '{"limit": 0, "used": 0}')), /admits nobody/);
  });
});
