// What python tasks may be written like, what they are given, and what becomes of their results.
import { strict as assert } from "node:assert";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pythonBench, type PythonBench } from "../support/python-tool.ts";
import { needsPython } from "../support/python.ts";

describe("tool.python", function () {
  this.timeout(60_000);
  let bench: PythonBench;
  let folder: string;

  before(async function () {
    await needsPython(this);
    folder = mkdtempSync(join(tmpdir(), "noetl-scripts-"));
    bench = await pythonBench({ scriptRoot: folder, resultMaxBytes: 100_000 });
  });
  after(async () => {
    await bench?.stop();
    if (folder) rmSync(folder, { recursive: true });
  });

  /** The result of code that must succeed. */
  async function result(...args: Parameters<PythonBench["run"]>): Promise<unknown> {
    const { status, data, error } = await bench.run(...args);
    assert.equal(status, "ok", JSON.stringify(error));
    return data;
  }

  /** The failure of code that must fail. */
  async function failure(...args: Parameters<PythonBench["run"]>) {
    const { status, data, error, py } = await bench.run(...args);
    assert.equal(status, "error", JSON.stringify(data));
    assert.ok(error);
    return { ...error, py };
  }

  describe("takes the result", () => {
    it("from the variable 'result'", async () => {
      assert.deepEqual(await result("result = {'a': [1, 2.5, True, None, 'ü']}"), {
        a: [1, 2.5, true, null, "ü"],
      });
    });

    it("from main, called with the inputs that it names", async () => {
      const input = { a: 1, b: 2, c: 3 };
      assert.equal(await result("def main(a, c, d=4): return a + c + d", { input }), 8);
      assert.deepEqual(await result("def main(a, **rest): return rest", { input }), { b: 2, c: 3 });
      assert.deepEqual(await result("def main(input_data): return input_data", { input }), input);
      assert.equal(await result("def main(a, b, /): return a - b", { input }), -1);
    });

    it("from an async main", async () => {
      const code = "import asyncio\nasync def main(n):\n  await asyncio.sleep(0)\n  return n + 1";
      assert.equal(await result(code, { input: { n: 1 } }), 2);
    });

    it("from a return at the top level, where names are global as ever", async () => {
      const code = [
        "count = count + 1",
        "total: int = 0",
        "def add(n):",
        "  global total",
        "  total += n",
        "for n in range(count):",
        "  add(n)",
        "result = 'not this'",
        "if total == 3:",
        "  return [total, [count for _ in range(2)]]",
      ].join("\n");
      assert.deepEqual(await result(code, { input: { count: 2 } }), [3, [3, 3]]);
    });

    it("from 'result' before main, and not from an input of that name", async () => {
      const code = "def main(): return 'main'";
      assert.equal(await result(`${code}\nresult = 'set'`), "set");
      assert.equal(await result(code, { input: { result: "given" } }), "main");
    });

    it("and is what was printed when there is none", async () => {
      assert.deepEqual(await result("import sys\nprint('out')\nprint('err', file=sys.stderr)"), {
        stdout: "out\n",
        stderr: "err\n",
      });
    });
  });

  describe("gives code", () => {
    it("its inputs as globals, and as args and input_data", async () => {
      const code = "result = [a, args['a'], input_data['a'], args is not None]";
      assert.deepEqual(await result(code, { input: { a: 7 } }), [7, 7, 7, true]);
    });

    it("what is given twice as two values of its own, though it travels once", async () => {
      const part = { list: [{ n: 1 }], text: "long ".repeat(200) };
      const input = { one: part, other: { part, again: part.list }, text: part.text };
      const code = `one['list'][0]['n'] = 2
other['part']['list'].append(3)
result = [one['list'], other['part']['list'], other['again'], text == one['text'], len(text)]`;
      const expected = [[{ n: 2 }], [{ n: 1 }, 3], [{ n: 1 }], true, 1_000];
      assert.deepEqual(await result(code, { input }), expected);
      const ours = { "noetl:shared": [1], value: { "noetl:at": 0 } };
      assert.deepEqual(await result("result = ours", { input: { ours, also: ours } }), ours);
    });

    it("the iterator, _index and _total, which win over inputs", async () => {
      const iteration = { item: "x", _index: 3, _total: 9 };
      const given = { input: { item: "input", other: 1 }, iteration };
      const expected = ["x", 3, 9, 1];
      assert.deepEqual(await result("result = [item, _index, _total, other]", given), expected);
      const main = "def main(item, _index, _total, other): return [item, _index, _total, other]";
      assert.deepEqual(await result(main, given), expected);
    });

    it("context, where it asks for it", async () => {
      const given = { context: { n: 5, workload: { n: 5 } } };
      assert.equal(await result("result = context['workload']['n'] + context['n']", given), 10);
    });

    it("json, os, datetime, uuid and get_val without an import", async () => {
      const code = `result = [json.dumps(1), os.sep, datetime.date(2024, 1, 2).year,
        uuid.UUID(int=1).int, get_val({'a': [{'b': 2}]}, 'a.0.b'), get_val({}, ['x'], 'none')]`;
      assert.deepEqual(await result(code), ["1", "/", 2024, 1, 2, "none"]);
    });

    it("its libs, in every way they are written", async () => {
      const both = "result = [m.floor(1.5), join('a', 'b')]";
      const libs = { m: "math", join: { from: "os.path", import: "join" } };
      assert.deepEqual(await result({ code: both, libs }), [1, "a/b"]);
      const listed = ["math", { from: "os", import: "path" }];
      const code = "result = [math.floor(1.5), path.sep]";
      assert.deepEqual(await result({ code, libs: listed }), [1, "/"]);
    });

    it("braces as they are", async () => {
      assert.equal(await result("n = 1\nresult = f'{{ {n} }}'"), "{ 1 }");
    });

    it("digits of long integers", async () => {
      const input = { id: "508192345678901234" };
      assert.equal(await result("result = int(id) + 1", { input }), "508192345678901235");
    });

    it("variables of its env, for this task only", async () => {
      const code = "result = os.environ.get('GREETING')";
      assert.equal(await result({ code, env: { GREETING: "hi" } }), "hi");
      assert.equal(await result(code), null);
    });
  });

  it("code may be base64, a script in line, or a script file", async () => {
    const code = "result = 'same'";
    assert.equal(await result({ code_b64: Buffer.from(code).toString("base64") }), "same");
    assert.equal(await result({ script: { source: { type: "inline", code } } }), "same");
    writeFileSync(join(folder, "same.py"), `${code}\nraise ValueError('in the file')`);
    const script = { uri: "./same.py", source: { type: "file" } };
    const { message, py } = await failure({ script, code: "result = 'script wins'" });
    assert.equal(message, "ValueError: in the file (line 2 of the code)");
    assert.match(py?.traceback ?? "", /File ".\/same.py", line 2/);
    const away = await failure({ script: { uri: "../away.py", source: { type: "file" } } });
    assert.deepEqual([away.kind, away.code], ["config", "CONFIG"]);
  });

  describe("makes JSON", () => {
    const cases: [what: string, code: string, json: unknown][] = [
      ["datetimes ISO text", "datetime.datetime(2024, 1, 2, 3, 4)", "2024-01-02T03:04:00"],
      ["dates ISO text", "datetime.date(2024, 1, 2)", "2024-01-02"],
      ["decimals text", "__import__('decimal').Decimal('1.10')", "1.10"],
      ["UUIDs text", "uuid.UUID(int=1)", "00000000-0000-0000-0000-000000000001"],
      ["sets sorted lists", "{3, 1, 2}", [1, 2, 3]],
      ["tuples lists", "(1, (2,))", [1, [2]]],
      ["bytes base64", "b'\\x00\\xff'", "AP8="],
      ["NaN and infinities null", "[float('nan'), float('inf'), 1.5]", [null, null, 1.5]],
      [
        "keys text",
        "{1: 'a', datetime.date(2024, 1, 2): {2: float('nan')}}",
        {
          1: "a",
          "2024-01-02": { 2: null },
        },
      ],
      ["ranges and views lists", "[range(2), {'a': 1}.keys()]", [[0, 1], ["a"]]],
      ["half characters a question mark", "'\\ud800'", "?"],
    ];
    for (const [what, code, json] of cases) {
      it(`of ${what}`, async () => assert.deepEqual(await result(`result = ${code}`), json));
    }

    it("of dataclasses maps, of enums their values, of what has tolist a list", async () => {
      const code = `
import dataclasses, enum
@dataclasses.dataclass
class Point:
  x: int
  y: "int" = 2
class Color(enum.Enum):
  RED = "red"
class Array:
  def tolist(self): return [1, 2]
result = [Point(1), Color.RED, Array()]`;
      assert.deepEqual(await result(code), [{ x: 1, y: 2 }, "red", [1, 2]]);
    });

    it("of nothing else, and names the place", async () => {
      const { kind, code, message } = await failure("result = {'a': [1, {'b': object()}]}");
      const expected = "result['a'][1]['b']: a value of type 'object' is not JSON";
      assert.deepEqual([kind, code, message], ["transform", "PYTHON_RESULT", expected]);
      const around = await failure("a = []\na.append(a)\nresult = a");
      assert.match(around.message, /contains itself/);
    });

    it("within its bound", async () => {
      const { code, message } = await failure("result = 'x' * 200_000");
      assert.equal(code, "PYTHON_RESULT");
      assert.match(message, /200002 bytes as JSON, 100000 are allowed .*RESULT_MAX_BYTES/);
    });
  });

  describe("tells failures", () => {
    it("of an exception: its type, its message and the line of the code", async () => {
      const code = "def inner(n):\n  raise ValueError(f'no {n}')\n\nprint('before')\ninner(3)";
      const { kind, retryable, code: word, message, py } = await failure(code);
      assert.deepEqual([kind, retryable, word], ["logic", false, "PYTHON_EXCEPTION"]);
      assert.equal(message, "ValueError: no 3 (line 2 of the code)");
      assert.deepEqual([py?.exception, py?.message, py?.stdout], ["ValueError", "no 3", "before"]);
      assert.match(py?.traceback ?? "", /^Traceback .*\n {2}File "<work>", line 5, in <module>\n/);
      assert.match(py?.traceback ?? "", /line 2, in inner\n {4}raise ValueError/);
      assert.ok(!py?.traceback.includes("runner"), py?.traceback);
    });

    it("in code with a return at its top level, by the same lines", async () => {
      const { message, py } = await failure("if True:\n  1 / 0\nreturn 1");
      assert.equal(message, "ZeroDivisionError: division by zero (line 2 of the code)");
      assert.match(py?.traceback ?? "", /line 2, in <module>/);
    });

    it("of syntax", async () => {
      const { kind, code, message, py } = await failure("a = 1\nb = = 2");
      assert.deepEqual([kind, code], ["config", "PYTHON_SYNTAX"]);
      assert.equal(message, "SyntaxError: invalid syntax (line 2 of the code)");
      assert.equal(py?.exception, "SyntaxError");
    });

    it("of a library that is not there", async () => {
      const { kind, code, message } = await failure({ code: "1", libs: { x: "no_such_library" } });
      assert.deepEqual([kind, code], ["config", "PYTHON_LIBRARY"]);
      assert.equal(message, "libs: No module named 'no_such_library'");
    });

    it("of sys.exit, unless it says that all is well", async () => {
      const { code, message } = await failure("import sys\nsys.exit(3)");
      assert.deepEqual([code, message], ["PYTHON_EXIT", "exit with 3 (line 2 of the code)"]);
      assert.deepEqual(await result("import sys\nprint(1)\nsys.exit(0)"), {
        stdout: "1\n",
        stderr: "",
      });
    });

    it("of the world as what may be tried again", async () => {
      const away = await failure("raise ConnectionRefusedError('nobody')");
      assert.deepEqual([away.kind, away.retryable], ["connection", true]);
      const late = await failure("import socket\nraise socket.timeout('late')");
      assert.deepEqual([late.kind, late.retryable], ["timeout", true]);
    });

    it("with secrets masked", async () => {
      const { message, py } = await failure("raise ValueError('password=hunter2 is wrong')");
      assert.ok(!JSON.stringify([message, py]).includes("hunter2"), message);
    });

    it("of fields that are no program", async () => {
      const none = await failure({ code: "  \n" });
      assert.match(none.message, /^code: it is empty/);
      assert.match((await failure({ code: ["a"] })).message, /^code: expected the text/);
      assert.match((await failure({ code: "1", timeout: "soon" })).message, /^timeout: expected/);
      assert.match((await failure({ code: "1", env: { A: {} } })).message, /^env: 'A'/);
    });

    it("and a result that calls itself an error is data", async () => {
      assert.deepEqual(await result("result = {'status': 'error'}"), { status: "error" });
    });
  });
});
