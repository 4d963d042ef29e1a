// NATS is not there: when a server and a worker start, or from one moment on for good. The log is
// in Postgres, and work finds its way over HTTP.
import { strict as assert } from "node:assert";
import { until } from "../support/actors.ts";
import { chance } from "../support/chance.ts";
import { needsNats, startCluster, type Cluster, type ClusterOptions } from "../support/cluster.ts";
import { assertCopied, COPY } from "../support/copy-playbook.ts";
import { assertSound } from "../support/log-checker.ts";
import { endAll, type NoetlServer } from "../support/process.ts";
import { asked, ended, inFlight, longestSilenceMs, submit } from "../support/submitted.ts";

const ITEMS = "GET /posts/{id}";
/** The longest pause until work goes on over HTTP. */
const PAUSE_MAX_MS = 3_000;
/** NOETL_DRAIN_SECONDS is 2 here, and nothing runs. */
const END_MAX_MS = 8_000;

interface Health {
  status: string;
  checks: Record<string, string>;
}

async function healthOf(server: NoetlServer): Promise<Health> {
  return (await (await fetch(`${server.url}/health`)).json()) as Health;
}

/** Slots in use, as the only worker said with its last beat. */
async function busyOf(server: NoetlServer): Promise<number | null> {
  const { body } = await server.ask("GET", "/workers");
  const [worker] = body["workers"] as { in_flight: number | null }[];
  return worker?.in_flight ?? null;
}

describe("without NATS", function () {
  this.timeout(90_000);
  let cluster: Cluster;

  before(needsNats);
  afterEach(endAll);
  afterEach(() => cluster?.close());

  const begin = async (options: Partial<ClusterOptions> = {}): Promise<void> => {
    cluster = await startCluster({ servers: 2, workers: 2, isOverHttp: true, ...options });
  };

  async function exact(id: string, posts: number): Promise<void> {
    const { status, tookMs } = await ended(cluster.store.direct, id);
    process.stdout.write(`      ${status} after ${tookMs} ms\n`);
    assert.equal(status, "COMPLETED");
    await assertCopied(cluster.target.direct, posts);
    await assertSound(cluster.store.direct, id);
  }

  it("at their start, work goes over HTTP, and over NATS when it comes", async () => {
    await begin({ isNatsAway: true });
    const [server] = cluster.servers;
    const { status, checks } = await healthOf(server!);
    assert.deepEqual([status, checks["nats"]], ["degraded", "UNAVAILABLE"]);
    const payload = { api_url: cluster.api.url, n: 10 };
    await exact(await submit(server!, COPY, payload), 10);
    for (const { said } of [...cluster.servers, ...cluster.workers]) {
      assert.equal(said.match(/doorbell\.away/g)?.length, 1, said);
    }

    await cluster.nats.start();
    await until(async () => (await healthOf(server!)).status === "ok", 20_000);
    await exact(await submit(server!, COPY, { ...payload, n: 50 }), 50);
  });

  it("for good, work goes on over HTTP within three seconds", async () => {
    await begin();
    const { api, nats, servers, store } = cluster;
    const id = await submit(servers[0]!, COPY, { api_url: api.url, pause: 0.05 });
    await asked(api, ITEMS, chance("nats, for good").between(10, 60));
    assert.ok((await inFlight(store.direct, id)).length > 0, "nothing was in flight");
    await nats.stop();
    await exact(id, 100);
    const silence = await longestSilenceMs(store.direct, id);
    process.stdout.write(`      the longest silence was ${silence} ms\n`);
    assert.ok(silence <= PAUSE_MAX_MS, `${silence} ms`);
    await assertEnd();
  });

  it("a worker hears of a cancel with its next beat", async () => {
    await begin({ servers: 1, workers: 1, env: { NOETL_WORKER_BEAT_SECONDS: "0.5" } });
    const { api, nats, servers, store } = cluster;
    const gate = Promise.withResolvers<void>();
    api.waits[ITEMS] = () => gate.promise;
    const id = await submit(servers[0]!, COPY, { api_url: api.url, n: 8 });
    // As many as it may have of the database class.
    await asked(api, ITEMS, 4);
    await nats.stop();
    assert.equal((await servers[0]!.ask("POST", `/executions/${id}/cancel`, {})).status, 202);
    assert.equal((await ended(store.direct, id)).status, "CANCELLED");
    // Its slots are free again though nobody has answered what it asked.
    await until(async () => (await busyOf(servers[0]!)) === 0, 10_000);
    gate.resolve();
  });

  it("at their start servers and workers still end when they are told", async () => {
    await begin({ isNatsAway: true, servers: 1, workers: 1 });
    await assertEnd();
  });

  /** As Kubernetes ends pods: SIGTERM, and the exit code says that nothing was left undone. */
  async function assertEnd(): Promise<void> {
    const all = [...cluster.workers, ...cluster.servers];
    const begun = performance.now();
    for (const one of all) one.signal("SIGTERM");
    const codes = (await Promise.all(all.map(one => one.ended))).map(({ code }) => code);
    const tookMs = Math.round(performance.now() - begun);
    process.stdout.write(`      ended after ${tookMs} ms\n`);
    assert.deepEqual(new Set(codes), new Set([0]));
    assert.ok(tookMs < END_MAX_MS, `${tookMs} ms`);
  }
});
