// Two servers and two workers of their own over NATS and one database, each of them killed in turn.
import { strict as assert } from "node:assert";
import { setTimeout as pause } from "node:timers/promises";
import { ask, until } from "../support/actors.ts";
import { chance } from "../support/chance.ts";
import {
  needsNats,
  SHORT_LEASES,
  startCluster,
  type Cluster,
  type ClusterOptions,
} from "../support/cluster.ts";
import { assertCopied, COPY } from "../support/copy-playbook.ts";
import { assertSound } from "../support/log-checker.ts";
import { HEAD } from "../support/playbook-samples.ts";
import { startServer as startPostgres } from "../support/postgres.ts";
import { endAll } from "../support/process.ts";
import { asked, countEvents, ended, inFlight, submit } from "../support/submitted.ts";

const ITEMS = "GET /posts/{id}";
const LEASE_SECONDS = 3;
const RUNS = 12;

/** Commands that were a worker's unasked. */
const GIVEN = `select count(*)::integer as n from noetl.event
  where event_type = 'command.issued' and meta ? 'assigned' and meta->>'worker_id' = $1`;

const TWO_ITEMS = `${HEAD}workload: {api_url: ""}
workflow:
  - step: first
    tool: {kind: http, url: "{{ workload.api_url }}/posts/1"}
    next: {arcs: [{step: second}]}
  - {step: second, tool: {kind: http, url: "{{ workload.api_url }}/posts/2"}}
`;

describe("servers and workers over NATS", function () {
  this.timeout(90_000);
  let cluster: Cluster;

  before(needsNats);
  afterEach(endAll);
  afterEach(() => cluster.close());

  const begin = async (options: Partial<ClusterOptions> = {}): Promise<string> => {
    cluster = await startCluster({ servers: 2, workers: 2, ...options });
    return submit(cluster.servers[0]!, COPY, { api_url: cluster.api.url, pause: 0.05 });
  };

  /** In the middle of the run, with work in flight. */
  async function middle(what: string, id: string): Promise<void> {
    await asked(cluster.api, ITEMS, chance(what).between(10, 60));
    assert.ok((await inFlight(cluster.store.direct, id)).length > 0, "nothing was in flight");
  }

  async function exact(id: string): Promise<void> {
    const { store, target } = cluster;
    const { status, tookMs } = await ended(store.direct, id);
    process.stdout.write(`      ${status} ${tookMs} ms after the fault\n`);
    assert.equal(status, "COMPLETED");
    await assertCopied(target.direct, 100);
    await assertSound(store.direct, id);
  }

  it("do the work, each worker its part", async () => {
    const id = await begin();
    await exact(id);
    const { events } = await assertSound(cluster.store.direct, id);
    const claims = events.filter(event => event.event_type === "command.claimed");
    const parts = Map.groupBy(claims, event => String(event.meta["worker_id"]));
    assert.deepEqual(new Set(parts.keys()), new Set(cluster.workers.map(worker => worker.name)));
  });

  it("lose a worker, and another does what it held", async () => {
    const id = await begin({ env: SHORT_LEASES });
    await middle("worker", id);
    const { worker } = await cluster.busiest(id);
    await worker.kill();
    await exact(id);
    assert.ok((await countEvents(cluster.store.direct, id, "command.expired")) > 0);
  });

  it("give no step to a frozen worker for long, and it does none again when it wakes", async () => {
    cluster = await startCluster({ servers: 1, workers: 2 });
    const { api, servers, store } = cluster;
    const frozen = cluster.workers[0]!;
    const begun = async (count: number) => {
      const runs = Array.from({ length: count }, () =>
        submit(servers[0]!, TWO_ITEMS, { api_url: api.url }),
      );
      return Promise.all(runs);
    };
    const ends = async (ids: string[]) => {
      for (const id of ids) assert.equal((await ended(store.direct, id)).status, "COMPLETED");
    };
    // Until the frozen one is known, and is given some.
    await until(async () => {
      await ends(await begun(2));
      const [row] = await ask<{ n: number }>(store.direct, GIVEN, [frozen.name]);
      return (row?.n ?? 0) > 0;
    }, 30_000);
    await pause(500);
    const before = api.calls[ITEMS] ?? 0;
    frozen.freeze();
    const since = performance.now();
    const ids = await begun(RUNS);
    await ends(ids);
    const tookMs = performance.now() - since;
    process.stdout.write(`      ${RUNS} runs in ${Math.round(tookMs)} ms\n`);
    assert.ok(tookMs < 10_000, "it was waited for as long as for its lease");
    const released = await Promise.all(
      ids.map(id => countEvents(store.direct, id, "command.released")),
    );
    assert.ok(Math.max(...released) > 0, "nothing was given to the frozen one");
    frozen.thaw();
    await pause(2_000);
    assert.equal(api.calls[ITEMS], before + 2 * RUNS, "what it was given it did as well");
    for (const id of ids) await assertSound(store.direct, id);
  });

  it("lose the server that decides for the run", async () => {
    const id = await begin();
    await middle("server", id);
    const owner = await cluster.ownerOf(await inFlight(cluster.store.direct, id));
    await owner.kill();
    await exact(id);
    assert.equal(await countEvents(cluster.store.direct, id, "command.expired"), 0);
  });

  it("lose NATS, which comes back empty", async () => {
    const id = await begin();
    await middle("nats", id);
    await cluster.nats.loseAll();
    await cluster.nats.start();
    await exact(id);
  });

  it("lose NATS for good: workers that know the servers' addresses finish the run", async () => {
    const id = await begin({ isOverHttp: true });
    await middle("nats, for good", id);
    await cluster.nats.stop();
    await exact(id);
  });

  it("lose Postgres for longer than a lease: nobody is taken for dead", async () => {
    const postgres = await startPostgres();
    const env = {
      NOETL_COMMAND_LEASE_SECONDS: String(LEASE_SECONDS),
      NOETL_WORKER_BEAT_SECONDS: "1",
    };
    cluster = await startCluster({ servers: 2, workers: 2, postgres, env });
    const { api, store, target } = cluster;
    // Every command is at work, and nobody has anything to say, for as long as Postgres is away.
    const work = Promise.withResolvers<void>();
    api.waits[ITEMS] = () => work.promise;
    const id = await submit(cluster.servers[0]!, COPY, { api_url: api.url, n: 8 });
    await asked(api, ITEMS, 8);
    await postgres.kill("immediate");
    await pause(2 * LEASE_SECONDS * 1_000);
    await postgres.start();
    // Whoever looks for the dead has looked before the work ends.
    await until(() => isAwake(store.direct), 20_000);
    work.resolve();
    assert.equal((await ended(store.direct, id)).status, "COMPLETED");
    assert.equal(await countEvents(store.direct, id, "command.expired"), 0);
    assert.equal(await assertCopied(target.direct, 8), 0);
    await assertSound(store.direct, id);
  });
});

/** Every stream that was due has been woken. */
async function isAwake(url: string): Promise<boolean> {
  const text = `select bool_and(wake_at > clock_timestamp()) as awake from noetl.stream
                where status = 'open'`;
  const [row] = await ask<{ awake: boolean }>(url, text);
  return row?.awake === true;
}
