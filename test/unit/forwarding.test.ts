// Inputs on their way to a rival: through the doors of workers, each batch as its sender meant it.
import { strict as assert } from "node:assert";
import type { ServiceBroker } from "moleculer";
import type { Entry } from "../../mixins/deciding.ts";
import { createForward } from "../../mixins/forwarding.ts";
import { MESSAGE_BYTES_MAX } from "../../mixins/json-size.ts";

interface Input {
  type: string;
  command_id?: string;
  claim_id?: string;
}
interface Call {
  action: string;
  params: Record<string, unknown>;
  options: object;
}

const STREAM = { execution_id: "1", stream_id: "2" };
const OK = { status: "ok" };

/** A broker whose calls are answered by `reply`, one reply an entry. */
function rival(reply: (command_id: string) => object): { broker: ServiceBroker; calls: Call[] } {
  const calls: Call[] = [];
  const call = (action: string, params: Record<string, unknown>, options: object) => {
    calls.push({ action, params, options });
    const list = Object.values(params).find(Array.isArray) as { command_id: string }[];
    return Promise.resolve(list.map(({ command_id }) => ({ command_id, ...reply(command_id) })));
  };
  return { broker: { call } as unknown as ServiceBroker, calls };
}

/** Entries with what their senders are told. */
function waiting(inputs: Input[], more: { bytes?: number; forwarded?: boolean } = {}) {
  const told: Record<string, unknown> = {};
  const entries = inputs.map((input, index): Entry<Input, unknown> => {
    const name = input.command_id ?? `${index}`;
    const tell = (what: unknown) => void (told[name] = what);
    return { input, bytes: 100, forwarded: false, ...more, resolve: tell, reject: tell };
  });
  return { entries, told };
}

const claim = (command_id: string, claim_id = "x"): Input => {
  return { type: "claim", command_id, claim_id };
};

describe("forwarding", () => {
  it("claims of one claimant go in one call, outcomes in one of their own", async () => {
    const { broker, calls } = rival(() => OK);
    const outcome = { type: "outcome", command_id: "d" };
    const { entries, told } = waiting([claim("a"), claim("b"), claim("c", "y"), outcome]);
    const stay = await createForward(broker, "loops")("node-9", STREAM, entries);
    assert.deepEqual(stay, []);
    const lists = calls.map(({ action, params }) => [
      action,
      (Object.values(params).find(Array.isArray) as { command_id: string }[]).map(
        one => one.command_id,
      ),
    ]);
    assert.deepEqual(lists, [
      ["loops.claim", ["a", "b"]],
      ["loops.claim", ["c"]],
      ["loops.report", ["d"]],
    ]);
    assert.equal(calls[0]?.params["claim_id"], "x");
    assert.deepEqual((calls[0]?.params["claims"] as object[])[0], { ...claim("a"), ...STREAM });
    const options = { nodeID: "node-9", timeout: 1_000, meta: { forwarded: true } };
    assert.deepEqual(calls[0]?.options, options);
    assert.equal(Object.keys(told).length, 4);
  });

  it("each sender is told what the rival said about its input", async () => {
    const grant = { command_id: "a" };
    const { broker } = rival(id => {
      if (id === "a") return { ...OK, grant };
      if (id === "b") return { status: "refused", reason: "held", message: "it is held" };
      return { status: "failed", error: "the store is away" };
    });
    const { entries, told } = waiting([claim("a"), claim("b"), claim("c")]);
    await createForward(broker, "loops")("n", STREAM, entries);
    assert.deepEqual(told["a"], { changed: true, grant });
    const refused = told["b"] as { type: string; data: object; message: string };
    assert.deepEqual([refused.type, refused.data], ["REJECTED", { reason: "held" }]);
    assert.equal(refused.message, "it is held");
    assert.equal((told["c"] as { type: string }).type, "UNAVAILABLE");
  });

  it("what no worker sends stays here, and what was sent on once", async () => {
    const { broker, calls } = rival(() => OK);
    const forward = createForward(broker, "executions");
    const own = waiting([{ type: "wake" }, { type: "describe" }, { type: "start" }]);
    assert.deepEqual(await forward("n", STREAM, own.entries), own.entries);
    const sent = waiting([claim("a")], { forwarded: true });
    assert.deepEqual(await forward("n", STREAM, sent.entries), sent.entries);
    assert.deepEqual(calls, []);
    assert.deepEqual([own.told, sent.told], [{}, {}]);
  });

  it("what the rival does not answer stays here", async () => {
    const call = () => Promise.reject(Object.assign(new Error("gone"), { type: "X" }));
    const broker = { call } as unknown as ServiceBroker;
    const { entries, told } = waiting([claim("a"), { type: "release", command_id: "b" }]);
    const stay = await createForward(broker, "loops")("n", STREAM, entries);
    assert.deepEqual(new Set(stay), new Set(entries));
    const short = { call: () => Promise.resolve([]) } as unknown as ServiceBroker;
    assert.equal((await createForward(short, "loops")("n", STREAM, entries)).length, 2);
    assert.deepEqual(told, {});
  });

  it("no call is larger than a message", async () => {
    const { broker, calls } = rival(() => OK);
    const inputs = Array.from({ length: 10 }, (_, index) => ({
      type: "outcome",
      command_id: `${index}`,
    }));
    const { entries, told } = waiting(inputs, { bytes: MESSAGE_BYTES_MAX / 4 });
    assert.deepEqual(await createForward(broker, "loops")("n", STREAM, entries), []);
    assert.deepEqual(
      calls.map(({ params }) => (params["outcomes"] as object[]).length),
      [3, 3, 3, 1],
    );
    assert.equal(Object.keys(told).length, 10);
  });
});
