// Loops over a cursor whose workers are killed or told to leave, in the middle of a frame.
import { strict as assert } from "node:assert";
import { ask, until } from "../support/actors.ts";
import { chance } from "../support/chance.ts";
import { needsNats, startCluster, type Cluster } from "../support/cluster.ts";
import {
  assertAllDone,
  cursorPlaybook,
  doneTwice,
  frameRows,
  type CursorLoop,
} from "../support/cursor-scene.ts";
import { assertSound } from "../support/log-checker.ts";
import { endAll, startServer } from "../support/process.ts";
import { setStage, type Stage } from "../support/stage.ts";
import { countEvents, ended, inFlight, submit } from "../support/submitted.ts";

/** Writes a row down slowly, so that a frame is met in its middle. */
const SLOWLY = `
      - {name: put, kind: postgres, auth: pg_k8s, params: ["{{ row.id }}"],
         query: "insert into done (id) select $1 from pg_sleep(0.05)"}
      - {name: mark, kind: postgres, auth: pg_k8s, params: ["{{ row.id }}"],
         query: "update queue set status = 'done' where id = $1"}`;
const SLOTS = 3;
const ROWS = 300;
const LOOP: CursorLoop = { rows: ROWS, slots: SLOTS, frame: "max_rows: 25", tasks: SLOWLY };

/** Counts the queue's rows in one state; 0 before there is a queue. */
async function countRows(url: string, status: "claimed" | "done"): Promise<number> {
  const [row] = await ask<{ n: number }>(
    url,
    "select count(*)::integer as n from queue where status = $1",
    [status],
  ).catch(() => [{ n: 0 }]);
  return row?.n ?? 0;
}

describe("a loop over a cursor", function () {
  this.timeout(120_000);
  let stage: Stage;

  beforeEach(async () => void (stage = await setStage()));
  afterEach(endAll);
  afterEach(() => stage.close());

  it("whose worker is killed claims what was left lying, and every row is done", async () => {
    const { env, store, target } = stage;
    const seed = chance("cursor kill");
    const first = await startServer(env);
    const stale = "status = 'claimed' and claimed_at < now() - interval '6 s'";
    const id = await submit(first, cursorPlaybook({ ...LOOP, stale }), {});
    const moment = seed.between(30, 150);
    await until(async () => (await countRows(target.url, "done")) >= moment, 30_000);
    await first.kill();
    const lying = await countRows(target.url, "claimed");
    assert.ok(lying > 0, "the kill hit nothing");
    // The dead one's rows are the claim's own matter, and stale only after a while.
    await ask(target.url, "update queue set claimed_at = claimed_at - interval '6 s'");
    const second = await startServer(env);
    const { status } = await ended(store.url, id);
    assert.equal(status, "COMPLETED");
    await assertAllDone(target.url, ROWS);
    const { events } = await assertSound(store.url, id);
    assert.equal(events.filter(event => event.event_type === "loop.done").length, 1);
    assert.ok((await countEvents(store.url, id, "command.expired")) > 0);
    const again = await doneTwice(target.url);
    process.stdout.write(`      ${lying} rows lay claimed, ${again.length} were done twice\n`);
    assert.ok(again.length <= SLOTS, "only what ran at that moment");
    const { frames, facts, flushes } = await frameRows(store.url, id);
    assert.ok(facts <= 3 * (frames + SLOTS) + flushes, `${facts} facts of ${frames} frames`);
    second.signal("SIGTERM");
    await second.ended;
  });

  it("whose worker is told to leave hands its rows over: none is claimed twice", async () => {
    const { env, store, target } = stage;
    const first = await startServer({ ...env, NOETL_DRAIN_SECONDS: "0" });
    const id = await submit(first, cursorPlaybook(LOOP), {});
    await until(async () => (await countRows(target.url, "done")) >= 40, 30_000);
    first.signal("SIGTERM");
    await first.ended;
    const lying = await countRows(target.url, "claimed");
    assert.ok(lying > 0, "nothing was in its hands");
    const second = await startServer(env);
    const { status } = await ended(store.url, id);
    assert.equal(status, "COMPLETED");
    await assertSound(store.url, id);
    await assertAllDone(target.url, ROWS);
    assert.deepEqual(await ask(target.url, "select max(claims) as most from queue"), [{ most: 1 }]);
    const again = await doneTwice(target.url);
    process.stdout.write(`      ${lying} rows were handed over, ${again.length} done twice\n`);
    assert.ok(again.length <= SLOTS, "only what was cut off in its middle");
    second.signal("SIGTERM");
    await second.ended;
  });

  it("that is cancelled ends soon, begins nothing after it, and counts what was done", async () => {
    const { env, store, target } = stage;
    const server = await startServer(env);
    const id = await submit(server, cursorPlaybook(LOOP), {});
    await until(async () => (await countRows(target.url, "done")) >= 60, 30_000);
    const answer = await server.ask("POST", `/executions/${id}/cancel`, { reason: "enough" });
    assert.equal(answer.status, 202);
    const { status, tookMs } = await ended(store.url, id);
    assert.equal(status, "CANCELLED");
    assert.ok(tookMs < 3_000, `took ${tookMs} ms`);
    const { events } = await assertSound(store.url, id);
    const done = events.find(event => event.event_type === "loop.done");
    const stats = done?.meta["stats"] as Record<string, number>;
    assert.equal(done?.meta["status"], "cancelled");
    const claims = await ask<{ n: number }>(
      target.url,
      "select count(*)::integer as n from queue where claims > 0",
    );
    assert.ok((stats["success"] ?? 0) <= (await countRows(target.url, "done")));
    assert.ok((claims[0]?.n ?? ROWS) < ROWS, "nothing more was claimed");
    server.signal("SIGTERM");
    await server.ended;
  });
});

describe("a loop over a cursor of workers over NATS", function () {
  this.timeout(120_000);
  let cluster: Cluster;

  before(needsNats);
  afterEach(endAll);
  afterEach(() => cluster.close());

  it("does each row once when the server that decides is lost, then NATS for good", async () => {
    cluster = await startCluster({ servers: 2, workers: 2, isOverHttp: true });
    const { store, target, servers, nats } = cluster;
    const seed = chance("cursor servers");
    const id = await submit(servers[0]!, cursorPlaybook(LOOP), {});
    const [first, then] = [seed.between(20, 80), seed.between(100, 160)];
    await until(async () => (await countRows(target.direct, "done")) >= first, 30_000);
    const owner = await cluster.ownerOf(await inFlight(store.direct, id));
    await owner.kill();
    await until(async () => (await countRows(target.direct, "done")) >= then, 30_000);
    await nats.stop();
    const { status } = await ended(store.direct, id);
    assert.equal(status, "COMPLETED");
    await assertSound(store.direct, id);
    await assertAllDone(target.direct, ROWS);
    assert.deepEqual(await doneTwice(target.direct), []);
    const claims = await ask(target.direct, "select max(claims) as most from queue");
    assert.deepEqual(claims, [{ most: 1 }]);
  });
});
