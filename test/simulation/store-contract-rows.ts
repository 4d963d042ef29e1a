// The contract's sentences about rows beside the log: snapshots, workers, and the projection.
import { strict as assert } from "node:assert";
import type { NewEvent } from "../../schemas/events.ts";
import type { Sentence } from "./store-contract.ts";

const note = (index: number): NewEvent => ({
  event_type: "call.partial",
  meta: { command_id: "c", chunk_index: index },
});

export const OF_ROWS: Record<string, Sentence> = {
  "of two snapshots the newer is kept": async ({ of }) => {
    const id = of.newId();
    await of.store.writeSnapshot(id, 5, { at: 5 });
    await of.store.writeSnapshot(id, 3, { at: 3 });
    assert.deepEqual(await of.store.readSnapshot(id), { version: 5, state: { at: 5 } });
  },
  "a holder is seen, or gone, or without a row": async ({ of }) => {
    const [worker_id, first, second] = ["w", "a", "b"].map(name => `${name}-${of.newId()}`);
    const holder = (incarnation = "") => ({ worker_id: worker_id ?? "", incarnation });
    const row = { ...holder(first), machine: `m-${worker_id}`, pid: 1, capacity: {} };
    const seen = async (incarnation = "") =>
      (await of.store.readSeen([holder(incarnation)])).get(incarnation);
    assert.equal(await seen(first), undefined);
    await of.workers.beat(row, "ready");
    assert.ok(Math.abs(Number(await seen(first)) - of.now()) < 5_000);
    const mine = await of.workers.onMachine(row.machine);
    assert.deepEqual(mine, [{ ...holder(first), pid: 1 }]);
    await of.workers.beat({ ...row, incarnation: second ?? "" }, "ready");
    assert.equal(await seen(first), "gone", "another incarnation took its name");
    await of.workers.leave(second ?? "");
    assert.equal(await seen(second), "gone");
    assert.deepEqual(await of.workers.onMachine(row.machine), []);
  },
  "the dead are buried: gone, and what they decided last is due": async contract => {
    const { store, workers, newId } = contract.of;
    const worker = { worker_id: `w-${newId()}`, incarnation: `i-${newId()}` };
    const stream = contract.stream();
    await workers.beat({ ...worker, machine: "m", pid: 1, capacity: {} }, "ready");
    await contract.append(stream, 0, { owner: worker.worker_id });
    await workers.bury([worker]);
    assert.equal((await store.readSeen([worker])).get(worker.incarnation), "gone");
    const due = await store.pickDue({ limit: 10, backoffMs: 1, owner: worker.worker_id });
    assert.deepEqual(due, [{ ...stream, kind: "loops" }]);
  },
  "a shard has one holder; the next one's epoch shuts the old one out": async contract => {
    const { rows, newId } = contract.of;
    const shard = Number(BigInt(newId()) % 1_000_000_000n);
    const hold = (holder: string, leaseMs: number, epoch?: number) =>
      rows.hold({ shard, holder, leaseMs, epoch });
    const old = await hold("old", -1);
    const current = await hold("new", 60_000);
    assert.ok(old && current && current.epoch > old.epoch);
    assert.equal(await hold("old", 60_000), undefined);
    assert.equal((await hold("new", 60_000, current.epoch))?.epoch, current.epoch);
    assert.equal(await rows.holder(shard), "new");
    assert.equal(await rows.write(old, []), false);
    await rows.save(old, { tx: "9", event_id: "9" });
    await rows.save(current, { tx: "5", event_id: "7" });
    const renewed = await hold("new", 60_000, current.epoch);
    assert.deepEqual(renewed?.position, { tx: "5", event_id: "7" });
    await rows.release(current);
    assert.equal(await rows.holder(shard), undefined);
  },
  "a process that comes under the name of the one before shuts that one out": async contract => {
    const { rows, newId } = contract.of;
    const shard = Number(BigInt(newId()) % 1_000_000_000n);
    const hold = (epoch?: number) =>
      rows.hold({ shard, holder: "server-0", leaseMs: 60_000, epoch });
    const before = await hold();
    const next = await hold();
    assert.ok(before && next && next.epoch > before.epoch);
    assert.equal(await rows.write(before, []), false, "its last statement may come late");
    assert.equal((await hold(next.epoch))?.epoch, next.epoch);
  },
  "a row is written at its version or a newer one": async contract => {
    const { rows, newId } = contract.of;
    const stream = contract.stream();
    const start = { path: "p", playbook_version: 1, hash: "h" };
    await contract.append(stream, 0, { kind: "executions", start });
    const shard = Number(BigInt(newId()) % 1_000_000_000n);
    const claim = await rows.hold({ shard, holder: "h", leaseMs: 60_000 });
    const [row] = await rows.read([stream.execution_id]);
    assert.ok(claim && row);
    const write = (version: number, status: string) =>
      rows.write(claim, [{ ...row, version, status }]);
    await write(3, "COMPLETED");
    await write(2, "FAILED");
    const [now] = await rows.read([stream.execution_id]);
    assert.deepEqual([now?.version, now?.status], [3, "COMPLETED"]);
    assert.equal(await rows.replace(claim, { ...row, version: 1 }), true);
    assert.equal((await rows.read([stream.execution_id]))[0]?.version, 1);
  },
  "gaps and the log of an execution are read in the order of versions": async contract => {
    const { rows } = contract.of;
    const stream = contract.stream();
    await contract.facts(stream, 0, note(1), note(2), note(3), note(4));
    const gap = { ...stream, after: 1, before: 4 };
    const found = await rows.gaps([gap], { page: 10, all: 10 });
    assert.deepEqual(
      found.map(event => event.version),
      [2, 3],
    );
    assert.equal((await rows.gaps([gap], { page: 1, all: 10 })).length, 1);
    assert.equal((await rows.log(stream.execution_id)).length, 4);
  },
};
