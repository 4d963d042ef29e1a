// What a worker tells the servers of itself, and when.
import { strict as assert } from "node:assert";
import type { ServiceBroker } from "moleculer";
import { announceCapacity, behindGates, capacityOf } from "../../services/worker/announce.ts";
import { Ledger } from "../../services/worker/ledger.ts";
import { createClock } from "../../mixins/clock.ts";
import type { WorkerCapacity } from "../../schemas/worker-capacity.ts";

const EVERY_MS = 15_000;

function worker() {
  const slots = new Ledger({ all: 8, database: 2 });
  const [all, database] = [{ blocked: false }, { blocked: false }];
  const gates = { general: { watched: [all] }, database: { watched: [all, database] } };
  const said: WorkerCapacity[] = [];
  let [now, look] = [0, () => {}];
  const clock = {
    ...createClock(),
    now: () => now,
    after(_ms: number, act: () => void) {
      look = act;
      return () => undefined;
    },
  };
  const broadcast = (_name: string, capacity: WorkerCapacity) => {
    said.push(capacity);
    return Promise.resolve();
  };
  const me = { worker_id: "w", incarnation: "w-1", machine: "", pid: 1 };
  const words = { status: "ready" as const, capabilities: [], labels: [] };
  const read = () => behindGates(capacityOf(me, slots, words), gates);
  const servers: { id: string; node: { instanceID: string } }[] = [];
  const registry = { events: { getAllEndpoints: () => servers } };
  const broker = { broadcast, registry } as unknown as ServiceBroker;
  announceCapacity({ broker, clock, everyMs: EVERY_MS }, read);
  function pass(ms: number): [number, number] | undefined {
    now += ms;
    const before = said.length;
    look();
    const last = said.length > before ? said.at(-1) : undefined;
    return last && [last.available_slots, last.available_db_slots];
  }
  return { slots, said, pass, all, database, servers };
}

describe("a worker's announcement", () => {
  it("comes at its start, every so often, and when much has changed", () => {
    const { slots, said, pass } = worker();
    assert.deepEqual(said[0]?.available_slots, 8);
    assert.equal(pass(500), undefined, "nothing is new");
    slots.take("general", 1);
    assert.equal(pass(500), undefined, "one slot of eight is no news");
    slots.take("general", 1);
    assert.deepEqual(pass(500), [6, 2]);
    assert.deepEqual(pass(EVERY_MS), [6, 2]);
  });

  it("comes again for a server that has started, and for one that did under the same name", () => {
    const { pass, servers } = worker();
    servers.push({ id: "s", node: { instanceID: "1" } });
    assert.deepEqual(pass(500), [8, 2]);
    assert.equal(pass(500), undefined, "it has heard it");
    servers[0] = { id: "s", node: { instanceID: "2" } };
    assert.deepEqual(pass(500), [8, 2]);
    const [gone] = servers.splice(0);
    assert.equal(pass(500), undefined, "nobody is there to hear it");
    servers.push(gone!);
    assert.deepEqual(pass(500), [8, 2], "cut off for a while, it may have forgotten");
  });

  it("has no room behind a gate that is closed: nothing would be fetched", () => {
    const { slots, pass, all, database } = worker();
    database.blocked = true;
    assert.deepEqual(pass(500), [8, 0]);
    all.blocked = true;
    assert.deepEqual(pass(500), [0, 0]);
    all.blocked = database.blocked = false;
    assert.deepEqual(pass(500), [8, 2]);
    // For a command that is alone in its worker.
    slots.close();
    assert.deepEqual(pass(500), [0, 0]);
  });
});
