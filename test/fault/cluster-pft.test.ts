// The public pipeline test_pft_flow on two servers and three workers of their own, over NATS and
// PgBouncer, while each of them is killed, emptied or frozen: exactly its rows, every time.
import { strict as assert } from "node:assert";
import { readFile } from "node:fs/promises";
import { setTimeout as pause } from "node:timers/promises";
import { ask, until } from "../support/actors.ts";
import { chance } from "../support/chance.ts";
import {
  needsNats,
  startCluster,
  type Cluster,
  type ClusterOptions,
  type ClusterWorker,
} from "../support/cluster.ts";
import { assertSound } from "../support/log-checker.ts";
import {
  assertPftRows,
  BATCHES,
  countBatches,
  batchesOf,
  fiveMinutesAfter,
  FULL,
  PFT,
  SMOKE,
  smokePayload,
} from "../support/pft.ts";
import { startServer as startPostgres, type TestServer } from "../support/postgres.ts";
import { endAll } from "../support/process.ts";
import { arePublicPlaybooksHere } from "../support/public-playbooks.ts";
import {
  asked,
  countEvents,
  databaseNow,
  ended,
  inFlight,
  nextOutcomeMs,
  submit,
  type FlyingCommand,
} from "../support/submitted.ts";

const LEASE_SECONDS = 3;
/** From a fault to the next outcome that is accepted. */
const SERVER_RECOVERY_MAX_MS = 5_000;
/** An API of some distance: at any moment somebody waits for it. */
const API_MS = 150;

