// A public playbook of large payloads, unmodified, with four workers over NATS, both databases
// behind PgBouncer, and an upstream that is limited: it takes what it may, and no more of anything.
// HEAVY_ROWS=240 is the whole of it; HEAVY_KB is the size of one payload.
import { strict as assert } from "node:assert";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { ask } from "../support/actors.ts";
import { needsNats, startCluster, type Cluster } from "../support/cluster.ts";
import { assertSound } from "../support/log-checker.ts";
import { pgBouncerBinary, sayNoPgBouncer } from "../support/pgbouncer.ts";
import { endAll } from "../support/process.ts";
import { arePublicPlaybooksHere, PUBLIC } from "../support/public-playbooks.ts";
import { needsPython } from "../support/python.ts";
import { ended, submit } from "../support/submitted.ts";
import { watchLoad, type LoadSight } from "../support/watch-load.ts";

const ROWS = Number(process.env["HEAVY_ROWS"] ?? 24);
const BATCHES = ROWS < 240 ? 4 : 6;
const KILOBYTES = Number(process.env["HEAVY_KB"] ?? (ROWS < 240 ? 64 : 4));
const WORKERS = 4;
const TARGET_CONNECTIONS = 6;
const STORE_CONNECTIONS = 12;
/** So low that it is what the run goes by. */
const PER_SECOND = ROWS < 240 ? 5 : 20;
const STREAM = "HEAVY";
const DETAILS = "POST /anything/{*}";
const FOLDER = join(PUBLIC, "batch_execution");
const textOf = (name: string) => readFileSync(join(FOLDER, name, `${name}.yaml`), "utf8");

describe("heavy payloads", function () {
  this.timeout(300_000);
  let cluster: Cluster;

  before(needsNats);
  afterEach(endAll);
  afterEach(() => cluster?.close());

  it("go through four workers and PgBouncer, each row once, within every limit", async function () {
    if (!arePublicPlaybooksHere(this)) return;
    await needsPython(this);
    if (!pgBouncerBinary()) {
      sayNoPgBouncer();
      return this.skip();
    }
    cluster = await startCluster({
      ...{ servers: 1, workers: WORKERS, program: { lifeMs: 360_000 } },
      backends: {
        store: { size: STORE_CONNECTIONS, reserve: 0 },
        target: { size: TARGET_CONNECTIONS, reserve: 0 },
      },
      env: { NATS_STREAM: STREAM },
    });
    const { api, target, store, nats, servers, workers } = cluster;
    const calls: number[] = [];
    api.waits[DETAILS] = () => Promise.resolve(calls.push(performance.now()));
    const [server] = servers as [(typeof servers)[0]];
    const { host } = new URL(api.url);
    const limit = { target: `http:host:${host}`, rate: `${PER_SECOND}/s` };
    assert.equal((await server.ask("POST", "/limits", limit)).status, 200);
    await server.ask("POST", "/catalog/register", textOf("heavy_payload_pipeline_chunk_worker"));
    const stop = watchLoad({
      pids: [...workers, server].map(one => one.pid),
      databases: [target.direct, store.direct],
      nats: { url: nats.url, stream: STREAM, consumer: "noetl_worker_pool_db" },
    });
    const id = await submit(server, textOf("heavy_payload_pipeline_in_step"), {
      details_api_url: `${api.url}/anything/item`,
      seed_rows: ROWS,
      batch_size: ROWS / BATCHES,
      max_batches: BATCHES,
      payload_kb_per_item: KILOBYTES,
    });
    const { status, tookMs } = await ended(store.direct, id, 280_000);
    const sights = await stop();
    tell(calls, sights, tookMs);
    assert.equal(status, "COMPLETED");
    const [row] = await ask(
      target.direct,
      `select count(*)::integer as n, count(distinct item_id)::integer as items,
         (count(*) filter (where http_status = 200))::integer as ok,
         max(batch_number) as batches
       from heavy_payload_results`,
    );
    assert.deepEqual(row, { n: ROWS, items: ROWS, ok: ROWS, batches: BATCHES });
    assert.equal(calls.length, ROWS, "nobody was called twice");
    const most = (place: number) => Math.max(...sights.map(sight => sight.connections[place] ?? 0));
    assert.ok(most(0) <= TARGET_CONNECTIONS, `${most(0)} connections to the target`);
    assert.ok(most(1) <= STORE_CONNECTIONS, `${most(1)} connections to the store`);
    // Calls that were sent apart may be seen together, by a process that was busy meanwhile.
    assert.ok(busiestSecond(calls) <= PER_SECOND * 1.2 + 2, `${busiestSecond(calls)} in a second`);
    await assertSound(store.direct, id);
  });
});

/** The most calls in any second. */
function busiestSecond(calls: number[]): number {
  return Math.max(...calls.map(from => calls.filter(at => at >= from && at < from + 1_000).length));
}

/** What somebody would want to know who runs the whole of it. */
function tell(calls: number[], sights: LoadSight[], tookMs: number): void {
  const most = (read: (sight: LoadSight) => number) => Math.max(...sights.map(read));
  const memory = Array.from({ length: WORKERS }, (_, at) => {
    const first = sights[0]?.memoryMb[at] ?? 0;
    return `${first}→${most(({ memoryMb }) => memoryMb[at] ?? 0)}`;
  });
  const said = [
    `${ROWS} rows in ${(tookMs / 1_000).toFixed(1)} s, ${calls.length} calls, ` +
      `busiest second ${busiestSecond(calls)} of ${PER_SECOND}`,
    `connections: target ${most(({ connections }) => connections[0] ?? 0)} of ` +
      `${TARGET_CONNECTIONS}, store ${most(({ connections }) => connections[1] ?? 0)} of ` +
      `${STORE_CONNECTIONS}`,
    `memory of workers, MB, at the start and at most: ${memory.join(" ")}`,
  ];
  for (const line of said) process.stdout.write(`      ${line}\n`);
}
