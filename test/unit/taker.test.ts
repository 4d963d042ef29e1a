// A worker that is given commands unasked: what it takes, and what it leaves to others.
import { strict as assert } from "node:assert";
import type { ServerLink } from "../../mixins/server-link.ts";
import type { Given } from "../../schemas/actor-requests.ts";
import type { Grant } from "../../schemas/frozen-scope.ts";
import type { WorkClass } from "../../schemas/work-class.ts";
import { Taker } from "../../services/worker/taker.ts";
import type { Gates } from "../../services/worker/gate/open.ts";
import { Held } from "../../services/worker/held.ts";

const me = { worker_id: "w", incarnation: "w-1", machine: "", pid: 1 };
const NOW = 1_000_000;

function given(step: string, kind = "noop"): Given {
  const ids = { execution_id: "1", stream_id: "1", command_id: `1:${step}:1:1` };
  return { claim_id: `c-${step}`, grant: { ...ids, step, kind, delivery: 1 } as Grant };
}

interface World {
  /** Free slots by class. */
  general: number;
  database: number;
  isAskingOthers?: boolean;
  /** Answers a claim of what came late. */
  claim?: ServerLink["claim"];
}

function worker(world: World) {
  const ran: [string, WorkClass][] = [];
  const held = new Held();
  const gate = (workClass: WorkClass) => ({
    gate: {
      takeOne: () => Promise.resolve(world[workClass] > 0 && (world[workClass] -= 1) >= 0),
    },
  });
  const gates = {
    of: { general: gate("general"), database: gate("database") },
    isAskingOthers: world.isAskingOthers ?? false,
  } as unknown as Gates;
  const stop = new AbortController();
  const taker = new Taker({
    ...{ me, gates, held, signal: stop.signal, clock: { now: () => NOW } },
    link: { claim: world.claim ?? (() => Promise.reject(new Error("nobody asked"))) },
    run: (_actor, { step }, workClass) => void ran.push([step, workClass]),
  });
  const take = async (some: Given[], more: { at?: number; incarnation?: string } = {}) => {
    const sent = { actor: "executions" as const, incarnation: "w-1", at: NOW, given: some };
    const { taken } = await taker.take({ ...sent, ...more });
    return taken.map(id => id.split(":")[1]);
  };
  return { take, ran, held, stop };
}

describe("a worker that is given commands unasked", () => {
  it("takes what it has slots for, each in its class", async () => {
    const { take, ran, held } = worker({ general: 1, database: 1 });
    const taken = await take([given("a"), given("b"), given("c", "postgres")]);
    assert.deepEqual(taken, ["a", "c"]);
    assert.deepEqual(ran, [
      ["a", "general"],
      ["c", "database"],
    ]);
    assert.deepEqual(held.ids, ["1:a:1:1", "1:c:1:1"], "it does not hold what it has left");
  });

  it("runs once what it is told twice, also after that has ended", async () => {
    const { take, ran, held } = worker({ general: 9, database: 1 });
    const both = await Promise.all([take([given("a")]), take([given("a")])]);
    assert.deepEqual(both, [["a"], ["a"]]);
    held.drop("1:a:1:1");
    assert.deepEqual(await take([given("a")]), ["a"]);
    assert.equal(ran.length, 1);
  });

  it("takes nothing of the one before it, nor when it stops, nor past others", async () => {
    const { take, ran, stop } = worker({ general: 9, database: 9 });
    assert.deepEqual(await take([given("a")], { incarnation: "w-0" }), []);
    stop.abort();
    assert.deepEqual(await take([given("a")]), []);
    const asking = worker({ general: 9, database: 9, isAskingOthers: true });
    assert.deepEqual(await asking.take([given("a")]), []);
    assert.deepEqual([...ran, ...asking.ran], []);
  });

  it("asks whether what comes late is still its own", async () => {
    const asked: object[] = [];
    const claim: ServerLink["claim"] = (_actor, batch) => {
      asked.push(batch);
      const { command_id } = batch.claims[0]!;
      const { grant } = given("a");
      return Promise.resolve([
        command_id === grant.command_id
          ? { command_id, status: "ok", grant }
          : { command_id, status: "refused", reason: "held", message: "" },
      ]);
    };
    const { take, ran, held } = worker({ general: 9, database: 9, claim });
    const late = { at: NOW - 60_000 };
    assert.deepEqual(await take([given("a"), given("b")], late), ["a"]);
    assert.deepEqual(ran, [["a", "general"]]);
    assert.deepEqual(held.ids, ["1:a:1:1"]);
    const { claim_id, grant } = given("a");
    const { execution_id, stream_id, command_id } = grant;
    const { worker_id, incarnation } = me;
    const claims = [{ execution_id, stream_id, command_id }];
    assert.deepEqual(asked[0], { worker_id, incarnation, claim_id, claims });
  });

  it("holds nothing of what it could not ask about", async () => {
    const { take, held } = worker({ general: 9, database: 9 });
    await assert.rejects(take([given("a")], { at: NOW - 60_000 }), /nobody asked/);
    assert.deepEqual(held.ids, []);
  });
});
