// What waits for a stream's next turn: bounded in number and in bytes, wakes first.
import { strict as assert } from "node:assert";
import { Inbox } from "../../mixins/inbox.ts";

interface Input {
  type: string;
  text?: unknown;
}

const MB = 1_048_576;

describe("an inbox", () => {
  const inbox = () => new Inbox<Input, void>("7");
  const busy = { type: "BUSY", code: 429, data: { retry_after_ms: 100 } };
  const of = (bytes: number): Input => ({ type: "add", text: "x".repeat(bytes) });

  it("has room for a thousand inputs, and again when they are taken", () => {
    const box = inbox();
    for (let index = 0; index < 1_000; index += 1) void box.add({ type: "add" });
    assert.throws(() => box.add({ type: "add" }), { ...busy, message: /1000 inputs/ });
    assert.equal(box.take().length, 1_000);
    void box.add({ type: "add" });
    assert.equal(box.size, 1);
  });

  it("has room for a megabyte, and again when it is taken", () => {
    const box = inbox();
    for (let index = 0; index < 4; index += 1) void box.add(of(0.24 * MB));
    assert.throws(() => box.add(of(0.1 * MB)), { ...busy, message: /1048576 bytes/ });
    void box.add(of(0.02 * MB));
    assert.equal(box.take().length, 5);
    void box.add(of(0.9 * MB));
    assert.equal(box.size, 1);
  });

  it("counts what is put back to be decided again", () => {
    const box = inbox();
    void box.add(of(0.9 * MB));
    const [entry] = box.take();
    box.putBack(entry!);
    assert.throws(() => box.add(of(0.2 * MB)), busy);
    assert.deepEqual(box.take(), [entry]);
  });

  it("has room for one input, however large", () => {
    const box = inbox();
    void box.add(of(5 * MB));
    assert.throws(() => box.add({ type: "add" }), busy);
    assert.equal(box.take().length, 1);
  });

  it("refuses what is no JSON, and goes on", () => {
    const box = inbox();
    const deep: unknown = JSON.parse("[".repeat(9_000) + "]".repeat(9_000));
    for (const text of [deep, 5n]) {
      assert.throws(() => box.add({ type: "add", text }), { type: "REJECTED", code: 422 });
    }
    assert.equal(box.size, 0);
  });

  it("gives wakes first, and the others in their order", () => {
    const box = inbox();
    for (const type of ["a", "wake", "b", "wake", "c"]) void box.add({ type });
    const types = box.take().map(entry => entry.input.type);
    assert.deepEqual(types, ["wake", "wake", "a", "b", "c"]);
  });
});
