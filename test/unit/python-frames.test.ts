// What travels between us and a Python process: frames in pieces, output with marks and bounds.
import { strict as assert } from "node:assert";
import { FrameReader, frameOf } from "../../services/tool.python/frames.ts";
import { Printed } from "../../services/tool.python/printed.ts";

describe("frames of the python tool", () => {
  const texts = [{ a: 1 }, { text: "ü — 漢字 \n" }, {}, { long: "x".repeat(10_000) }];
  const bytes = Buffer.concat(texts.flatMap(frameOf));

  for (const size of [1, 3, 4, 5, 64, 1 << 20]) {
    it(`are put together again from pieces of ${size} bytes`, () => {
      const reader = new FrameReader(100_000);
      const found: unknown[] = [];
      for (let at = 0; at < bytes.length; at += size) {
        const piece = bytes.subarray(at, at + size);
        found.push(...reader.read(piece).map(text => JSON.parse(text) as unknown));
      }
      assert.deepEqual(found, texts);
    });
  }

  it("that are too large are refused by their head", () => {
    const reader = new FrameReader(100);
    assert.throws(() => reader.read(frameOf({ long: "x".repeat(200) })[0]), RangeError);
  });
});

describe("what a task prints", () => {
  const mark = "\0abc\n";

  function printed(chunks: (string | Buffer)[], bytesMax = 1_000): Printed {
    const output = new Printed(bytesMax);
    output.begin(mark);
    for (const chunk of chunks) output.write(Buffer.from(chunk));
    return output;
  }

  it("ends at its mark, in whatever pieces that comes", async () => {
    for (const chunks of [["hello\0abc\n"], ["hello\0", "a", "bc\n"], [..."hello\0abc\n"]]) {
      const output = printed(chunks);
      await output.marked;
      assert.equal(output.text(), "hello");
    }
  });

  it("may look like the beginning of a mark", () => {
    assert.equal(printed(["a\0ab", "\0abx"]).text(), "a\0ab\0abx");
  });

  it("is told without a mark when its process has died", () => {
    assert.equal(printed(["half a line"]).text(), "half a line");
  });

  it("keeps its beginning and its end within its bound", () => {
    const lines = Array.from({ length: 10_000 }, (_, at) => `line ${at}\n`);
    const text = printed([...lines, mark], 200).text();
    assert.match(text, /^line 0\nline 1\n/);
    assert.match(text, /line 9999\n$/);
    const [, lost] = /… (\d+) bytes left out …/.exec(text) ?? [];
    assert.equal(Number(lost), lines.join("").length - 200);
    assert.ok(text.length < 260, `${text.length} characters`);
  });

  it("in one piece larger than the bound is cut the same way", () => {
    const text = printed(["x".repeat(500) + "y".repeat(500) + mark], 10).text();
    assert.equal(text, "xxxxx\n… 990 bytes left out …\nyyyyy");
  });

  it("of one task is not shown with the next", () => {
    const output = printed(["first\0abc\n"]);
    output.write(Buffer.from("between"));
    output.begin("\0def\n");
    output.write(Buffer.from("second\0def\n"));
    assert.equal(output.text(), "second");
  });
});
