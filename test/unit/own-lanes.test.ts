// Rings that name one worker: what knocks say, and what of it a slot that waits is given.
import { strict as assert } from "node:assert";
import type { Msg, NatsConnection } from "nats";
import { Knocker, readKnock } from "../../mixins/jetstream-knocks.ts";
import { GIVEN_BACK_MS, OwnLanes } from "../../mixins/jetstream-own-lanes.ts";
import type { Rung } from "../../mixins/notifications.ts";
import type { Ring } from "../../schemas/decider.ts";
import { loadSettings } from "../../schemas/env.ts";
import { until } from "../support/actors.ts";

const settings = loadSettings({ NATS_URL: "nats://127.0.0.1:4222" });

function stepOf(number: number, more: Partial<Ring> = {}): Ring {
  const ids = { execution_id: "1", stream_id: "1", command_id: `1:step:1:${number}:1` };
  return { ...ids, actor: "executions", step: "step", kind: "http", delivery: 0, ...more };
}

const idsOf = (rungs: Ring[]) => rungs.map(rung => rung.command_id);
const NEVER = new AbortController().signal;

describe("the lanes of one worker", () => {
  let hear: (text: string) => void;
  let knocker: Knocker;
  let connection: NatsConnection;
  let lanes: OwnLanes;
  /** What its lanes keep, and what was done with it. */
  let kept: Ring[];
  let acked: string[];
  let back: string[];
  let looks: number;

  beforeEach(async () => {
    connection = {
      subscribe: (_subject: string, options: { callback: (error: null, message: Msg) => void }) => {
        hear = text => options.callback(null, { string: () => text } as Msg);
      },
      publish: (_subject: string, text: string) => hear(text),
      isClosed: () => false,
      isDraining: () => false,
    } as unknown as NatsConnection;
    [kept, acked, back, looks] = [[], [], [], 0];
    lanes = new OwnLanes(settings, "node-1", ({ batch }) => {
      looks += 1;
      return Promise.resolve(kept.splice(0, batch).map(rungOf));
    });
    lanes.hear(connection);
    knocker = new Knocker(settings);
    for (const workClass of ["general", "database"] as const) await lanes.look(workClass, 1);
    looks = 0;
  });

  function rungOf(ring: Ring): Rung {
    const { command_id } = ring;
    return { ...ring, ack: () => acked.push(command_id), giveBack: () => back.push(command_id) };
  }

  /** As a server does: held out at once, kept, and said to be kept. */
  async function send(ring: Ring): Promise<void> {
    if (ring.actor === "executions") knocker.offer(connection, "node-1", ring);
    kept.push(ring);
    knocker.kept(connection, "node-1", ring);
    await new Promise(resolve => setImmediate(resolve));
  }

  /** Waits for the pool too, which gives `late` when the wait ends; resolves when it waits. */
  async function fetch(late: Rung[] = []): Promise<{ rungs: Promise<Rung[]> }> {
    const rungs = lanes.fetch({ work_class: "general", max: 1 }, NEVER, ends => {
      const { promise, resolve } = Promise.withResolvers<Rung[]>();
      for (const end of ends) {
        if (end.aborted) resolve([]);
        end.addEventListener("abort", () => resolve(late));
      }
      return promise;
    });
    await new Promise(resolve => setImmediate(resolve));
    return { rungs };
  }

  it("give a step to the slot that waits, and drop its copy at the next look", async () => {
    const waits = await fetch();
    await send(stepOf(1));
    assert.deepEqual(idsOf(await waits.rungs), [stepOf(1).command_id]);
    assert.equal(looks, 0);
    assert.equal(lanes.isUrgent("general"), false, "nobody has to hurry for a copy");
    assert.deepEqual(await lanes.look("general", 5), []);
    assert.deepEqual([looks, acked], [1, [stepOf(1).command_id]]);
  });
  it("have a step for the slot that comes a moment later", async () => {
    await send(stepOf(1));
    assert.deepEqual(idsOf(await (await fetch()).rungs), [stepOf(1).command_id]);
    assert.equal(looks, 0);
    assert.deepEqual(await lanes.look("general", 5), []);
    assert.deepEqual(acked, [stepOf(1).command_id]);
  });
  it("find a step in the stream that nobody took in time", async () => {
    await send(stepOf(1));
    await new Promise(resolve => setTimeout(resolve, 250));
    assert.equal(lanes.isUrgent("general"), true);
    const rungs = await lanes.look("general", 5);
    assert.deepEqual([idsOf(rungs), looks], [[stepOf(1).command_id], 1]);
    assert.deepEqual(acked, [], "it is acknowledged with its claim");
  });
  it("have a step once, whether its copy or its knock comes first", async () => {
    kept.push(stepOf(1));
    knocker.kept(connection, "node-1", stepOf(1));
    await new Promise(resolve => setImmediate(resolve));
    const looking = lanes.look("general", 5);
    knocker.offer(connection, "node-1", stepOf(1));
    assert.deepEqual(idsOf(await looking), [stepOf(1).command_id]);
    assert.deepEqual(await lanes.look("general", 5), []);
  });
  it("give each class its own, and a slot one", async () => {
    const waits = await fetch();
    await send(stepOf(1, { kind: "postgres" }));
    await send(stepOf(2));
    await send(stepOf(3));
    assert.deepEqual(idsOf(await waits.rungs), [stepOf(2).command_id]);
    assert.deepEqual(idsOf(await lanes.look("general", 5)), [stepOf(3).command_id]);
    assert.deepEqual(idsOf(await lanes.look("database", 5)), [stepOf(1).command_id]);
  });
  it("give the pool's back that came with it: there is room for one", async () => {
    const waits = await fetch([rungOf(stepOf(7))]);
    await send(stepOf(1));
    assert.deepEqual(idsOf(await waits.rungs), [stepOf(1).command_id]);
    await until(() => back.length > 0);
    assert.deepEqual(back, [stepOf(7).command_id]);
  });
  it("bring a step again that had no room after all", async () => {
    const waits = await fetch();
    await send(stepOf(1));
    const [rung] = await waits.rungs;
    rung?.giveBack();
    assert.equal(lanes.isUrgent("general"), true);
    const [again] = await lanes.look("general", 5);
    assert.equal(again?.command_id, stepOf(1).command_id);
    again?.giveBack();
    assert.deepEqual(back, [stepOf(1).command_id]);
    await until(() => lanes.isUrgent("general"), 4 * GIVEN_BACK_MS);
  });
  it("are looked into for the items of a loop", async () => {
    const waits = await fetch();
    await send(stepOf(1, { actor: "loops" }));
    assert.deepEqual(idsOf(await waits.rungs), [stepOf(1).command_id]);
    assert.equal(looks, 1);
  });
  it("hear nothing in what is no knock", async () => {
    for (const text of ["", "offer", "offer\n{}", "offer\nno", "general urgent\n{", "x", "take"]) {
      assert.equal(readKnock(text), undefined, text);
      hear(text);
    }
    assert.deepEqual(await lanes.look("general", 5), []);
    assert.equal(looks, 0);
  });
});
