// A burst of items against an upstream and a database that take only so much, from several workers.
// LIMITS_ITEMS=10000 LIMITS_RATE=200 is the whole of it.
import { strict as assert } from "node:assert";
import { ask } from "../support/actors.ts";
import { needsNats, startCluster, type Cluster } from "../support/cluster.ts";
import { startLimitedUpstream, type LimitedUpstream } from "../support/limited-upstream.ts";
import { assertSound } from "../support/log-checker.ts";
import { pgBouncerBinary, sayNoPgBouncer } from "../support/pgbouncer.ts";
import { endAll } from "../support/process.ts";
import { ended, submit } from "../support/submitted.ts";
import { watchLoad, type LoadSight } from "../support/watch-load.ts";

const ITEMS = Number(process.env["LIMITS_ITEMS"] ?? 150);
/** What the upstream takes in any second, and what its operator tells us to keep to. */
const UPSTREAM = Number(process.env["LIMITS_RATE"] ?? 40);
const KEPT_TO = UPSTREAM * (ITEMS >= 5_000 ? 0.98 : 0.95);
/** A short run, on a machine that does much else, says nothing of speed and memory. */
const IS_WHOLE = ITEMS >= 5_000;
const TARGET_CONNECTIONS = 8;
const STORE_CONNECTIONS = 10;
const WORKERS = 2;
/** Of the database class, in each worker: every item of this run needs one. */
const SLOTS = 4;
const LIMIT_MS = IS_WHOLE ? 580_000 : 140_000;
const STREAM = "LIMITED";

const PLAYBOOK = `
apiVersion: noetl.io/v2
kind: Playbook
metadata: { name: limited, path: limited }
workload: { api: "", n: 0 }
workflow:
  - step: load
    loop:
      in: "{{ workload.n }}"
      iterator: id
      spec: { mode: parallel, max_in_flight: 64 }
    tool:
      - name: get
        kind: http
        url: "{{ workload.api }}/items/{{ id }}"
        spec:
          policy:
            rules:
              - when: "{{ output.status == 'error' and output.error.retryable }}"
                then: { do: retry, attempts: 20, backoff: fixed, delay: 0.2 }
      - name: put
        kind: postgres
        auth: pg_test
        query: insert into taken values ($1, $2)
        params: ["{{ id }}", "{{ get.data.path }}"]
`;

describe("a burst that nobody can take at once", function () {
  this.timeout(LIMIT_MS + 20_000);
  let cluster: Cluster;
  let upstream: LimitedUpstream;

  before(needsNats);
  afterEach(endAll);
  afterEach(async () => {
    await upstream.close();
    await cluster.close();
  });

  it("goes at the upstream's pace and within its databases' connections", async function () {
    const binary = pgBouncerBinary();
    if (!binary) {
      sayNoPgBouncer();
      return this.skip();
    }
    upstream = await startLimitedUpstream(UPSTREAM, () => "1");
    cluster = await startCluster({
      ...{ servers: 1, workers: WORKERS, program: { lifeMs: LIMIT_MS + 60_000 } },
      backends: {
        store: { size: STORE_CONNECTIONS, reserve: 0 },
        target: { size: TARGET_CONNECTIONS, reserve: 0 },
      },
      env: { NATS_STREAM: STREAM, NOETL_WORKER_MAX_INFLIGHT_DB_COMMANDS: String(SLOTS) },
    });
    const { target, store, nats, servers, workers } = cluster;
    await ask(target.direct, "create table taken (id bigint primary key, path text)");
    const [server] = servers as [(typeof servers)[0]];
    const limit = { target: `http:host:${upstream.host}`, rate: `${KEPT_TO}/s` };
    assert.equal((await server.ask("POST", "/limits", limit)).status, 200);
    const stop = watchLoad({
      pids: [...workers, server].map(one => one.pid),
      databases: [target.direct, store.direct],
      nats: { url: nats.url, stream: STREAM, consumer: "noetl_worker_pool_db" },
    });
    const id = await submit(server, PLAYBOOK, { api: upstream.url, n: ITEMS });
    const { status } = await ended(store.direct, id, LIMIT_MS);
    const sights = await stop();
    tell(upstream, sights);
    assert.equal(status, "COMPLETED");
    const [row] = await ask<{ n: number }>(target.direct, "select count(*)::int as n from taken");
    assert.equal(row?.n, ITEMS);
    const { calls, spanMs } = upstream.seen();
    assert.ok(calls <= ITEMS * (IS_WHOLE ? 1.02 : 1.05), `${calls} calls for ${ITEMS} items`);
    const perSecond = (ITEMS / spanMs) * 1_000;
    const least = IS_WHOLE ? UPSTREAM * 0.95 : 1;
    assert.ok(perSecond >= least, `${perSecond} items a second`);
    const most = (place: number) => Math.max(...sights.map(sight => sight.connections[place] ?? 0));
    assert.ok(most(0) <= TARGET_CONNECTIONS, `${most(0)} connections to the target`);
    assert.ok(most(1) <= STORE_CONNECTIONS, `${most(1)} connections to the store`);
    const middle = sights.filter(({ pending }) => pending > 0);
    assert.ok(middle.length > sights.length / 2, "commands wait in the stream");
    // A message is taken with a slot, and acknowledged when it has begun.
    const held = Math.max(...sights.map(({ unacknowledged }) => unacknowledged));
    assert.ok(held <= WORKERS * SLOTS, `${held} messages held with ${WORKERS * SLOTS} slots`);
    assertFlat(sights);
    await assertSound(store.direct, id);
  });
});

/** What somebody would want to know who runs the whole of it. */
function tell(upstream: LimitedUpstream, sights: LoadSight[]): void {
  const { calls, refused, busiestSecond, spanMs } = upstream.seen();
  const most = (read: (sight: LoadSight) => number) => Math.max(...sights.map(read));
  const rate = ((ITEMS / spanMs) * 1_000).toFixed(1);
  const said = [
    `${ITEMS} items, ${calls} calls, ${refused} refused, ${rate}/s, busiest ${busiestSecond}`,
    `connections: target ${most(({ connections }) => connections[0] ?? 0)}, ` +
      `store ${most(({ connections }) => connections[1] ?? 0)}`,
    `stream: ${most(({ pending }) => pending)} waiting at most, ` +
      `${most(({ unacknowledged }) => unacknowledged)} held with ${WORKERS * SLOTS} slots`,
    `memory of workers, MB: ${quarters(sights, 0).join(" ")} | ${quarters(sights, 1).join(" ")}`,
    `memory of the server, MB: ${quarters(sights, WORKERS).join(" ")}`,
  ];
  for (const line of said) process.stdout.write(`      ${line}\n`);
}

/** The most that a process had in each quarter of the run, MB. */
function quarters(sights: LoadSight[], place: number): number[] {
  const size = Math.ceil(sights.length / 4);
  return [0, 1, 2, 3].map(quarter =>
    Math.max(
      ...sights
        .slice(quarter * size, (quarter + 1) * size)
        .map(({ memoryMb }) => memoryMb[place] ?? 0),
    ),
  );
}

/**
 * In the first quarter a process warms up: its heap gets what it will need. Of a short run that is
 * all there is.
 */
function assertFlat(sights: LoadSight[]): void {
  if (!IS_WHOLE) return;
  for (const worker of [0, 1]) {
    const [first = 0, second = 0, , last = 0] = quarters(sights, worker);
    const grown = `worker ${worker} has grown from ${first} and ${second} to ${last} MB`;
    assert.ok(last <= first * 1.5 && last <= second * 1.25, grown);
  }
}
