// Fan-outs through `noetl run`: what a person sees, the arcs that are taken, and the proof.
import { strict as assert } from "node:assert";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { startSampleApi } from "../../examples/sample-api.ts";
import { ask } from "../support/actors.ts";
import { assertSound } from "../support/log-checker.ts";
import { endAll, newFolder, noetl } from "../support/process.ts";
import { setStage, type Stage } from "../support/stage.ts";
import { ROOT } from "../support/source-files.ts";

const EXAMPLE = join(ROOT, "examples/fan-out.yaml");

interface Ran {
  execution_id: string;
  status: string;
  result: Record<string, unknown>;
  fanout_progress: Record<string, Record<string, unknown>>;
}

describe("noetl run of a fan-out", function () {
  this.timeout(90_000);
  let stage: Stage;

  before(async () => (stage = await setStage()));
  afterEach(endAll);
  after(() => stage.close());

  async function run(workflow: string): Promise<Ran> {
    const file = join(await newFolder(), "playbook.yaml");
    await writeFile(file, `${HEAD}${workflow}`);
    return ran([file]);
  }

  async function ran(args: string[]): Promise<Ran> {
    const { stdout, stderr } = await noetl(["run", ...args, "--json"], stage.env);
    assert.ok(stdout.startsWith("{"), stdout + stderr);
    const view = JSON.parse(stdout) as Ran;
    await assertSound(stage.store.url, view.execution_id);
    return view;
  }

  async function entered(id: string): Promise<string[]> {
    const rows = await ask<{ step: string }>(
      stage.store.url,
      `select node_name as step from noetl.event_view
       where execution_id = $1 and event_type = 'step.enter' order by event_id`,
      [id],
    );
    return rows.map(({ step }) => step);
  }

  it("of examples/fan-out.yaml gathers what is there, names what failed, redrives it", async () => {
    const api = await startSampleApi(0);
    try {
      const args = [EXAMPLE, "--set", `api_url=${api.url}`];
      const { execution_id, status, result, fanout_progress } = await ran(args);
      assert.equal(status, "COMPLETED");
      assert.equal(result["missing"], "4 of 24 orders are missing");
      assert.deepEqual([result["orders"], result["first"]], [20, 101]);
      const { total_shards, done, failed, status: word, retries } = fanout_progress["fetch"] ?? {};
      assert.deepEqual([total_shards, done, failed, word], [24, 20, 4, "partial"]);
      assert.equal(retries, 7, "three orders that answer 503 once, and four that are not there");
      assert.deepEqual(await entered(execution_id), ["fetch", "missing", "total"]);
      const shown = await noetl(["status", execution_id], stage.env);
      assert.match(shown.stdout, /fetch: 20 of 24 shards, partial, 4 failed/);
      const failures = await noetl(["failures", execution_id], stage.env);
      assert.match(failures.stdout, /23 +124 +HTTP_404/);
      const redriven = await noetl(["redrive", execution_id, "--json"], stage.env);
      assert.equal(redriven.code, 0, redriven.stderr);
      const again = await ask<{ shards: number }>(
        stage.store.url,
        `select count(distinct e.meta->>'shard_id')::integer as shards
         from noetl.event e join noetl.event s using (execution_id, stream_id)
         where execution_id = $1 and e.event_type = 'command.issued'
           and s.event_type = 'loop.fanout.started' and s.meta ? 'redrive_of'`,
        [execution_id],
      );
      assert.deepEqual(again, [{ shards: 4 }]);
    } finally {
      await api.close();
    }
  });

  it("of 100 shards is gathered once, in three rows a shard", async () => {
    const { execution_id, status, fanout_progress } = await run(flowOf(100, ""));
    assert.equal(status, "COMPLETED");
    assert.equal(fanout_progress["each"]?.["status"], "complete");
    assert.deepEqual(await entered(execution_id), ["each", "aggregate"]);
    const [rows] = await ask<{ rows: number; fanins: number; shards: number }>(
      stage.store.url,
      `select count(*)::integer as rows,
              count(*) filter (where event_type = 'loop.fanin.completed')::integer as fanins,
              count(distinct meta->>'shard_id')::integer as shards
       from noetl.event where execution_id = $1 and stream_id <> $1`,
      [execution_id],
    );
    assert.deepEqual([rows?.fanins, rows?.shards], [1, 100]);
    assert.ok((rows?.rows ?? 0) <= 3 * 100 + 2, `${rows?.rows} rows`);
    const enqueued = await ask(
      stage.store.url,
      `select 1 as one from noetl.event_view
       where execution_id = $1 and event_type = 'loop.shard.enqueued'`,
      [execution_id],
    );
    assert.equal(enqueued.length, 100);
  });

  it("of 10 shards of which 2 fail is partial, and the right arc is taken", async () => {
    const { execution_id, status, fanout_progress } = await run(flowOf(10, "i in [3, 8]"));
    assert.equal(status, "COMPLETED");
    const { total_shards, done, failed, status: word } = fanout_progress["each"] ?? {};
    assert.deepEqual([total_shards, done, failed, word], [10, 8, 2, "partial"]);
    assert.deepEqual(await entered(execution_id), ["each", "handler"]);
  });

  it("in batches tells every item's result, in input order", async () => {
    const batched = flowOf(23, "i == 5").replace("max_shard_retries: 0", "batch: 5");
    const { execution_id, fanout_progress } = await run(batched);
    const { total_shards, done, failed, status } = fanout_progress["each"] ?? {};
    assert.deepEqual([total_shards, done, failed, status], [5, 4, 1, "partial"]);
    const { stdout } = await noetl(["verify", execution_id], stage.env);
    assert.match(stdout, /counts +22 succeeded, 1 failed, 0 not run/);
    assert.match(stdout, /fanin +4 of 5 shards succeeded, 1 failed; partial/);
  });

  it("whose shards write ctx is refused, with the place and the way out", async () => {
    const file = join(await newFolder(), "shared.yaml");
    await writeFile(
      file,
      `${HEAD}${flowOf(3, "").replace("kind: noop", "kind: noop, set: {ctx.n: 1}")}`,
    );
    const { code, stderr } = await noetl(["run", file], stage.env);
    assert.equal(code, 2);
    assert.match(
      stderr,
      /shared.yaml:8:\d+: step 'each', tool.set.ctx.n: a shard of a fan-out cannot/,
    );
    assert.match(stderr, /write ctx in the step's own set/);
  });
});

const HEAD = `apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: fanned, path: test/fanned}
workflow:
`;

/** Shards that fail where the guard is true. */
function flowOf(size: number, fails: string): string {
  const rules =
    fails === "" ? "" : `, spec: {policy: {rules: [{when: "{{ ${fails} }}", then: {do: fail}}]}}`;
  return `  - step: each
    spec: {loop_mode: fanout, fanout: {max_shard_retries: 0}}
    loop: {in: "{{ ${size} }}", iterator: i}
    tool: {kind: noop${rules}}
    next:
      arcs:
        - {step: aggregate, when: "{{ fanin.status == 'complete' }}"}
        - {step: handler, when: "{{ fanin.status == 'partial' }}"}
  - {step: aggregate, tool: {kind: noop}}
  - {step: handler, tool: {kind: noop}}
`;
}
