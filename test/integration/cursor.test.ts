// Loops over a cursor against a real Postgres: rows of a user's table, claimed, run and told.
import { strict as assert } from "node:assert";
import { ask } from "../support/actors.ts";
import {
  assertAllDone,
  cursorPlaybook,
  doneTwice,
  frameRows,
  type CursorLoop,
} from "../support/cursor-scene.ts";
import { assertSound } from "../support/log-checker.ts";
import { ended, startNode, type TestNode } from "../support/node.ts";
import { testDatabase, type TestDatabase } from "../support/postgres.ts";
import { credentialsFor } from "../support/public-playbooks.ts";

describe("a loop over a cursor", function () {
  this.timeout(60_000);
  let store: TestDatabase;
  let target: TestDatabase;
  let node: TestNode;

  before(async () => {
    store = await testDatabase({ migrated: true });
    target = await testDatabase();
    const env = {
      ...credentialsFor(target.url),
      NOETL_CREDENTIAL_PG_NOETL: credentialsFor(store.url)["NOETL_CREDENTIAL_PG_K8S"] ?? "",
    };
    node = await startNode({ url: store.url, env });
  });
  after(async () => {
    await node.stop();
    await store.drop();
    await target.drop();
  });

  it("does each of 2,000 rows once by four slots, in at most three facts a frame", async () => {
    const playbook = cursorPlaybook({ rows: 2_000, slots: 4, frame: "max_rows: 50" });
    const view = await node.run(playbook, {});
    assert.equal(view.status, "COMPLETED", JSON.stringify(view.error));
    await assertAllDone(target.url, 2_000);
    assert.deepEqual(await doneTwice(target.url), []);
    assert.deepEqual(view.result, {
      ...{ status: "ok", processed: 2_000, failed: 0, breaks: 0, frame_count: 40 },
      stats: { total: 2_000, success: 2_000, failed: 0, not_run: 0 },
    });
    await assertSound(store.url, view.execution_id);
    const { frames, facts, flushes } = await frameRows(store.url, view.execution_id);
    assert.equal(frames, 40 + 4, "forty with rows, and one for each slot that found none");
    assert.ok(facts <= 3 * frames + flushes, `${facts} facts of ${frames} frames`);
  });

  const run = async (loop: CursorLoop, payload = {}) => {
    const view = await node.run(cursorPlaybook(loop), payload);
    await assertSound(store.url, view.execution_id);
    return { ...view, result: (view.result ?? {}) as Record<string, unknown> };
  };

  it("bears rows that fail, says partial, and leaves their results empty", async () => {
    const { status, result } = await run({
      tasks: `
      - {name: put, kind: postgres, auth: pg_k8s, params: ["{{ row.id }}"],
         query: "insert into done (id) select $1::integer where 6 / ($1::integer - 3) is not null"}
      - name: last
        kind: noop
        result: {twice: "{{ row.id * 2 }}", at: "{{ iter._index }}"}
        spec: {policy: {rules: [{when: "{{ row.id == 5 }}", then: {do: break}}]}}`,
      slots: 1,
      after: `
  - step: end
    tool:
      kind: noop
      result:
        word: "{{ work.status }}"
        stats: "{{ work.stats }}"
        breaks: "{{ work.breaks }}"
        nothing: "{{ work.results[2] is none }}"
        twice: "{{ work.results[9].last.twice }}"
        at: "{{ work.results[9].last.at }}"
        frames: "{{ work.frames | map(attribute='round') | list }}"`,
    });
    assert.equal(status, "COMPLETED");
    assert.deepEqual(result, {
      ...{ word: "partial", breaks: 1, nothing: true, twice: 20, at: 4, frames: [1, 2] },
      stats: { total: 10, success: 9, failed: 1, not_run: 0 },
    });
  });

  it("runs once for all rows of a frame, and one that takes long is seen to live", async () => {
    const { status, result } = await run(
      {
        rows: 5,
        slots: 1,
        frame: `max_rows: 3, process: frame, lease_seconds: "{{ lease }}",
                heartbeat_seconds: "{{ beat }}"`,
        tasks: `
      - {name: slow, kind: postgres, auth: pg_k8s, query: "select pg_sleep(0.7)"}
      - name: put
        kind: postgres
        auth: pg_k8s
        query: |
          insert into done (id, told)
          select id, '{{ frame.index }}/{{ frame.row_count }}/{{ iter.row_rows | length }}'
          from unnest('{ {{ iter.row | map(attribute="id") | join(",") }} }'::int[]) id`,
        after: `
  - step: end
    tool:
      kind: postgres
      auth: pg_noetl
      query: |
        SELECT f.frame_id, f.status, f.lease_until, f.completed_at,
          COUNT(e.event_id) FILTER (WHERE e.event_type = 'frame.heartbeat') AS heartbeat_count,
          COUNT(e.event_id) FILTER (WHERE e.event_type = 'frame.committed')
            AS committed_event_count,
          COUNT(e.event_id) FILTER (WHERE e.status = 'ABANDONED') AS abandoned_event_count
        FROM noetl.frame f
        JOIN noetl.stage s ON s.stage_id = f.stage_id
        LEFT JOIN noetl.event e ON e.frame_id = f.frame_id
        WHERE f.execution_id = {{ execution_id }} AND s.step_name = 'work'
        GROUP BY f.frame_id, f.status, f.lease_until, f.completed_at
        ORDER BY f.frame_id DESC LIMIT 1`,
      },
      { lease: 9, beat: "0.2" },
    );
    assert.equal(status, "COMPLETED");
    const rows = await ask(target.url, "select id, told from done order by id");
    const told = ["0/3/3", "0/3/3", "0/3/3", "1/2/2", "1/2/2"];
    assert.deepEqual(
      rows,
      told.map((words, at) => ({ id: at + 1, told: words })),
    );
    const [frame] = result["rows"] as Record<string, unknown>[];
    const { frame_id, lease_until, completed_at, heartbeat_count, ...rest } = frame!;
    assert.match(String(frame_id), /:work:1:c0-2:1$/);
    assert.deepEqual(rest, {
      ...{ status: "COMPLETED", committed_event_count: 1, abandoned_event_count: 0 },
    });
    assert.ok(Number(heartbeat_count) >= 1, `${String(heartbeat_count)} heartbeats`);
    const lease = Date.parse(String(lease_until)) - Date.parse(String(completed_at));
    assert.equal(Math.round(lease), 9_000);
  });

  it("ends a frame after max_seconds, and does its other rows in the next one", async () => {
    const { status, result, execution_id } = await run({
      frame: "max_rows: 12, max_seconds: 0.3",
      slots: 1,
      rows: 24,
      tasks: `
      - {name: put, kind: postgres, auth: pg_k8s, params: ["{{ row.id }}"],
         query: "insert into done (id) select $1 from pg_sleep(0.06)"}`,
    });
    assert.deepEqual([status, result["processed"]], ["COMPLETED", 24]);
    assert.ok(Number(result["frame_count"]) >= 4, JSON.stringify(result));
    assert.deepEqual(await doneTwice(target.url), []);
    await assertAllDone(target.url, 24);
    // Claimed once: what a frame left was handed over, not claimed again.
    assert.deepEqual(await ask(target.url, "select distinct claims from queue"), [{ claims: 1 }]);
    const { flushes } = await frameRows(store.url, execution_id);
    assert.equal(flushes, 0);
  });

  it("runs so many rows of a frame at once as row_concurrency says", async () => {
    const { status } = await run({
      frame: "max_rows: 8, row_concurrency: 4",
      slots: 1,
      rows: 8,
      tasks: `
      - {name: put, kind: postgres, auth: pg_k8s, params: ["{{ row.id }}"],
         query: "insert into done (id, told) select $1, clock_timestamp() from pg_sleep(0.4)"}`,
    });
    assert.equal(status, "COMPLETED");
    const [{ waves }] = (await ask(
      target.url,
      `select count(*) filter (where gap is null or gap > interval '0.2 s')::integer as waves
       from (select told::timestamptz - lag(told::timestamptz) over (order by told) as gap
             from done) gaps`,
    )) as [{ waves: number }];
    assert.equal(waves, 2, "eight rows in two waves of four");
  });

  it("starts a child for each row, and waits for all with no slot in its hands", async () => {
    // One slot for work: a frame that kept it while it waits would wait for ever.
    const env = { ...credentialsFor(target.url), NOETL_WORKER_MAX_INFLIGHT_COMMANDS: "1" };
    const alone = await testDatabase({ migrated: true });
    const narrow = await startNode({ url: alone.url, env });
    const child = `apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: child, path: test/row-child}
workflow:
  - step: twice
    tool: {kind: noop, result: {twice: "{{ id * 2 }}"}}
`;
    await narrow.call("catalog.register", { content: child });
    const view = await narrow.run(
      cursorPlaybook({
        rows: 7,
        frame: "max_rows: 4, row_concurrency: 3",
        tasks: `
      kind: playbook
      path: test/row-child
      input: {id: "{{ row.id }}"}
      return_step: twice`,
        after: `
  - step: end
    tool: {kind: noop, result: {all: "{{ work.results | map(attribute='twice') | sort }}"}}`,
      }),
    );
    await narrow.stop();
    assert.deepEqual(view.result, { all: [2, 4, 6, 8, 10, 12, 14] });
    await assertSound(alone.url);
    await alone.drop();
  });

  it("fails with the claim's own error, and says what a claim must give", async () => {
    for (const [claim, error] of [
      ["select id from nowhere", /loop.cursor.claim: .*relation "nowhere" does not exist/],
      [
        "update queue set status = 'x'",
        /loop.cursor.claim: it gives no rows; end it with RETURNING/,
      ],
      ["select 1 / 0 as id", /division by zero/],
    ] as const) {
      const { status, error: found } = await run({ claim });
      assert.equal(status, "FAILED");
      assert.match(String(found?.["message"]), error);
    }
    const wrong = node.run(cursorPlaybook({ frame: 'max_rows: "{{ many }}"' }), { many: "lots" });
    const { status, error } = await wrong;
    assert.equal(status, "FAILED");
    assert.match(
      String(error?.["message"]),
      /loop.spec.frame.max_rows gave "lots", expected a whole number ≥ 1/,
    );
  });

  it("keeps large results out of its rows, and rows that a frame leaves too", async () => {
    const { status, result, execution_id } = await run({
      claim: `update queue set status = 'claimed', claims = claims + 1 where id in (
                select id from queue where status = 'pending' order by id limit 6)
              returning id, repeat('x', 5000) as long`,
      frame: "max_rows: 6, max_bytes: 9000",
      slots: 1,
      rows: 6,
      tasks: `
      kind: noop
      result: {id: "{{ row.id }}", long: "{{ row.long }}"}`,
      after: `
  - step: end
    tool:
      kind: noop
      result:
        ids: "{{ work.results | map(attribute='id') | list }}"
        sizes: "{{ work.results | map(attribute='long') | map('length') | list }}"
        frames: "{{ work.frame_count }}"`,
    });
    assert.deepEqual(
      [status, result],
      [
        "COMPLETED",
        { ids: [1, 2, 3, 4, 5, 6], sizes: Array.from({ length: 6 }, () => 5_000), frames: 3 },
      ],
    );
    const [{ most }] = (await ask(
      store.url,
      `select max(pg_column_size(context) + pg_column_size(result)) as most
       from noetl.event where execution_id = $1 and event_type = 'frame.committed'`,
      [execution_id],
    )) as [{ most: number }];
    assert.ok(most < 2_048, `${most} bytes in a row`);
  });

  it("shows the rows that failed, and claims anew when it is redriven", async () => {
    const { status, execution_id } = await run({
      claim: `update queue set status = 'claimed', claims = claims + 1 where id in (
                select id from queue where status = 'pending' order by id limit 4)
              returning id, claims`,
      slots: 1,
      tasks: `
      - {name: try, kind: postgres, auth: pg_k8s, params: ["{{ row.id }}", "{{ row.claims }}"],
         query: "select 1 / (case when $1::int % 4 = 3 and $2::int = 1 then 0 else 1 end)"}
      - {name: put, kind: postgres, auth: pg_k8s, params: ["{{ row.id }}"],
         query: "insert into done (id) values ($1)"}`,
      after: `
  - step: end
    tool: {kind: postgres, auth: pg_k8s,
      query: "select 1 / (case count(*) when 10 then 1 else 0 end) from done"}`,
    });
    assert.equal(status, "FAILED", "the step after it misses two rows");
    const { failures } = await node.call<{ failures: { index: number; item: object }[] }>(
      "executions.failures",
      { execution_id, step: "work" },
    );
    assert.deepEqual(
      failures.map(({ index, item }) => ({ index, item })),
      [
        { index: 2, item: { id: 3, claims: 1 } },
        { index: 6, item: { id: 7, claims: 1 } },
      ],
    );
    await ask(target.url, "update queue set status = 'pending' where id in (3, 7)");
    await node.call("executions.redrive", { execution_id, step: "work" });
    const view = await ended(node.broker, execution_id);
    assert.equal(view.status, "COMPLETED", JSON.stringify(view.error));
    const { work } = view.loop_progress as Record<string, { done: number; total: number }>;
    assert.deepEqual([work?.done, work?.total], [2, 2]);
    await assertAllDone(target.url, 10);
    assert.deepEqual(await doneTwice(target.url), []);
    await assertSound(store.url, execution_id);
  });

  it("of one slot lets a row see what the ones before it wrote", async () => {
    const { result } = await run({
      slots: 1,
      tasks: `
      - name: add
        kind: noop
        result: {id: "{{ row.id }}"}
        spec:
          policy:
            rules:
              - else: {then: {do: continue, set: {ctx.sum: "{{ (ctx.sum or 0) + row.id }}"}}}`,
      after: `
  - step: end
    tool: {kind: noop, result: {sum: "{{ ctx.sum }}"}}`,
    });
    assert.deepEqual(result, { sum: 55 });
  });
});
