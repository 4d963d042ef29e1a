// Pools to users' databases, and what happens when connections or statements do not end well.
import { setTimeout as delay } from "node:timers/promises";
import { strict as assert } from "node:assert";
import { connect, createServer } from "node:net";
import type { AddressInfo } from "node:net";
import type pg from "pg";
import { TargetPools, targetId } from "../../mixins/postgres/target.ts";
import type { JsonObject } from "../../schemas/json.ts";
import { readTarget } from "../../services/tool.postgres/source.ts";
import { startProxy } from "../support/tcp-proxy.ts";
import { dataOf, startPostgresTool } from "../support/tool-postgres.ts";
import type { PostgresToolUnderTest } from "../support/tool-postgres.ts";

describe("pools to users' databases", () => {
  let tool: PostgresToolUnderTest;

  before(async () => {
    tool = await startPostgresTool();
  });

  after(() => tool.stop());

  it("bounds the pool under 50 concurrent calls", async () => {
    const url = withApplication(tool.url);
    const most = pollSessions(tool.admin);
    const calls = Array.from({ length: 50 }, () =>
      tool.run({ query: "select pg_sleep(0.01)" }, url),
    );
    const answers = await Promise.all(calls);
    assert.ok(answers.every(answer => answer.status === "ok"));
    assert.ok((await most.stop()) <= 5);
    const stats =
      await tool.broker.call<{ max: number; waiting: number; total: number }[]>(
        "tool.postgres.stats",
      );
    assert.ok(stats.some(line => line.max === 5 && line.waiting === 0 && line.total <= 5));
  });

  it("too many waiters is Busy, a wait too long is a retryable db_connection error", async () => {
    const target = readTarget(undefined, { connection_string: tool.url });
    const small = new TargetPools({ poolMax: 1, maxWaiting: 1, timeoutMs: 100 });
    const release = Promise.withResolvers<void>();
    const held = Promise.withResolvers<void>();
    const holder = small.withConnection(target, { pool: true }, async () => {
      held.resolve();
      await release.promise;
    });
    await held.promise;
    const waiter = small.withConnection(target, { pool: true }, async () => undefined);
    const busy = small.withConnection(target, { pool: true }, async () => undefined);
    await assert.rejects(busy, { type: "BUSY", data: { retry_after_ms: 500 } });
    await assert.rejects(waiter, { name: "AcquireTimeout" });
    release.resolve();
    await holder;
    await small.close();
  });

  it("a changed password makes another pool, and unused pools make room", async () => {
    const target = readTarget(undefined, { connection_string: tool.url });
    const few = new TargetPools({ maxPools: 2 });
    const use = (password: string) =>
      few.withConnection({ ...target, password }, { pool: true }, async c => c.inTransaction());
    const right = target.password ?? "";
    await use(right);
    await use(right);
    assert.equal(few.stats().length, 2, "one pool and the direct line");
    await use("other").catch(() => undefined);
    await use("third").catch(() => undefined);
    assert.equal(few.stats().length, 3);
    const ids = few.stats().map(line => line.pool);
    assert.deepEqual(ids, [targetId(target), targetId(target), "direct"]);
    await few.close();
  });

  it("pool: false connects for one call, a few at once", async () => {
    const pids = await Promise.all(
      Array.from({ length: 6 }, () =>
        tool.run({ query: "select pg_backend_pid() pid", pool: false }),
      ),
    );
    const seen = pids.map(answer => (dataOf(answer).rows as JsonObject[])[0]?.pid);
    assert.equal(new Set(seen).size, 6);
    const direct = tool.pools.stats().find(line => line.pool === "direct");
    assert.deepEqual([direct?.total, direct?.waiting, direct?.max], [0, 0, 2]);
  });

  it("pool: false tries again when the first connection fails", async () => {
    const port = Number(new URL(tool.url).port);
    let tries = 0;
    const gate = createServer(socket => {
      tries += 1;
      if (tries === 1) return void socket.destroy();
      socket.pipe(connect(port, "127.0.0.1")).pipe(socket);
      socket.on("error", () => socket.destroy());
    });
    await new Promise<void>(resolve => gate.listen(0, "127.0.0.1", resolve));
    const through = (gate.address() as AddressInfo).port;
    const answer = await tool.run({ query: "select 1", pool: false }, atPort(tool.url, through));
    assert.deepEqual([answer.status, tries], ["ok", 2]);
    gate.close();
  });

  it("a cut connection is a retryable db_connection error, and the next call heals", async () => {
    const proxy = await startProxy(Number(new URL(tool.url).port));
    const url = proxy.through(tool.url);
    const call = tool.run({ query: "select pg_sleep(10)" }, url);
    await sessionWith(tool.admin, "select pg_sleep(10)");
    proxy.cut();
    const cut = await call;
    assert.deepEqual([cut.error?.kind, cut.error?.retryable], ["db_connection", true]);
    const refused = await tool.run({ query: "select 1", pool: { timeout: 0.3 } }, url);
    assert.deepEqual([refused.error?.kind, refused.error?.retryable], ["db_connection", true]);
    proxy.heal();
    assert.equal((await tool.run({ query: "select 1" }, url)).status, "ok");
    await proxy.close();
  });

  it("a server that comes back within seconds costs a call time, and no attempt", async () => {
    const proxy = await startProxy(Number(new URL(tool.url).port));
    const url = proxy.through(tool.url);
    proxy.cut();
    const call = tool.run({ query: "select 1" }, url);
    const [first] = await Promise.all([call, delay(700).then(() => proxy.heal())]);
    assert.equal(first.status, "ok");
    await proxy.close();
  });

  it("an administrator's shutdown of the session is retryable", async () => {
    const call = tool.run({ query: "select pg_sleep(11)" });
    const pid = await sessionWith(tool.admin, "select pg_sleep(11)");
    await tool.admin.query("select pg_terminate_backend($1)", [pid]);
    const answer = await call;
    assert.deepEqual([answer.error?.kind, answer.error?.retryable], ["db_connection", true]);
    assert.equal(answer.pg?.sqlstate, "57P01");
  });

  it("a timeout is retryable and the server stops the statement", async () => {
    const answer = await tool.run({ query: "select 1; select pg_sleep(12)", timeout: 0.2 });
    assert.deepEqual([answer.error?.kind, answer.error?.retryable], ["db_timeout", true]);
    assert.match(
      answer.error?.message ?? "",
      /statement 2 of 2, line 1: not finished within 0.2 s/,
    );
    assert.equal((dataOf(answer).command_0 as JsonObject).row_count, 1);
    await sessionWithout(tool.admin, "select pg_sleep(12)");
  });

  it("an abort stops the statement on the server", async () => {
    const controller = new AbortController();
    const call = tool.run({ query: "select pg_sleep(13)" }, tool.url, controller.signal);
    await sessionWith(tool.admin, "select pg_sleep(13)");
    controller.abort();
    assert.equal((await call).error?.kind, "cancelled");
    await sessionWithout(tool.admin, "select pg_sleep(13)");
    assert.deepEqual(await tool.rowsOf("select 1 a"), [{ a: 1 }]);
  });
});

