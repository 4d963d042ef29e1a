// Sizes of JSON: what fits into a message, and what is nested too deeply for anybody to write.
import { strict as assert } from "node:assert";
import { JSON_DEPTH_MAX, jsonBytes, splitBySize } from "../../mixins/json-size.ts";
import { chance } from "../support/chance.ts";

/** A list in a list in a list … */
function nested(levels: number): unknown {
  return JSON.parse("[".repeat(levels) + "]".repeat(levels));
}

describe("sizes of JSON", () => {
  it("are bytes, not characters", () => {
    assert.equal(jsonBytes({ a: "é€😀" }), Buffer.byteLength('{"a":"é€😀"}'));
    assert.equal(jsonBytes("x".repeat(10_000)), 10_002);
    assert.equal(jsonBytes(undefined), 0);
  });

  it("what is nested to the limit has a size; one level more is refused", () => {
    assert.equal(jsonBytes(nested(JSON_DEPTH_MAX)), 2 * JSON_DEPTH_MAX);
    const refused = { type: "REJECTED", code: 422, data: { reason: "malformed" } };
    assert.throws(() => jsonBytes(nested(JSON_DEPTH_MAX + 1)), refused);
    // Far beyond what a serializer can walk.
    assert.throws(() => jsonBytes({ a: [nested(200_000)] }), refused);
  });

  it("what is no JSON is refused, in words", () => {
    const circle: Record<string, unknown> = {};
    circle["self"] = circle;
    assert.throws(() => jsonBytes(circle), { type: "REJECTED", message: /not JSON/ });
    assert.throws(() => jsonBytes({ n: 1n }), { type: "REJECTED", message: /not JSON/ });
  });

  it("a list is split into messages that fit, in order, each item once", () => {
    const seeded = chance("splits");
    for (let round = 0; round < 200; round += 1) {
      const limit = seeded.between(50, 400);
      const items = Array.from({ length: seeded.between(0, 60) }, (_, index) => ({
        index,
        text: "x".repeat(seeded.between(0, 100)),
      }));
      const groups = splitBySize(items, limit, 7);
      assert.deepEqual(groups.flat(), items);
      for (const group of groups) {
        assert.ok(group.length >= 1 && group.length <= 7);
        const bytes = Buffer.byteLength(JSON.stringify(group)) - 1;
        assert.ok(bytes <= limit || group.length === 1, `${bytes} bytes of ${limit}`);
      }
      const isTight = groups.slice(1).every((group, index) => {
        const before = groups[index] ?? [];
        const one = [...before, group[0]];
        return before.length === 7 || Buffer.byteLength(JSON.stringify(one)) - 1 > limit;
      });
      assert.ok(isTight, "no message is sent before it is full");
    }
  });

  it("what is larger than a message, or has no size, is alone", () => {
    const circle: Record<string, unknown> = {};
    circle["self"] = circle;
    const groups = splitBySize([{ a: 1 }, "x".repeat(200), { a: 2 }, circle, { a: 3 }], 100);
    assert.deepEqual(
      groups.map(group => group.length),
      [1, 1, 1, 1, 1],
    );
    assert.deepEqual(splitBySize([], 100), []);
  });
});
