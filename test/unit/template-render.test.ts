/** Rendering of tasks and values, and what a `set` writes. */
import { strict as assert } from "node:assert";
import type { Task } from "../../schemas/playbook/model.ts";
import {
  mergeDotted,
  readPaths,
  readTaskPaths,
  renderSet,
  renderTask,
  renderValue,
} from "../../schemas/playbook/render.ts";
import { createScope } from "../../schemas/playbook/scope.ts";
import type { ScopeParts } from "../../schemas/playbook/scope.ts";

const ID = "508192345678901234";

function partsOf(more: Partial<ScopeParts> = {}): ScopeParts {
  return {
    execution: { id: ID, path: "demo/one", parent_id: null, catalog_id: "9" },
    workload: { api_url: "http://x", n: 3, nested: { a: 1 }, shadowed: "workload" },
    ctx: { total: 5, shadowed: "ctx", deep: { a: 1, b: 2 } },
    steps: {},
    ...more,
  };
}

function task(more: Partial<Task>): Task {
  return { label: "t", kind: "noop", input: {}, config: {}, rules: [], set: {}, ...more };
}

describe("render", () => {
  const scope = createScope(partsOf());

  it("keeps types in typed mode and writes text in text mode", () => {
    const value = {
      a: "{{ n }}",
      b: ["{{ nested }}", 1, true, null],
      "{{ n }}": "plain",
      c: "{{ x.y }}",
    };
    assert.deepEqual(renderValue(value, scope, "typed"), {
      a: 3,
      b: [{ a: 1 }, 1, true, null],
      "{{ n }}": "plain",
      c: null,
    });
    assert.deepEqual(renderValue(["{{ n }}", "{{ nested }}", "{{ x }}", 5], scope, "text"), [
      "3",
      '{"a":1}',
      "",
      5,
    ]);
    assert.equal(renderValue("{{ execution_id }}", scope, "typed"), ID);
    assert.equal(renderValue("{{ nested | tojson }}", scope, "typed"), '{"a":1}');
  });

  it("coerces mixed text only when it is a canonical scalar or JSON", () => {
    const coerced = (text: string) => renderValue(`{{ v }}{{ '' }}`, { get: () => text }, "typed");
    const table: [string, unknown][] = [
      ["42", 42],
      ["-7", -7],
      ["1.5", 1.5],
      ["true", true],
      ["False", false],
      ["None", null],
      ["[1]", [1]],
      ['{"a": 1}', { a: 1 }],
      ["007", "007"],
      ["+5", "+5"],
      ["-0", "-0"],
      ["1e5", "1e5"],
      [".5", ".5"],
      ["9007199254740992", 2 ** 53],
      ["9007199254740993", "9007199254740993"],
      [ID, ID],
      ["{'a': 1}", "{'a': 1}"],
      ["[not json", "[not json"],
      ["", ""],
      ["text", "text"],
    ];
    for (const [text, expected] of table) {
      assert.deepEqual(coerced(text), expected, text);
    }
  });

  it("renders a task: input under the task's own, config seeing it, program text never", () => {
    const rendered = renderTask(
      task({
        kind: "postgres",
        auth: "{{ alias }}",
        input: { id: "{{ n }}", both: "task" },
        config: {
          query: "select {{ id }}, {{ input.both }}, {{ stepped }}",
          params: ["{{ id }}", "{{ nested }}"],
          code: "f'{{ id }}'",
          script: { uri: "{{ api_url }}/s", source: { type: "inline", code: "{{ id }}" } },
        },
      }),
      { both: "step", stepped: "{{ total }}", alias: "pg" },
      scope,
    );
    assert.deepEqual(rendered.input, { both: "task", stepped: 5, alias: "pg", id: 3 });
    assert.equal(rendered.auth, "pg");
    assert.deepEqual(rendered.config, {
      query: "select 3, task, 5",
      params: [3, { a: 1 }],
      code: "f'{{ id }}'",
      script: { uri: "http://x/s", source: { type: "inline", code: "{{ id }}" } },
    });
  });

  it("keeps addresses, headers and SQL text, and bodies typed", () => {
    const { config } = renderTask(
      task({
        kind: "http",
        config: {
          url: "{{ n }}",
          headers: { "X-N": "{{ n }}" },
          json: { n: "{{ n }}", code: "{{ n }}" },
          timeout: "{{ n }}",
        },
      }),
      {},
      scope,
    );
    assert.deepEqual(config, {
      url: "3",
      headers: { "X-N": "3" },
      json: { n: 3, code: 3 },
      timeout: 3,
    });
  });

  it("lets iteration variables win over an input of the same name", () => {
    const iteration = { iterator: "item", value: "iteration", index: 0, vars: {} };
    const inLoop = createScope(partsOf({ iteration }));
    const { config } = renderTask(
      task({ kind: "http", input: { item: "input" }, config: { url: "{{ item }}" } }),
      {},
      inLoop,
    );
    assert.equal(config["url"], "iteration");
  });

  it("finds what a value and a task read", () => {
    assert.deepEqual(readPaths({ a: "{{ x.y }}", b: ["{{ x.y }}", "{{ z }}", "no"] }), [
      ["x", "y"],
      ["z"],
    ]);
    const rule = {
      do: "retry" as const,
      attempts: 3,
      backoff: "none" as const,
      delay: "{{ d }}",
      when: "w.x",
      set: { k: "{{ s }}" },
    };
    const paths = readTaskPaths(
      task({
        config: { code: "{{ no }}", url: "{{ u }}", script: { source: { code: "{{ no }}" } } },
        rules: [rule],
        set: { a: "{{ t }}" },
      }),
      { i: "{{ i }}" },
    );
    assert.deepEqual(paths.map(path => path.join(".")).sort(), ["d", "i", "s", "t", "u", "w.x"]);
  });
});

