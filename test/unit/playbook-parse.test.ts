/** The playbook language: what each spelling becomes. */
import { strict as assert } from "node:assert";
import { parsePlaybook, readPlaybook } from "../../schemas/playbook/parse.ts";
import { HEAD, parse, step } from "../support/playbook-samples.ts";

describe("playbook: the whole", () => {
  it("reads the smallest playbook with every default", () => {
    assert.deepEqual(parse("  - {step: only, tool: {kind: noop}}\n"), {
      name: "demo",
      path: "demo/one",
      entry: "only",
      noNextIsError: false,
      workload: {},
      keychain: [],
      warnings: [],
      steps: {
        only: {
          name: "only",
          admit: [],
          failureMode: "fail_fast",
          input: {},
          pipeline: false,
          set: {},
          next: { mode: "exclusive", onNoMatch: "complete", arcs: [] },
          tasks: [{ label: "only_task", kind: "noop", input: {}, config: {}, rules: [], set: {} }],
        },
      },
    });
  });

  it("is plain JSON", () => {
    const playbook = parse(
      "  - {step: a, tool: {kind: noop}, next: b}\n  - {step: b, tool: [{kind: noop}]}\n",
    );
    assert.deepEqual(JSON.parse(JSON.stringify(playbook)), playbook);
  });

  it("takes the name as path when there is none, and accepts apiVersion v10", () => {
    const text =
      "apiVersion: noetl.io/v10\nkind: Playbook\nmetadata: {name: x}\n" +
      "workflow: [{step: a, tool: {kind: noop}}]";
    assert.equal(parsePlaybook(text).path, "x");
  });

  it("enters at entry_step, else at start, else at the first step", () => {
    const steps = "  - {step: a, tool: {kind: noop}}\n  - {step: start, tool: {kind: noop}}\n";
    assert.equal(parse(steps).entry, "start");
    assert.equal(parse(steps, "executor: {spec: {entry_step: a}}\n").entry, "a");
    assert.equal(parse(steps.replace("start", "b")).entry, "a");
  });

  it("reads final_step and no_next_is_error", () => {
    const root = "executor: {profile: local, spec: {final_step: b, no_next_is_error: true}}\n";
    const playbook = parse(
      "  - {step: a, tool: {kind: noop}}\n  - {step: b, tool: {kind: noop}}\n",
      root,
    );
    assert.equal(playbook.finalStep, "b");
    assert.equal(playbook.noNextIsError, true);
  });

  it("warns of unknown root keys with their place, and reads on", () => {
    const text = `${HEAD}tracing: on\nworkflow: [{step: a, tool: {kind: noop}}]`;
    const { warnings } = parsePlaybook(text, { file: "p.yaml" });
    assert.deepEqual(warnings, ["p.yaml:4:1: tracing: unknown key 'tracing' is ignored"]);
  });

  it("accepts labels of any scalar, and empty optional fields", () => {
    const text = `apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: x, labels: {a: true, b: 1, c: text}, tags: [a], description: ""}
workload:
keychain:
workflow:
  - step: a
    desc:
    input:
    tool: {kind: noop, input: , set: }
    next:
`;
    assert.equal(parsePlaybook(text).steps["a"]!.tasks.length, 1);
  });

  it("keeps integers beyond 2^53 as text, and says so", () => {
    const playbook = parse(
      "  - {step: a, tool: {kind: noop}}\n",
      "workload: {id: 508192345678901234}\n",
    );
    assert.equal(playbook.workload["id"], "508192345678901234");
    assert.match(playbook.warnings[0]!, /4:16.*more digits/);
  });

  it("reads anchors, aliases and merge keys", () => {
    const root = `workload:
  base: &base {a: 1, b: 2}
  more: {<<: *base, b: 3}
  same: *base
`;
    const { workload } = parse("  - {step: a, tool: {kind: noop}}\n", root);
    assert.deepEqual(workload, {
      base: { a: 1, b: 2 },
      more: { a: 1, b: 3 },
      same: { a: 1, b: 2 },
    });
  });
});

describe("playbook: tools", () => {
  it("keeps the tool's own fields, with auth under either name and args for input", () => {
    const { tasks } = step("tool: {kind: http, url: u, credential: c, args: {a: 1}, timeout: 3}");
    assert.deepEqual(tasks[0], {
      label: "s_task",
      kind: "http",
      auth: "c",
      input: { a: 1 },
      config: { url: "u", timeout: 3 },
      rules: [],
      set: {},
    });
  });

  it("labels the tasks of a list by name, by key, or by position in the whole list", () => {
    const { tasks, pipeline } = step(`
tool:
  - {name: one, kind: noop}
  - {kind: http, url: u}
  - three: {kind: noop, set: {x: 1}}
  - {kind: noop}`);
    assert.equal(pipeline, true);
    assert.deepEqual(
      tasks.map(task => task.label),
      ["one", "task_2", "three", "task_4"],
    );
    assert.deepEqual(tasks[2]!.set, { x: 1 });
    assert.deepEqual(tasks[0]!.config, {});
  });

  it("lifts tool.spec into the tool, whose own keys win; policy stays policy", () => {
    const { tasks } = step(`
tool:
  kind: http
  url: own
  spec:
    url: lifted
    method: POST
    input: {a: 1}
    policy: {rules: [{when: "{{ x }}", then: {do: fail}}]}`);
    assert.deepEqual(tasks[0]!.config, { method: "POST", url: "own" });
    assert.deepEqual(tasks[0]!.input, { a: 1 });
    assert.equal(tasks[0]!.rules[0]!.do, "fail");
  });

  it("never takes program text for a template", () => {
    const { tasks } = step(`
tool:
  kind: python
  code: 'result = f"{{ {x!r} }} {% nonsense"'`);
    assert.match(String(tasks[0]!.config["code"]), /nonsense/);
  });

  it("replaces a workbook call by the task's body, its input over the placeholders", () => {
    const root = `workbook:
  - name: dbl
    assert: {returns: [v]}
    tool: {kind: python, input: {v: null, w: 2}, auth: body, code: "result = v"}
`;
    const { tasks } = step(
      'tool: {kind: workbook, name: dbl, input: {v: "{{ n }}"}, set: {r: 1}}',
      root,
    );
    assert.deepEqual(tasks[0], {
      label: "s_task",
      kind: "python",
      auth: "body",
      input: { v: "{{ n }}", w: 2 },
      config: { code: "result = v" },
      rules: [],
      set: { r: 1 },
    });
  });
});

describe("playbook: places", () => {
  it("says where a step, a task and a field were written", () => {
    const { place } = readPlaybook(`${HEAD}workflow:
  - step: a
    tool:
      - name: one
        kind: noop
`);
    assert.deepEqual(place({ step: "a" }), { line: 5, column: 5 });
    assert.deepEqual(place({ step: "a", task: "one", field: "kind" }), { line: 8, column: 15 });
    assert.deepEqual(place({ step: "a", field: "loop.in" }), { line: 5, column: 5 });
  });
});
