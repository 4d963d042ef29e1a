/** Hints to the node that keeps the projection: gathered, bounded, sent until they are taken. */
import { strict as assert } from "node:assert";
import type { ServiceBroker } from "moleculer";
import { createClock } from "../../mixins/clock.ts";
import { createFeed, type Runtime } from "../../mixins/runtime.ts";
import type { StoredEvent } from "../../schemas/events.ts";
import { HintSender } from "../../services/projection/hints.ts";
import { until } from "../support/actors.ts";

type Answer = { taken: boolean } | Error | Promise<{ taken: boolean }>;

interface Sent {
  at: number;
  nodeID: string;
  events: StoredEvent[];
  bytes: number;
}

/** A node beside the holder `h`; `answer` is what that says to each message. */
function beside(options: { transit?: boolean; answer?: (sent: Sent) => Answer } = {}) {
  const sent: Sent[] = [];
  let holder: string | null = "h";
  const rows = { holder: () => Promise.resolve(holder ?? undefined) };
  const broker = {
    nodeID: "me",
    transit: (options.transit ?? true) ? {} : undefined,
    logger: { warn() {} },
    registry: { getActionEndpointByNodeId: (_action: string, node: string) => ({ node }) },
    async call(_name: string, params: { events: StoredEvent[] }, { nodeID }: { nodeID: string }) {
      const bytes = Buffer.byteLength(JSON.stringify(params));
      const one = { at: performance.now(), nodeID, events: params.events, bytes };
      sent.push(one);
      const answer = await (options.answer?.(one) ?? { taken: true });
      if (answer instanceof Error) throw answer;
      return answer;
    },
  };
  const shown = createFeed<ReadonlyMap<string, unknown>>();
  const runtime = { clock: createClock(), rows, shown } as unknown as Runtime;
  const sender = new HintSender(runtime, broker as unknown as ServiceBroker, 0);
  return { sender, sent, shown, move: (node: string | null) => (holder = node) };
}

const away = () => Object.assign(new Error("away"), { type: "REQUEST_TIMEOUT" });
const got = (sent: Sent[]) => sent.flatMap(one => one.events.map(event => event.version));

function facts(stream: string, from: number, count: number, more: object = {}): StoredEvent[] {
  return Array.from({ length: count }, (_none, index) => ({
    event_type: "command.claimed" as const,
    event_id: String(index + 1),
    execution_id: stream,
    stream_id: stream,
    version: from + index,
    at: 1,
    meta: { command_id: "1:a:1:1", delivery: 1, worker_id: "w", incarnation: "i", claim_id: "c" },
    ...more,
  }));
}

const end = (stream: string, version: number) =>
  facts(stream, version, 1, { event_type: "playbook.completed", meta: { generation: 0 } });

describe("hints to the holder of the projection", () => {
  it("gather for a moment, and go out together and in order", async () => {
    const { sender, sent } = beside();
    for (let version = 1; version <= 30; version += 1) sender.push(facts("7", version, 1));
    assert.equal(sent.length, 0);
    await until(() => sent.length > 0);
    assert.deepEqual(
      sent.map(one => [one.nodeID, one.events.length]),
      [["h", 30]],
    );
    assert.deepEqual(
      got(sent),
      Array.from({ length: 30 }, (_none, index) => index + 1),
    );
    await sender.stop();
  });

  it("go out at once with the end of a run, and those who wait for its row are told", async () => {
    const { sender, sent, shown } = beside();
    const told: string[] = [];
    shown.subscribe(rows => told.push(...rows.keys()));
    sender.push(facts("7", 1, 3));
    const begun = performance.now();
    sender.push(end("7", 4));
    await until(() => sent.length > 0);
    assert.ok(sent[0]!.at - begun < 20, `${sent[0]!.at - begun} ms`);
    assert.deepEqual(got(sent), [1, 2, 3, 4]);
    await until(() => told.length > 0);
    assert.deepEqual(told, ["7"]);
    await sender.stop();
  });

  it("never make a message of 256 KB, whatever results they come from", async () => {
    const { sender, sent } = beside();
    const name = "n".repeat(200);
    for (let stream = 1; stream <= 40; stream += 1) {
      const context = { big: "x".repeat(50_000) };
      sender.push(facts(String(stream), 1, 50, { node_name: name, context, result: context }));
    }
    await until(() => got(sent).length === 2_000);
    assert.ok(
      sent.every(one => one.bytes < 256 * 1_024),
      String(sent.map(one => one.bytes)),
    );
    assert.ok(sent.length > 1);
    await sender.stop();
  });

  it("are few at a time on their way: the next ones gather meanwhile", async () => {
    const answers = Promise.withResolvers<{ taken: boolean }>();
    const { sender, sent } = beside({ answer: () => answers.promise });
    for (let version = 1; version <= 20; version += 1) {
      sender.push(end("7", version));
      await new Promise(resolve => setTimeout(resolve, 5));
    }
    assert.equal(sent.length, 4);
    answers.resolve({ taken: true });
    await until(() => got(sent).length === 20);
    assert.equal(sent.length, 5);
    await sender.stop();
  });

  it("are sent again until they are taken, also by another holder", async () => {
    const answers: Answer[] = [away(), { taken: false }];
    const scene = beside({ answer: () => answers.shift() ?? { taken: true } });
    scene.sender.push(end("7", 1));
    await until(() => scene.sent.length === 1);
    scene.move(null);
    await until(() => scene.sender.counters.failed >= 2);
    assert.equal(scene.sent.length, 1, "nobody keeps the rows");
    scene.move("other");
    await until(() => scene.sender.counters.sent === 1);
    assert.deepEqual(
      scene.sent.map(one => one.nodeID),
      ["h", "other", "other"],
    );
    assert.deepEqual(got(scene.sent), [1, 1, 1]);
    await scene.sender.stop();
  });

  it("that cannot be taken at all are given up: the log brings what they said", async () => {
    const refused = Object.assign(new Error("no"), { type: "REJECTED" });
    const { sender, sent } = beside({ answer: () => refused });
    sender.push(end("7", 1));
    await until(() => sender.counters.refused === 1);
    assert.deepEqual(sender.take(), []);
    assert.equal(sent.length, 1);
    await sender.stop();
  });

  it("that nobody takes are thinned to the newest of each stream", async () => {
    const { sender, sent, move } = beside();
    move(null);
    for (let version = 1; version <= 30_000; version += 100) {
      for (const stream of ["7", "8"]) sender.push(facts(stream, version, 100));
    }
    const kept = sender.take();
    assert.ok(kept.length <= 10_000, `${kept.length}`);
    for (const stream of ["7", "8"]) {
      assert.ok(kept.some(event => event.stream_id === stream && event.version === 30_000));
    }
    assert.equal(sender.counters.thinned, 60_000 - kept.length);
    assert.equal(sent.length, 0);
    await sender.stop();
  });

  it("are not kept where there is no transporter: one process needs none", async () => {
    const { sender, sent } = beside({ transit: false });
    sender.push(end("7", 1));
    assert.deepEqual(sender.take(), []);
    await sender.stop();
    assert.equal(sent.length, 0);
  });

  it("that are left when the node stops are sent with its farewell", async () => {
    const { sender, sent } = beside();
    sender.push(facts("7", 1, 2));
    await sender.stop();
    assert.deepEqual(got(sent), [1, 2]);
  });
});
