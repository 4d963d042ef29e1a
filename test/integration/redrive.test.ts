// Redriving on a real store: only what failed runs again, keys stay, and a restart loses nothing.
import { strict as assert } from "node:assert";
import { Errors } from "moleculer";
import type { Context } from "moleculer";
import { ask } from "../support/actors.ts";
import { assertSound } from "../support/log-checker.ts";
import { ended, startNode, type TestNode } from "../support/node.ts";
import { testDatabase, type TestDatabase } from "../support/postgres.ts";
import type { Failures } from "../../cli/redrive.ts";

const ITEMS = 300;

function playbook(path: string, workflow: string): string {
  return `apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: p, path: ${path}}
workload: {n: ${ITEMS}}
workflow:
${workflow}`;
}

const LOOP = playbook(
  "test/redriven",
  `
  - step: each
    loop: {in: "{{ n }}", iterator: item, spec: {mode: parallel, max_in_flight: 4,
      tolerated_failure_percent: 100}}
    tool: {kind: action, action: target.take, params: {n: "{{ item }}"}}
    next: {arcs: [{step: check}]}
  - step: check
    tool: {kind: action, action: target.check, params: {stats: "{{ each.stats }}"}}
    next: {arcs: [{step: end}]}
  - step: end
    tool: {kind: noop, result: {all: "{{ each.results }}"}}
`,
);

const CHILD = playbook(
  "test/redriven_child",
  `
  - step: take
    tool: {kind: action, action: target.take, params: {n: "{{ n }}"}}
`,
);

const PARENT = playbook(
  "test/redriven_parent",
  `
  - step: each
    loop: {in: [1, 2, 3], iterator: item, spec: {mode: parallel, tolerated_failure_count: 3}}
    tool: {kind: playbook, path: test/redriven_child, input: {n: "{{ item }}"}, return_step: take}
`,
);

interface Redriven {
  status: string;
  generation: number;
  steps: string[];
}

