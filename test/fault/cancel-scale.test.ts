// Cancelling a run of 10,000 items: nothing more is begun within a second of the request, CANCELLED
// is said when nothing can begin, and whoever comes next has the slots.
import { strict as assert } from "node:assert";
import { setTimeout as passed } from "node:timers/promises";
import { needsNats, startCluster, type Cluster } from "../support/cluster.ts";
import { assertSound } from "../support/log-checker.ts";
import { endAll, noetl, startServer, type NoetlServer } from "../support/process.ts";
import { setStage, type Stage } from "../support/stage.ts";
import { asked, ended, submit } from "../support/submitted.ts";

const PROBE = "GET /api/v1/concurrency/probe";
const ITEMS = 10_000;
const WINDOW = 16;
/** After the request nothing may be begun later than this. */
const LAST_BEGIN_MS = 1_000;
/** Somebody else's run of a few items is through in this time, on a busy machine. */
const NEXT_MS = 10_000;

const LONG = (exec: string) => `apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: scale-${exec}, path: test/scale-${exec}}
workload: {api_url: "", n: ${ITEMS}}
workflow:
  - step: start
    loop:
      in: "{{ n }}"
      iterator: i
      spec: {mode: parallel, max_in_flight: ${WINDOW}, policy: {exec: ${exec}}}
    tool:
      kind: http
      url: "{{ api_url }}/api/v1/concurrency/probe"
      params: {delay_seconds: 0.02, label: "{{ i }}"}
`;

interface Where {
  stage: Pick<Stage, "api">;
  store: string;
  server: NoetlServer;
}

/** Cancels in the middle, and checks all that is promised. */
async function cancelInTheMiddle({ stage: { api }, store, server }: Where, exec: string) {
  const id = await submit(server, LONG(exec), { api_url: api.url });
  await asked(api, PROBE, (api.calls[PROBE] ?? 0) + 300);
  const begun = performance.now();
  let lastBegin = begun;
  let calls = api.calls[PROBE] ?? 0;
  const watch = setInterval(() => {
    const now = api.calls[PROBE] ?? 0;
    if (now > calls) lastBegin = performance.now();
    calls = now;
  }, 5);
  const answer = await server.ask("POST", `/executions/${id}/cancel`, { reason: "enough" });
  assert.equal(answer.status, 202);
  const { status } = await ended(store, id);
  const shownMs = Math.round(performance.now() - begun);
  const atEnd = api.calls[PROBE] ?? 0;
  await passed(LAST_BEGIN_MS);
  clearInterval(watch);
  const lastMs = Math.round(lastBegin - begun);
  process.stdout.write(
    `      ${exec}: last call ${lastMs} ms after the request, CANCELLED after ${shownMs} ms\n`,
  );
  assert.equal(status, "CANCELLED");
  assert.ok(lastMs <= LAST_BEGIN_MS, `something was begun ${lastMs} ms after the request`);
  // A frame that runs elsewhere hears of it by a message: its next item may just have begun.
  assert.ok((api.calls[PROBE] ?? 0) - atEnd <= WINDOW, "work went on after CANCELLED");
  const next = await submit(server, LONG(exec), { api_url: api.url, n: WINDOW });
  const { tookMs } = await ended(store, next, NEXT_MS);
  assert.ok(tookMs < NEXT_MS, "the slots were not free");
  const { events, rows } = await assertSound(store, id);
  const stats = events.find(event => event.event_type === "loop.done")?.meta["stats"] as Record<
    string,
    number
  >;
  assert.equal(stats["total"], ITEMS);
  assert.ok((stats["not_run"] ?? 0) > ITEMS / 2, JSON.stringify(stats));
  const loop = rows[0]?.loop?.["start"] as unknown as Record<string, number>;
  assert.deepEqual(
    [loop["done"], loop["failed"], loop["not_run"]],
    [stats["success"], stats["failed"], stats["not_run"]],
  );
  return { id, stats };
}

describe(`cancelling a run of ${ITEMS} items`, function () {
  this.timeout(120_000);
  let stage: Stage | undefined;
  afterEach(endAll);
  afterEach(async () => {
    await stage?.close();
    stage = undefined;
  });

  for (const exec of ["local", "distributed"]) {
    it(`stops a ${exec} loop of one process, which says what it had done`, async () => {
      stage = await setStage();
      const server = await startServer(stage.env);
      const where = { stage, store: stage.store.url, server };
      const { id, stats } = await cancelInTheMiddle(where, exec);
      const { stdout } = await noetl(["status", id], stage.env);
      assert.match(stdout, /CANCELLED/);
      const notRun = stats["not_run"]?.toLocaleString("en-US");
      assert.match(stdout, new RegExp(`of 10,000 iterations, ${notRun} not run`));
    });
  }

  describe("over NATS", () => {
    let cluster: Cluster;
    before(needsNats);
    before(async () => {
      cluster = await startCluster({ servers: 1, workers: 2 });
    });
    after(() => cluster?.close());

    it("stops both workers of a distributed loop", async () => {
      const [server] = cluster.servers;
      const where = { stage: cluster, store: cluster.store.direct, server: server! };
      await cancelInTheMiddle(where, "distributed");
    });
  });
});
