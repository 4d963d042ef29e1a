/** Names and proxies: what a playbook author sees of the data. */
import { strict as assert } from "node:assert";
import type { Json } from "../../schemas/json.ts";
import { View, createScope } from "../../schemas/playbook/scope.ts";
import type { ScopeParts } from "../../schemas/playbook/scope.ts";
import { evaluate, renderText } from "../../schemas/playbook/template.ts";

const ID = "508192345678901234";

function partsOf(more: Partial<ScopeParts> = {}): ScopeParts {
  return {
    execution: { id: ID, path: "demo/one", parent_id: null, catalog_id: "9" },
    workload: { api_url: "http://x", n: 3, nested: { a: 1 }, shadowed: "workload" },
    ctx: { total: 5, shadowed: "ctx", deep: { a: 1, b: 2 } },
    steps: {
      start: { items: [1, 2], status: "ok" },
      fetch: {
        status_code: 200,
        data: { paging: { more: true }, page: 2 },
        body: { paging: { more: true }, page: 2 },
      },
      query: { rows: [{ id: 7 }], row_count: 1, command_0: { rows: [{ id: 7 }] } },
      scalar: 42,
      listed: ["a", "b"],
      piped: {
        rows: [1],
        status: "ok",
        get: { status_code: 200, body: { q: 1 }, data: { q: 1 } },
        results: { get: { status_code: 200, body: { q: 1 }, data: { q: 1 } } },
      },
      looped: { results: [1, 2], data: [1, 2], stats: { total: 2, success: 2, failed: 0 } },
    },
    ...more,
  };
}

function gives(parts: ScopeParts, table: Record<string, unknown>): void {
  const scope = createScope(parts);
  for (const [expression, expected] of Object.entries(table)) {
    assert.deepEqual(evaluate(`{{ ${expression} }}`, scope), expected, expression);
  }
}