function atPort(url: string, port: number): string {
  const moved = new URL(url);
  moved.port = String(port);
  return moved.href;
}

/** Another pool than the other tests': its database is named by the same URL with an ssl mode. */
function withApplication(url: string): string {
  return `${url}?sslmode=prefer`;
}

/** The pid of the session that runs this text, waiting until there is one. */
async function sessionWith(admin: pg.Client, query: string): Promise<number> {
  for (;;) {
    const text = "select pid from pg_stat_activity where state = 'active' and query = $1";
    const { rows } = await admin.query<{ pid: number }>(text, [query]);
    if (rows[0]) return rows[0].pid;
  }
}

async function sessionWithout(admin: pg.Client, query: string): Promise<void> {
  for (;;) {
    const text = "select 1 from pg_stat_activity where state = 'active' and query = $1";
    if ((await admin.query(text, [query])).rowCount === 0) return;
  }
}

/** Watches how many sessions of the tool are active at once. */
function pollSessions(admin: pg.Client): { stop: () => Promise<number> } {
  let watching = true;
  let most = 0;
  const loop = (async () => {
    while (watching) {
      const text = `select count(*)::int n from pg_stat_activity
        where state = 'active' and query like 'select pg_sleep(0.01)%'`;
      const { rows } = await admin.query<{ n: number }>(text);
      most = Math.max(most, rows[0]?.n ?? 0);
    }
  })();
  return {
    async stop() {
      watching = false;
      await loop;
      return most;
    },
  };
}
