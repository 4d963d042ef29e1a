/** The projector: what it reads, what it writes, and what it leaves for later. */
import { strict as assert } from "node:assert";
import type { ExecutionRow } from "../../mixins/postgres/execution.ts";
import type { ProjectionStore } from "../../mixins/projection-store.ts";
import type { StoredEvent } from "../../schemas/events.ts";
import { Projector, rebuildRow } from "../../services/projection/projector.ts";
import { Play } from "../support/execution-play.ts";

const CLAIM = { shard: 0, epoch: 1 };
const FLOW = `
- {step: start, tool: {kind: noop}, next: {arcs: [{step: each}]}}
- {step: each, loop: {in: 3, iterator: i, spec: {mode: sequential}}, tool: {kind: noop}}`;

const log = Play.of(FLOW)
  .run()
  .log.toSorted((a, b) => Number(BigInt(a.event_id) - BigInt(b.event_id)));
const ID = log[0]!.execution_id;
const OTHER = "77";
/** The same facts of another run. */
const others = log.map(event => ({
  ...event,
  execution_id: OTHER,
  stream_id: event.stream_id === ID ? OTHER : `${OTHER}${event.stream_id}`,
})) as StoredEvent[];
const last = log.at(-1)!;

/** A projector over rows in memory; `asked` are those that it has read. */
function projector(given: ExecutionRow[] = []) {
  const rows = new Map(given.map(row => [row.execution_id, row]));
  const asked: string[][] = [];
  const store = {
    async read(ids: string[]) {
      asked.push(ids);
      return ids.flatMap(id => rows.get(id) ?? []);
    },
    async write(_claim: object, written: ExecutionRow[]) {
      for (const row of written) rows.set(row.execution_id, row);
      return true;
    },
    gaps: async () => [],
  };
  const one = new Projector(store as unknown as ProjectionStore);
  async function keep(events: StoredEvent[]): Promise<string[]> {
    await one.fold(events);
    return ((await one.write(CLAIM)) ?? []).map(row => row.execution_id);
  }
  return { one, rows, asked, keep };
}

describe("the projector", () => {
  it("asks nobody for the row of a run that this process has just begun", async () => {
    const { one, rows, asked, keep } = projector();
    for (const event of log) one.hint([event], true);
    assert.deepEqual(await keep(one.take()), [ID]);
    assert.deepEqual(asked, []);
    assert.deepEqual(rows.get(ID), rebuildRow(log));
  });

  it("asks for the row of any other: somebody may have folded it further", async () => {
    const { one, asked, keep } = projector([rebuildRow(log)!]);
    one.hint(log.slice(0, 3));
    assert.deepEqual(await keep(one.take()), []);
    assert.deepEqual(asked, [[ID]]);
  });

  it("asks for the row of a begun run when it knows nothing of it any more", async () => {
    const { one, asked, keep } = projector([rebuildRow(log)!]);
    one.hint(log, true);
    one.forget();
    assert.deepEqual(await keep(one.take()), []);
    assert.deepEqual(asked, [[ID]]);
  });

  it("reads no row again when the log brings a run that has ended", async () => {
    const { one, asked, keep } = projector();
    one.hint(log, true);
    await keep(one.take());
    assert.deepEqual(await keep(log), []);
    assert.deepEqual(asked, []);
  });

  it("reads it when something comes after its end", async () => {
    const { one, rows, asked, keep } = projector();
    one.hint(log, true);
    await keep(one.take());
    const version = rows.get(ID)!.version + 1;
    const redriven = { ...last, event_type: "execution.redriven", stream_id: ID, version };
    assert.deepEqual(await keep([redriven as StoredEvent]), [ID]);
    assert.deepEqual(asked, [[ID]]);
    assert.equal(rows.get(ID)?.status, "RUNNING");
  });

  it("reads it when it was made anew behind its back", async () => {
    const { one, asked, keep } = projector();
    one.hint(log, true);
    await keep(one.take());
    one.forgetRow(ID);
    await keep(log);
    assert.deepEqual(asked, [[ID]]);
  });

  it("takes runs whole of which something is awaited, and leaves the others in order", async () => {
    const { one, rows, keep } = projector();
    const half = others.slice(0, -1);
    for (const [index, event] of log.entries()) one.hint([event, ...half.slice(index, index + 1)]);
    assert.equal(one.isAwaited, true);
    const awaited = one.takeAwaited();
    assert.deepEqual(awaited, log);
    assert.equal(one.isAwaited, false);
    assert.deepEqual(one.takeAwaited(), []);
    await keep(awaited);
    assert.equal(rows.get(ID)?.status, "COMPLETED");
    assert.deepEqual(one.take(), half);
  });
});