describe("redrive", function () {
  this.timeout(60_000);
  let database: TestDatabase;
  let node: TestNode;
  /** Calls by item, and the keys they came with. */
  let taken: Map<number, string[]>;
  let isBroken: (n: number) => boolean;
  let isChecked: () => boolean;

  async function open(): Promise<TestNode> {
    const opened = await startNode({
      url: database.url,
      env: { NOETL_DRAIN_SECONDS: "0.2", NOETL_LOG_LEVEL: "fatal", NOETL_RERING_SECONDS: "0.2" },
    });
    opened.broker.createService({
      name: "target",
      actions: {
        take({ params, meta }: Context<{ n: number }, { idempotency_key: string }>) {
          taken.set(params.n, [...(taken.get(params.n) ?? []), meta.idempotency_key]);
          if (isBroken(params.n)) throw new Errors.MoleculerServerError("not today", 503, "SHUT");
          return { took: params.n };
        },
        check({ params }: Context<{ stats: object }>) {
          if (!isChecked()) throw new Errors.MoleculerServerError("no", 500, "UNCHECKED");
          return params.stats;
        },
      },
    });
    await opened.broker.waitForServices("target", 5_000, 10);
    return opened;
  }

  beforeEach(async () => {
    database = await testDatabase({ migrated: true });
    taken = new Map();
    isBroken = n => n % 10 === 3;
    isChecked = () => true;
    node = await open();
  });

  afterEach(async () => {
    await node.stop();
    await database.drop();
  });

  const redrive = (params: object) => node.call<Redriven>("executions.redrive", params);
  const progress = (view: { loop_progress: object }) =>
    (view.loop_progress as Record<string, { total: number; done: number; failed: number }>)["each"];
  const twice = () => [...taken].filter(([, keys]) => keys.length > 1);

  it("runs the failed items of a loop in frames again, and no other", async () => {
    const { execution_id, status, loop_progress } = await node.run(LOOP);
    assert.equal(status, "COMPLETED");
    assert.partialDeepStrictEqual(progress({ loop_progress }), { done: 270, failed: 30 });
    isBroken = () => false;
    const answer = await redrive({ execution_id });
    assert.deepEqual([answer.generation, answer.steps], [1, ["each"]]);
    const again = await ended(node.broker, execution_id);
    assert.partialDeepStrictEqual(progress(again), { total: ITEMS, done: ITEMS, failed: 0 });
    const { all } = again.result as { all: { took: number }[] };
    assert.deepEqual(
      all.map(({ took }) => took),
      [...Array(ITEMS).keys()],
    );
    assert.deepEqual(
      twice().map(([n]) => n % 10),
      Array<number>(30).fill(3),
    );
    assert.ok(twice().every(([, [first, second]]) => first === second, "keys stay"));
    await assertSound(database.url, execution_id);
    const seen = await node.call<object>("executions.get", { execution_id });
    await node.call("projection.rebuild", { execution_id });
    const rebuilt = await node.call<object>("executions.get", { execution_id });
    assert.deepEqual(rebuilt, seen);
  });

  it("asked again for the end that was seen, is not redriven twice", async () => {
    const { execution_id } = await node.run(LOOP);
    const first = { execution_id, generation: 0, where: { item: 13 } };
    assert.equal((await redrive(first)).generation, 1);
    await ended(node.broker, execution_id);
    await assert.rejects(redrive(first), /has ended again since: generation 1/);
    assert.equal((await redrive({ ...first, generation: 1 })).generation, 2);
    await ended(node.broker, execution_id);
  });

  it("runs those a predicate chooses, page by page and by item or error", async () => {
    const { execution_id } = await node.run(LOOP);
    const page = await node.call<Failures>("executions.failures", { execution_id, limit: 20 });
    assert.deepEqual([page.step, page.failures.length, page.next], ["each", 20, 193]);
    assert.partialDeepStrictEqual(page.failures[1], {
      ...{ index: 13, item: 13 },
      error: { code: "SHUT" },
    });
    const rest = await node.call<Failures>("executions.failures", {
      ...{ execution_id, step: "each", after: page.next, limit: 20 },
    });
    assert.deepEqual([rest.failures.length, rest.next], [10, undefined]);
    isBroken = () => false;
    const none = { execution_id, where: { error: { code: "OTHER" } } };
    await assert.rejects(redrive(none), /none of 30 failed items matches/);
    await redrive({ execution_id, where: { item: 13 } });
    const again = await ended(node.broker, execution_id);
    assert.partialDeepStrictEqual(progress(again), { done: 271, failed: 29 });
    assert.deepEqual(
      twice().map(([n]) => n),
      [13],
    );
    const left = await node.call<Failures>("executions.failures", { execution_id });
    assert.equal(left.failures.length, 29, "those that failed before are still known");
    await redrive({ execution_id, where: { error: { code: "SHUT" } } });
    assert.partialDeepStrictEqual(progress(await ended(node.broker, execution_id)), {
      done: ITEMS,
    });
    await assertSound(database.url, execution_id);
  });

  it("goes on after the process that began it is gone", async () => {
    isBroken = () => true;
    isChecked = () => false;
    const { execution_id, status } = await node.run(LOOP);
    assert.equal(status, "FAILED", "by the check: failures of items are tolerated");
    isBroken = n => n > 150;
    isChecked = () => true;
    await redrive({ execution_id, step: "each" });
    await node.stop();
    node = await open();
    const again = await ended(node.broker, execution_id);
    assert.equal(again.status, "COMPLETED", "the check has run again, too");
    assert.partialDeepStrictEqual(progress(again), { done: 151, failed: 149 });
    await assertSound(database.url, execution_id);
  });

  it("starts other children for items whose children failed", async () => {
    await node.call("catalog.register", { content: CHILD });
    isBroken = n => n === 2;
    const { execution_id } = await node.run(PARENT);
    isBroken = () => false;
    await redrive({ execution_id });
    const again = await ended(node.broker, execution_id);
    assert.partialDeepStrictEqual(progress(again), { done: 3, failed: 0 });
    const children = await ask<{ status: string }>(
      database.url,
      "select status from noetl.execution where parent_execution_id = $1 order by execution_id",
      [execution_id],
    );
    assert.equal(children.length, 4);
    assert.equal(children.at(-1)?.status, "COMPLETED");
    await assertSound(database.url);
  });
});
