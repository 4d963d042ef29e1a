// Values whose parts occur more than once are stored with each part once, and come back whole.
import { strict as assert } from "node:assert";
import { parse, stringify } from "../../mixins/result-store/shared-parts.ts";
import type { Json } from "../../schemas/json.ts";

describe("stringify and parse of shared parts", () => {
  const items = Array.from({ length: 100 }, (_, id) => ({ id, text: "x".repeat(100) }));
  const result = { status: "ok", items };

  it("a pipeline's result is as large as what is in it", () => {
    const merged: Json = { ...result, get: result, results: { get: result }, _prev: result };
    const text = stringify(merged);
    assert.ok(text.length < JSON.stringify(result).length + 200, `${text.length} characters`);
    assert.deepEqual(parse(text), merged);
  });

  it("the parts are one object again", () => {
    const read = parse(stringify({ a: result, b: [result] })) as { a: object; b: object[] };
    assert.equal(read.a, read.b[0]);
  });

  it("a value without shared parts is its own JSON", () => {
    for (const value of [null, 1, "text", [], {}, result, [[{}], {}]]) {
      assert.equal(stringify(value), JSON.stringify(value));
      assert.deepEqual(parse(JSON.stringify(value)), value);
    }
  });

  it("words of ours in a user's value mean nothing", () => {
    const values: Json[] = [
      { "noetl:shared": [1, 2], value: 3 },
      { "noetl:shared": [], value: 3 },
      { a: { "noetl:at": 0 }, b: result, c: result },
      { "noetl:at": 1 },
    ];
    for (const value of values) assert.deepEqual(parse(stringify(value)), value);
  });

  it("a long text is written once, wherever it stands", () => {
    const text = "a long text ".repeat(100);
    const again = [...text].join("");
    const value: Json = { text, list: [again, { again }], short: "short", also: "short" };
    assert.ok(stringify(value).length < text.length + 200);
    assert.deepEqual(parse(stringify(value)), value);
    assert.equal(stringify({ text }), JSON.stringify({ text }));
  });

  it("parts may lie in parts", () => {
    const inner = { deep: [1] };
    const outer = { inner, also: inner };
    const value: Json = { outer, again: outer, inner };
    assert.deepEqual(parse(stringify(value)), value);
  });
});
