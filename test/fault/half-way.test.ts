// A loop of 100,000 items whose owner is killed half-way: the next one goes on where it was.
import { strict as assert } from "node:assert";
import { ask, until } from "../support/actors.ts";
import { assertSound } from "../support/log-checker.ts";
import { endAll, startServer } from "../support/process.ts";
import { setStage, type Stage } from "../support/stage.ts";
import { ended, longestSilenceMs, submit } from "../support/submitted.ts";

const ITEMS = 100_000;
const LOOP = `apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: many, path: test/many}
workflow:
  - step: each
    loop: {in: "{{ ${ITEMS} }}", iterator: i, spec: {mode: parallel, max_in_flight: 16}}
    tool: {kind: noop, result: {n: "{{ i }}"}}
    next: {arcs: [{step: end}]}
  - step: end
    tool: {kind: noop, result: {last: "{{ each.results[-1].n }}", stats: "{{ each.stats }}"}}
`;
/** From the kill to the next accepted outcome: what a person calls at once, and a start. */
const SILENCE_MAX_MS = 5_000;

describe("a loop of 100,000 items", function () {
  this.timeout(180_000);
  let stage: Stage;

  beforeEach(async () => void (stage = await setStage()));
  afterEach(endAll);
  afterEach(() => stage.close());

  /** Waits until so many items are accepted. */
  async function accepted(id: string, items: number): Promise<void> {
    const text = `select coalesce((state->'loop'->'each'->>'done')::integer, 0) as done
      from noetl.execution where execution_id = $1`;
    await until(async () => {
      const [row] = await ask<{ done: number }>(stage.store.url, text, [id]);
      return (row?.done ?? 0) >= items;
    }, 90_000);
  }

  /** The process that has written the loop's last fact. */
  async function ownerOf(id: string): Promise<string> {
    const text = "select owner from noetl.stream where execution_id = $1 and kind = 'loops'";
    const [head] = await ask<{ owner: string }>(stage.store.url, text, [id]);
    return head?.owner ?? "";
  }

  async function proved(id: string, what: string, killed: string): Promise<void> {
    const { store } = stage;
    const { status } = await ended(store.url, id, 120_000);
    assert.equal(status, "COMPLETED");
    const [row] = await ask<{ result: object }>(
      store.url,
      "select result->'context' as result from noetl.execution where execution_id = $1",
      [id],
    );
    const stats = { total: ITEMS, success: ITEMS, failed: 0, not_run: 0 };
    assert.deepEqual(row?.result, { last: ITEMS - 1, stats });
    // Also that nothing which was accepted is issued again, and the digest of all of it.
    await assertSound(store.url, id);
    assert.notEqual(await ownerOf(id), killed, "the kill hit nothing");
    const silenceMs = await longestSilenceMs(store.url, id);
    process.stdout.write(`      ${what}: the longest silence was ${silenceMs} ms\n`);
    assert.ok(silenceMs < SILENCE_MAX_MS, `nothing happened for ${silenceMs} ms`);
  }

  it("is gone on with by the only server, once it is started again", async () => {
    const first = await startServer(stage.env);
    const id = await submit(first, LOOP, {});
    await accepted(id, ITEMS / 2);
    const before = await ownerOf(id);
    await first.kill();
    await startServer(stage.env);
    await proved(id, "restart", before);
  });

  it("is taken over by the other one of two", async () => {
    const [first, second] = await Promise.all([startServer(stage.env), startServer(stage.env)]);
    const id = await submit(first, LOOP, {});
    await accepted(id, ITEMS / 2);
    const before = await ownerOf(id);
    const owner = before.includes(String(first.pid)) ? first : second;
    await owner.kill();
    await proved(id, "takeover", before);
  });
});