describe("test_pft_flow on a cluster", function () {
  // Of waiting, where a machine is slow or shared; alone the longest takes a third of it.
  this.timeout(240_000);
  if (!arePublicPlaybooksHere()) return;
  let postgres: TestServer;
  let cluster: Cluster;
  let id: string;

  before(needsNats);
  before(async () => void (postgres = await startPostgres()));
  afterEach(endAll);
  afterEach(() => cluster.close());
  after(() => postgres?.remove());

  async function begin(
    options: Partial<ClusterOptions> = {},
    payload: (apiUrl: string) => object = smokePayload,
    apiMs = API_MS,
  ): Promise<void> {
    const env = {
      NOETL_COMMAND_LEASE_SECONDS: String(LEASE_SECONDS),
      NOETL_WORKER_BEAT_SECONDS: "1",
      // Every batch has a slot: whoever is left finds nothing more to do.
      NOETL_WORKER_MAX_INFLIGHT_COMMANDS: "9",
      NOETL_WORKER_MAX_INFLIGHT_DB_COMMANDS: "8",
    };
    cluster = await startCluster({ servers: 2, workers: 3, postgres, env, ...options });
    if (apiMs > 0) cluster.api.waits[BATCHES] = () => pause(apiMs);
    const playbook = await readFile(PFT, "utf8");
    id = await submit(cluster.servers[0]!, playbook, payload(cluster.api.url));
  }

  /** At a random moment of the loop, with work in flight. */
  async function middle(what: string): Promise<FlyingCommand[]> {
    await asked(cluster.api, BATCHES, chance(what).between(1, 20));
    const flying = await inFlight(cluster.store.direct, id);
    assert.ok(flying.length > 0, "nothing was in flight");
    return flying;
  }

  async function exact(rows = SMOKE): Promise<void> {
    const { store, target } = cluster;
    const { status } = await ended(store.direct, id, 140_000);
    assert.equal(status, "COMPLETED");
    await assertPftRows(target.direct, rows);
    const { events } = await assertSound(store.direct, id);
    const count = (...types: string[]) =>
      events.filter(event => types.includes(event.event_type)).length;
    assert.equal(count("playbook.completed", "playbook.failed", "execution.cancelled"), 1);
    assert.equal(count("command.issued"), count("command.completed", "command.failed"));
    assert.equal(count("loop.done"), 1);
  }

  /** The time from `since` to the next outcome that was accepted. */
  async function recovered(what: string, since: number, maxMs: number): Promise<void> {
    const found = await nextOutcomeMs(cluster.store.direct, id, since);
    const tookMs = Math.round(found ?? Infinity);
    process.stdout.write(`      ${what}: the next outcome was accepted after ${tookMs} ms\n`);
    assert.ok(tookMs < maxMs, `recovered after ${tookMs} ms`);
  }

  /** The busiest worker, frozen in a moment in which it has batches in hand. */
  async function frozen(): Promise<{ worker: ClusterWorker; held: FlyingCommand[] }> {
    for (;;) {
      const { worker, held } = await cluster.busiest(id);
      worker.freeze();
      await cluster.quiet(worker);
      if ((await batchesOf(cluster.target.direct, held)) > 0) return { worker, held };
      worker.thaw();
      await pause(20);
    }
  }

  /** kill -9, and five minutes. */
  async function killAndWait(worker: ClusterWorker, held: FlyingCommand[]): Promise<void> {
    await fiveMinutesAfter(cluster.target.direct, held, async () => {
      await worker.kill();
      await cluster.quiet(worker);
    });
  }

  /** Whether all that a worker had is settled, by its own word since it was thawed. */
  async function isIdle({ name }: ClusterWorker): Promise<boolean> {
    const [row] = await ask<{ idle: boolean }>(
      cluster.store.direct,
      `select capacity->'free' = capacity->'slots' as idle from noetl.runtime
       where worker_id = $1 and seen_at > now() - interval '2 seconds'`,
      [name],
    );
    return row?.idle === true;
  }

  const now = () => databaseNow(cluster.store.direct);
  const expired = () => countEvents(cluster.store.direct, id, "command.expired");

  it("without a fault: exactly its rows, one request a batch", async () => {
    await begin();
    await exact();
    assert.equal(cluster.api.calls[BATCHES], SMOKE.batches);
    assert.equal(await expired(), 0);
  });

  it("the only server is killed and started again", async () => {
    await begin({ servers: 1 });
    await middle("the only server killed");
    const [only] = cluster.servers;
    await only!.kill();
    const since = await now();
    await cluster.restart(only!);
    // How long a process takes to begin is the machine's affair.
    const startMs = Math.round((await now()) - since);
    process.stdout.write(`      the only server killed: it serves again after ${startMs} ms\n`);
    await exact();
    await recovered("the only server killed", since, startMs + SERVER_RECOVERY_MAX_MS);
    assert.equal(await expired(), 0);
    assert.equal(cluster.api.calls[BATCHES], SMOKE.batches, "work was done twice");
  });

  it("a worker is frozen past its lease: what it says when it wakes up is refused", async () => {
    await begin();
    const { api, target, store } = cluster;
    await middle("worker frozen");
    const { worker, held } = await frozen();
    // The others end what they have, and find no more to do while the frozen one has the rest.
    await until(async () => (await inFlight(store.direct, id)).length <= held.length, 10_000);
    // From here on the API keeps everybody waiting …
    const gate = Promise.withResolvers<void>();
    let waiting = 0;
    api.waits[BATCHES] = () => {
      waiting += 1;
      return gate.promise;
    };
    const taken = await fiveMinutesAfter(target.direct, held, () => Promise.resolve());
    assert.ok(taken > 0, "the frozen one had nothing in hand");
    await until(() => waiting === taken, 15_000);
    const again = await inFlight(store.direct, id);
    assert.ok(again.every(one => one.worker_id !== worker.name && one.delivery > 1));
    // … but for the one that wakes up: it ends first, for nothing.
    delete api.waits[BATCHES];
    worker.thaw();
    const fenced = () => worker.said.match(/"reason":"fenced"/g)?.length ?? 0;
    await until(() => fenced() === taken, 15_000);
    gate.resolve();
    await exact();
    assert.equal(fenced(), taken);
    assert.ok((await expired()) >= taken);
  });

  describe("all ten facilities", () => {
    it("with every fault in turn", async () => {
      await begin({}, apiUrl => ({ api_url: apiUrl }), 0);
      const { store, target, nats, servers } = cluster;
      const seed = chance("every fault in turn");
      /** Waits until so many batches are done, and work is in flight. */
      async function progress(least: number, most: number): Promise<FlyingCommand[]> {
        const batches = seed.between(least, most);
        await until(async () => (await countBatches(target.direct, "done")) >= batches, 120_000);
        const flying = await inFlight(store.direct, id);
        assert.ok(flying.length > 0, "nothing was in flight");
        return flying;
      }
      await progress(100, 300);
      const lost = await cluster.busiest(id);
      await killAndWait(lost.worker, lost.held);
      await cluster.addWorker();
      const owner = await cluster.ownerOf(await progress(400, 600));
      await owner.kill();
      await cluster.restart(owner);
      await progress(700, 900);
      await nats.loseAll();
      await nats.start();
      await progress(1_000, 1_200);
      const frozen = await cluster.busiest(id);
      frozen.worker.freeze();
      await cluster.quiet(frozen.worker);
      await fiveMinutesAfter(target.direct, frozen.held, () => Promise.resolve());
      await progress(1_300, 1_500);
      await postgres.kill("immediate");
      await postgres.start();
      await progress(1_600, 1_900);
      await Promise.all(servers.map(server => server.kill()));
      for (const server of [...servers]) await cluster.restart(server);
      await exact(FULL);
      const { events } = await assertSound(store.direct, id);
      const expiries = events.filter(event => event.event_type === "command.expired");
      assert.deepEqual(
        new Set(expiries.map(event => event.meta["worker_id"])),
        new Set([lost.worker.name, frozen.worker.name]),
      );
      // Hours later, for all it knows, it goes on where it was.
      frozen.worker.thaw();
      await until(() => isIdle(frozen.worker), 15_000);
      await assertPftRows(target.direct, FULL);
      assert.equal((await assertSound(store.direct, id)).events.length, events.length);
    });
  });
});
