// An item that kills the worker that runs it, and all beside it: charged each time before it runs,
// quarantined in the end, and no obstacle to the others.
import { strict as assert } from "node:assert";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as passed } from "node:timers/promises";
import { ask } from "../support/actors.ts";
import { needsNats, SHORT_LEASES, startCluster, type Cluster } from "../support/cluster.ts";
import { assertSound } from "../support/log-checker.ts";
import { endAll, noetl } from "../support/process.ts";
import { needsPython } from "../support/python.ts";
import { ended, submit } from "../support/submitted.ts";

const ITEMS = 40;
/** All of these run at once, and are in the middle of it when one of them kills their worker. */
const WINDOW = 6;
const POISON = 2;
const POISON_MS = 300;
const BESIDE_MS = 1_500;

const LOOP = `apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: poison, path: test/poison}
workload: {api_url: ""}
workflow:
  - step: start
    loop:
      in: ${ITEMS}
      iterator: i
      spec:
        mode: parallel
        max_in_flight: ${WINDOW}
        tolerated_failure_count: 1
        policy: {exec: distributed}
    tool:
      - name: get
        kind: http
        url: "{{ api_url }}/items/{{ i }}"
      - name: run
        kind: python
        input: {kill: "{{ get.data.kill }}"}
        code: |
          import os, signal
          if kill:
              os.kill(os.getppid(), signal.SIGKILL)
          return {"alive": True}
    next: {arcs: [{step: after}]}
  - step: after
    tool: {kind: noop}
`;

/** What the log said of the poison when it was run. */
interface Seen {
  runs: number;
  claims: number;
  deaths: number;
}

/** A run that the log did not know of, or that was offered before the death of the one before. */
function uncharged(seen: Seen[]): Seen[] {
  return seen.filter(({ runs, claims, deaths }) => claims !== runs || deaths !== runs - 1);
}

describe("an item that kills its worker", function () {
  this.timeout(150_000);
  let cluster: Cluster;
  let upstream: Server;
  let url: string;
  const seen: Seen[] = [];

  before(needsNats);
  before(function () {
    return needsPython(this);
  });
  before(async () => {
    cluster = await startCluster({ servers: 1, workers: 2, env: SHORT_LEASES });
    upstream = createServer((request, response) => {
      const item = Number(request.url?.split("/").at(-1));
      const kill = item === POISON;
      const told = kill ? look() : Promise.resolve();
      const ms = kill ? POISON_MS : item < WINDOW ? BESIDE_MS : 0;
      void Promise.all([told, passed(ms)]).then(() => {
        response.writeHead(200, { "content-type": "application/json" });
        response.end(JSON.stringify({ kill }));
      });
    });
    await new Promise<void>(resolve => upstream.listen(0, "127.0.0.1", resolve));
    url = `http://127.0.0.1:${(upstream.address() as AddressInfo).port}`;
  });
  after(endAll);
  after(async () => {
    upstream.close();
    await cluster.close();
  });

  async function look(): Promise<void> {
    const runs = seen.length + 1;
    const [row] = await ask<{ claims: number; deaths: number }>(
      cluster.store.direct,
      `select count(*) filter (where event_type = 'command.claimed' or meta ? 'claim_id')::integer
                as claims,
              count(*) filter (where event_type = 'command.expired')::integer as deaths
       from noetl.event where meta->>'command_id' like $1`,
      [`%:start:1:${POISON}:%`],
    );
    seen.push({ runs, claims: row?.claims ?? 0, deaths: row?.deaths ?? 0 });
  }

  /** Puts another worker in the place of each that dies. */
  async function replaceDead(until: Promise<unknown>): Promise<void> {
    let isOver = false;
    void until.finally(() => (isOver = true));
    const watched = new Set<unknown>();
    while (!isOver) {
      for (const worker of cluster.workers) {
        if (watched.has(worker)) continue;
        watched.add(worker);
        void worker.ended.then(async () => {
          if (!isOver) await cluster.addWorker().catch(() => undefined);
        });
      }
      await Promise.race([until, new Promise(resolve => setTimeout(resolve, 50))]);
    }
  }

  it("is quarantined with the facts after three deaths, and the rest is done", async () => {
    const [server] = cluster.servers;
    const id = await submit(server!, LOOP, { api_url: url });
    const over = ended(cluster.store.direct, id, 120_000);
    await replaceDead(over);
    const { status, tookMs } = await over;
    process.stdout.write(`      poison: over ${tookMs} ms after its start\n`);
    assert.equal(status, "COMPLETED");
    const { events } = await assertSound(cluster.store.direct, id);
    const done = events.find(event => event.event_type === "loop.done");
    assert.deepEqual(done?.meta["stats"], {
      ...{ total: ITEMS, success: ITEMS - 1, failed: 1, not_run: 0 },
    });
    assert.equal(seen.length, 3);
    assert.deepEqual(uncharged(seen), []);

    const { body } = await server!.ask("GET", `/dead-letters?execution_id=${id}`);
    const letters = body["dead_letters"] as Record<string, unknown>[];
    assert.equal(letters.length, 1);
    const deaths = letters[0]?.["deaths"] as { worker_id: string; delivery: number }[];
    assert.equal(letters[0]?.["iter_index"], POISON);
    assert.equal(letters[0]?.["step"], "start");
    assert.deepEqual(
      deaths.map(one => one.delivery),
      [1, 2, 3],
    );
    assert.equal(new Set(deaths.map(one => one.worker_id)).size, 3);

    const doctor = await noetl(["doctor"], { DATABASE_URL: cluster.store.direct });
    assert.match(
      doctor.stdout,
      new RegExp(`quarantine.*1 command killed.*item ${POISON} of ${id}`),
    );
    const metrics = await fetch(new URL("/metrics", server!.url));
    assert.match(await metrics.text(), /noetl_commands_quarantined_total 1/);
  });

  it("would be told from one that runs before its claim or its death is in the log", () => {
    assert.equal(uncharged([{ runs: 1, claims: 0, deaths: 0 }]).length, 1);
    assert.equal(uncharged([{ runs: 2, claims: 2, deaths: 0 }]).length, 1);
    assert.equal(uncharged([{ runs: 2, claims: 2, deaths: 1 }]).length, 0);
  });
});