describe("set", () => {
  it("strips prefixes, nests deeper keys, and writes whole values", () => {
    const writes = renderSet(
      {
        "ctx.x": "{{ total + 1 }}",
        "ctx.deep.b": 9,
        "iter.page": 2,
        bare: "{{ x }}",
        "step.y": 1,
        "a.b": 1,
      },
      createScope(partsOf()),
    );
    assert.deepEqual(writes, {
      ctx: { x: 6, deep: { a: 1, b: 9 } },
      iter: { page: 2 },
      local: { bare: null, y: 1, a: { b: 1 } },
    });
  });

  it("renders all values against the scope before the set", () => {
    const writes = renderSet(
      { "ctx.a": "{{ ctx.b }}", "ctx.b": "{{ ctx.a }}" },
      createScope(partsOf({ ctx: { a: 1, b: 2 } })),
    );
    assert.deepEqual(writes.ctx, { a: 2, b: 1 });
  });

  it("merges dotted writes without changing the base, and refuses prototypes", () => {
    const base = { a: { x: 1 }, b: 2 };
    assert.deepEqual(mergeDotted(base, { "a.y": 2, "c.d.e": 3, b: 4 }), {
      a: { x: 1, y: 2 },
      b: 4,
      c: { d: { e: 3 } },
    });
    assert.deepEqual(base, { a: { x: 1 }, b: 2 });
    for (const key of [
      "__proto__.polluted",
      "a.__proto__.polluted",
      "constructor.prototype.polluted",
    ]) {
      assert.throws(() => mergeDotted({}, { [key]: 1 }), { type: "TEMPLATE" });
      assert.throws(() => renderSet({ [`ctx.${key}`]: 1 }, createScope(partsOf())), {
        type: "TEMPLATE",
      });
    }
    assert.equal(({} as Record<string, unknown>)["polluted"], undefined);
  });
});

describe("what a program is given", () => {
  const python = (more: Partial<Task>) => task({ kind: "python", ...more });
  const iteration = { iterator: "row", value: { id: 1 }, index: 2, total: 5, vars: { page: 1 } };

  it("is its iteration by name, apart from its input", () => {
    const scope = createScope(partsOf({ iteration }));
    const rendered = renderTask(python({ config: { code: "result = 1" } }), { row: "x" }, scope);
    assert.deepEqual(rendered.iteration, { row: { id: 1 }, _index: 2, _total: 5 });
    assert.deepEqual([rendered.input, rendered.context], [{ row: "x" }, undefined]);
  });

  it("is every variable, where its text mentions context, and then all are loaded", () => {
    const code = "result = context['n']";
    const asks = [
      { code },
      { code_b64: Buffer.from(code).toString("base64") },
      { script: { source: { type: "inline", code } } },
    ];
    const scope = createScope(partsOf({ steps: { first: { a: 1 } } }));
    for (const config of asks) {
      const { context = {} } = renderTask(python({ config }), {}, scope);
      const { n, total, shadowed, first, execution_id } = context;
      assert.deepEqual([n, total, shadowed, first], [3, 5, "ctx", { a: 1 }]);
      assert.equal(execution_id, ID);
      const roots = readTaskPaths(python({ config })).map(([root]) => root);
      assert.deepEqual(roots, ["workload", "ctx", "steps"]);
    }
  });

  it("is nothing of both for any other word, and for a tool that is no program", () => {
    const scope = createScope(partsOf({ iteration }));
    const other = python({ config: { code: "my_context = contexts" } });
    assert.equal(renderTask(other, {}, scope).context, undefined);
    assert.deepEqual(readTaskPaths(other), []);
    const noop = renderTask(task({ config: { code: "context" } }), {}, scope);
    assert.deepEqual(Object.keys(noop), ["config", "input"]);
  });
});
