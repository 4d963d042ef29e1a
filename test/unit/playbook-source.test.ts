/** YAML itself: malformed text, duplicate keys, aliases, and limits, each with its place. */
import { strict as assert } from "node:assert";
import { Rejected } from "../../schemas/errors.ts";
import type { Issue } from "../../schemas/errors.ts";
import { parsePlaybook } from "../../schemas/playbook/parse.ts";
import { MAX_PLAYBOOK_BYTES, readSource } from "../../schemas/playbook/source.ts";
import { MAX_ALIASES } from "../../schemas/playbook/yaml-values.ts";

function issuesOf(text: string): Issue[] {
  try {
    readSource(text, "p.yaml");
  } catch (error) {
    assert.ok(error instanceof Rejected, String(error));
    return error.data["issues"] as Issue[];
  }
  throw new Error("the text was read");
}

describe("playbook source", () => {
  it("reports malformed YAML with line and column", () => {
    const [issue] = issuesOf("a: 1\nb: [1, 2\nc: 3\n");
    assert.equal(issue!.file, "p.yaml");
    assert.ok(issue!.line! >= 2 && issue!.column! >= 1, JSON.stringify(issue));
  });

  it("reports a second document in the file", () => {
    assert.match(issuesOf("a: 1\n---\nb: 2\n")[0]!.message, /second YAML document/);
  });

  it("reports duplicate keys at the second of them", () => {
    const { issues } = readSource("a: 1\nb:\n  c: 1\n  c: 2\n");
    assert.equal(issues.length, 1);
    assert.match(issues[0]!.message, /'c' is written twice/);
    assert.deepEqual([issues[0]!.line, issues[0]!.column], [4, 3]);
  });

  it("hints to quote a value that begins with a template", () => {
    const { issues } = readSource("url: {{ api_url }}\n");
    assert.match(issues[0]!.hint!, /quote/);
    assert.equal(issues[0]!.line, 1);
  });

  it("reports an alias without anchor, and one inside of its own anchor", () => {
    assert.match(readSource("a: *x\n").issues[0]!.message, /no anchor before it/);
    assert.match(readSource("a: &x [*x]\n").issues[0]!.message, /inside of what it stands for/);
  });

  it("refuses the key __proto__ and numbers that are no JSON", () => {
    const { issues, value } = readSource("__proto__: {a: 1}\nb: .inf\n");
    assert.equal(issues.length, 2);
    assert.equal(Object.getPrototypeOf(value), Object.prototype);
  });

  it("refuses text beyond the limit", () => {
    const [issue] = issuesOf(`a: ${"x".repeat(MAX_PLAYBOOK_BYTES)}`);
    assert.match(issue!.expected!, /1048576/);
  });

  it("refuses a bomb of aliases, quickly", () => {
    const levels = Array.from({ length: 12 }, (_, level) => {
      const inside = level === 0 ? '"0123456789"' : `*a${level - 1}`;
      return `a${level}: &a${level} [${Array(9).fill(inside).join(", ")}]`;
    });
    const started = performance.now();
    assert.match(issuesOf(levels.join("\n"))[0]!.message, /aliases expand to more than/);
    assert.ok(performance.now() - started < 1000);
  });

  it("refuses more aliases than the limit", () => {
    const text = `a: &a 1\nb: [${Array(MAX_ALIASES + 1)
      .fill("*a")
      .join(", ")}]`;
    assert.match(issuesOf(text)[0]!.message, /more than 1000 aliases/);
  });

  it("refuses deep nesting in flow and in block style, and through aliases", () => {
    assert.match(issuesOf("[".repeat(500_000))[0]!.message, /nest deeper/);
    assert.match(issuesOf("- ".repeat(500_000))[0]!.message, /nest deeper/);
    const chain = ["a0: &a0 [1]"];
    for (let level = 1; level < 200; level++) chain.push(`a${level}: &a${level} [*a${level - 1}]`);
    assert.match(issuesOf(chain.join("\n"))[0]!.message, /nest deeper/);
  });

  it("refuses endless detail, and stops at the twentieth syntax error", () => {
    assert.match(issuesOf(`[${"1,".repeat(300_000)}]`)[0]!.message, /more than 400000 words/);
    assert.ok(issuesOf(`a: ${"}".repeat(500_000)}`).length <= 30);
  });

  it("reads large maps in bounded time", () => {
    const lines = Array.from({ length: 20_000 }, (_, index) => `k${index}: ${index}`);
    const started = performance.now();
    assert.throws(() => parsePlaybook(lines.join("\n")), Rejected);
    assert.ok(performance.now() - started < 5000);
  });

  it("finds places through aliases and merge keys", () => {
    const { place } = readSource("base: &b {x: 1}\nmine:\n  <<: *b\n  y: 2\nsame: *b\n");
    assert.deepEqual(place(["mine", "x"]), { line: 1, column: 14 });
    assert.deepEqual(place(["same", "x"], "key"), { line: 1, column: 11 });
    assert.deepEqual(place(["mine", "y"], "key"), { line: 4, column: 3 });
  });
});
