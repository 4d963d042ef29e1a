// A new version is rolled out under load: every process is told to stop, and replaced, in turn.
import { strict as assert } from "node:assert";
import { setTimeout as pause } from "node:timers/promises";
import { ask } from "../support/actors.ts";
import { needsNats, startCluster, type Cluster } from "../support/cluster.ts";
import { COPY, COPY_PATH } from "../support/copy-playbook.ts";
import { assertSound } from "../support/log-checker.ts";
import { endAll, type NoetlProcess } from "../support/process.ts";
import { ended } from "../support/submitted.ts";

/** Of each run. */
const ITEMS = 40;
const BETWEEN_RUNS_MS = 250;
const RETRY_MS = 100;
const PATIENCE_MS = 30_000;

describe("a rolling restart under load", function () {
  this.timeout(120_000);
  let cluster: Cluster;

  before(needsNats);
  before(async () => {
    const env = { NOETL_DRAIN_SECONDS: "10" };
    cluster = await startCluster({ servers: 2, workers: 2, env });
    // Two of `create table if not exists` at once is a race of Postgres's own.
    await ask(
      cluster.target.direct,
      "create table copied (id integer primary key, title text not null, times integer not null)",
    );
  });
  after(endAll);
  after(() => cluster?.close());

  let refused = 0;

  /** Asks one server after the other, as a client with a list of them does, until one answers. */
  async function start(key: string): Promise<string> {
    const payload = { api_url: cluster.api.url, n: ITEMS, pause: 0.05 };
    const request = { path: COPY_PATH, payload, idempotency_key: key };
    const end = performance.now() + PATIENCE_MS;
    for (let tries = 0; performance.now() < end; tries += 1) {
      const server = cluster.servers[tries % cluster.servers.length]!;
      const answer = await server.ask("POST", "/execute", request).catch(() => undefined);
      if (answer?.status === 200) return String(answer.body["execution_id"]);
      assert.ok(!answer || answer.status >= 500, JSON.stringify(answer?.body));
      refused += 1;
      await pause(RETRY_MS);
    }
    return assert.fail(`no server answered in ${PATIENCE_MS} ms`);
  }

  /** Starts runs until `over` is aborted. */
  async function load(over: AbortSignal): Promise<string[]> {
    const runs: string[] = [];
    while (!over.aborted) {
      runs.push(await start(`run-${runs.length}`));
      await pause(BETWEEN_RUNS_MS);
    }
    return runs;
  }

  async function stop(process: NoetlProcess): Promise<void> {
    process.signal("SIGTERM");
    const { code, stderr } = await process.ended;
    assert.equal(code, 0, stderr);
  }

  it("loses and fails nothing, and takes nobody for dead", async () => {
    const registered = await cluster.servers[0]!.ask("POST", "/catalog/register", COPY);
    assert.equal(registered.status, 200);
    const over = new AbortController();
    const loading = load(over.signal);
    for (const server of [...cluster.servers]) {
      await stop(server);
      await cluster.restart(server);
    }
    for (const worker of [...cluster.workers]) {
      await stop(worker);
      await cluster.addWorker();
    }
    over.abort();
    const runs = await loading;
    const { store, target } = cluster;
    for (const id of runs) assert.equal((await ended(store.direct, id)).status, "COMPLETED");
    process.stdout.write(`      ${runs.length} runs, ${refused} requests had to be sent again\n`);
    assert.ok(runs.length > 10, `only ${runs.length} runs were started`);
    const { events, rows } = await assertSound(store.direct);
    assert.deepEqual(new Set(rows.map(row => row.execution_id)), new Set(runs));
    const count = (type: string) => events.filter(event => event.event_type === type).length;
    assert.equal(count("command.failed"), 0);
    // What a process that stops has not begun it gives back: nobody's death is charged.
    assert.equal(count("command.expired"), 0);
    const [row] = await ask<{ times: number }>(
      target.direct,
      "select sum(times)::integer as times from copied",
    );
    assert.equal(row?.times, runs.length * ITEMS, "work was done twice, or never");
  });
});