describe("scope", () => {
  it("answers the names every playbook may read", () => {
    gives(partsOf({ keychain: { svc: { key: "k" } }, env: { A: "b" }, now_ms: 0 }), {
      execution_id: ID,
      "job.uuid": ID,
      "job.id": ID,
      "execution.path": "demo/one",
      catalog_id: "9",
      "workload.n": 3,
      n: 3,
      "ctx.n": 3,
      "ctx.total": 5,
      total: 5,
      "keychain.svc.key": "k",
      "env.A": "b",
      "env.PATH": undefined,
      "now()": "1970-01-01T00:00:00.000Z",
      "steps.query.rows[0].id": 7,
      "event.name": undefined,
      "never_ran is defined": false,
    });
  });

  it("looks names up in the order iteration, input, pipeline, ctx, steps, workload", () => {
    const iteration = { iterator: "shadowed", value: "iteration", index: 0, total: 1, vars: {} };
    const pipeline = {
      locals: { shadowed: "local" },
      results: { shadowed: "label" },
      prev: null,
      task: "t",
      attempt: 1,
    };
    const input = { shadowed: "input" };
    gives(partsOf({ iteration, input, pipeline }), { shadowed: "iteration" });
    gives(partsOf({ input, pipeline }), { shadowed: "input", "input.shadowed": "input" });
    gives(partsOf({ pipeline }), { shadowed: "local", "results.shadowed": "label" });
    gives(partsOf({ pipeline: { ...pipeline, locals: {} } }), { shadowed: "label" });
    gives(partsOf(), { shadowed: "ctx", "workload.shadowed": "workload", "ctx.shadowed": "ctx" });
    gives(partsOf({ steps: { x: "step" }, workload: { x: "workload", job: "mine" } }), {
      x: "step",
      job: "mine",
    });
  });

  it("a step's data and result are the step itself unless it has such a key", () => {
    gives(partsOf(), {
      "start.items": [1, 2],
      "start.data.items": [1, 2],
      "start.result.items[1]": 2,
      "query.data.rows[0].id": 7,
      "query.command_0.rows[0].id": 7,
      "scalar + 1": 43,
      "listed[1]": "b",
      "looped.data": [1, 2],
      "looped.stats.total": 2,
      "looped.results | length": 2,
    });
  });

  it("an http result falls through to its body, real keys first", () => {
    gives(partsOf(), {
      "fetch.data.page": 2,
      "fetch.page": 2,
      "fetch.paging.more": true,
      "fetch.status_code": 200,
      "fetch.missing": undefined,
    });
  });

  it("a pipeline shows fields, labels and results", () => {
    gives(partsOf(), {
      "piped.rows[0]": 1,
      "piped.data.rows[0]": 1,
      "piped.get.q": 1,
      "piped.results.get.q": 1,
      "piped.results.get.body.q": 1,
    });
  });

  it("output is the envelope with its data behind it", () => {
    const http = { status_code: 503, body: { items: [1] }, data: { items: [1] } };
    const error = { kind: "server_error", retryable: true, code: "HTTP_503", message: "no" };
    gives(partsOf({ output: { status: "error", data: http, error, http: { status: 503 } } }), {
      "output.status": "error",
      "output.http.status in [500, 503]": true,
      "output.error.retryable": true,
      "output.data.status_code": 503,
      "output.data.data.items": [1],
      "output.data.items": [1],
      "output.items": [1],
      "error.kind": "server_error",
    });
    gives(partsOf({ output: { status: "ok", data: { rows: [1] }, error: null } }), {
      "output.data.rows[0]": 1,
      "output.rows[0]": 1,
      "output.data.data.rows[0]": 1,
      "output.error.kind": undefined,
      "output | tojson": '{"status":"ok","data":{"rows":[1]},"error":null}',
    });
    gives(partsOf({ output: { status: "ok", data: [5], error: null } }), {
      "output.data[0]": 5,
      "output[0]": 5,
    });
  });

  it("output in a task's set is its result, and output.data is it too", () => {
    const output = { status: "ok", data: { id: 1 }, error: null, http: { status: 200 } };
    gives(partsOf({ output, output_is_data: true }), {
      "output.id": 1,
      "output.data.id": 1,
      output: { id: 1 },
      "output.http.status": 200,
    });
    gives(partsOf({ output: { ...output, data: 4 }, output_is_data: true }), { "output.data": 4 });
  });

  it("a loop body sees its element, counters and iter", () => {
    const iteration = { iterator: "item", value: { id: 4 }, index: 1, total: 2, vars: { page: 3 } };
    gives(partsOf({ iteration }), {
      "item.id": 4,
      "iter.item.id": 4,
      "iter.page": 3,
      page: 3,
      "[_index, loop_index, iter._index, loop.index]": [1, 1, 1, 1],
      "[_total, iter._total, loop.length]": [2, 2, 2],
      "[iter._first, iter._last, loop.first, loop.done]": [false, true, false, true],
    });
    gives(partsOf(), { "iter.page": undefined, loop_index: undefined });
  });

  it("a pipeline sees labels, results, _prev, _task and _attempt", () => {
    const fetched = { status_code: 200, body: { q: 1 }, data: { q: 1 } };
    const pipeline = {
      locals: { seen: 1 },
      results: { get: fetched },
      prev: fetched,
      task: "put",
      attempt: 2,
    };
    gives(partsOf({ pipeline }), {
      "get.q": 1,
      "results.get.q": 1,
      "_prev.q": 1,
      seen: 1,
      "_task ~ _attempt": "put2",
    });
  });

  it("a view crosses into a tool as the plain value, not as a copy", () => {
    const parts = partsOf();
    assert.equal(evaluate("{{ fetch }}", createScope(parts)), parts.steps["fetch"]);
    assert.equal(
      evaluate("{{ fetch.data }}", createScope(parts)),
      (parts.steps["fetch"] as { data: unknown }).data,
    );
    assert.deepEqual(evaluate("{{ ctx }}", createScope(parts)), {
      ...parts.workload,
      ...parts.ctx,
    });
    assert.equal(renderText("{{ start }}", createScope(parts)), '{"items":[1,2],"status":"ok"}');
    assert.equal(evaluate("{{ (never | default(query)).data.row_count }}", createScope(parts)), 1);
  });

  it("a value kept elsewhere is asked for members, and taken whole only to be printed", () => {
    const asked: unknown[] = [];
    class Kept extends View {
      override member(key: string | number): unknown {
        asked.push(key);
        return key === "count" ? 3 : undefined;
      }
      override plain(): Json {
        asked.push("whole");
        return { count: 3 };
      }
    }
    const kept = new Kept();
    const parts = partsOf({ steps: { kept }, output: { status: "ok", data: kept } });
    gives(parts, { "kept.count": 3, "output.count": 3, "output.data.count": 3 });
    assert.deepEqual(asked, ["count", "count", "count"]);
    gives(parts, {
      "[kept.count, kept]": [3, { count: 3 }],
      "steps | tojson": '{"kept":{"count":3}}',
    });
    assert.equal(
      renderText("{{ output }}", createScope(parts)),
      '{"status":"ok","data":{"count":3}}',
    );
  });

  it("own data only: names of Object.prototype are undefined", () => {
    for (const name of ["constructor", "toString", "__proto__", "hasOwnProperty"]) {
      assert.equal(createScope(partsOf({ input: {} })).get(name), undefined, name);
    }
  });
});
