/** Checks after parsing: what this build cannot run, names nothing provides, the nearest word. */
import { strict as assert } from "node:assert";
import { nearest } from "../../schemas/playbook/nearest.ts";
import { readPlaybook } from "../../schemas/playbook/parse.ts";
import { unknownNames } from "../../schemas/playbook/unknown-names.ts";
import { refuseLacking, refuseUnrunnable } from "../../schemas/playbook/unrunnable.ts";

function read(workflow: string, root = "") {
  const head = "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {name: demo}\n";
  return readPlaybook(`${head}${root}workflow:\n${workflow}`, { file: "p.yaml" });
}

describe("refuseLacking", () => {
  const tools =
    "    tool: [{name: one, kind: noop}, {name: two, kind: python, code: result = 1}]\n";
  const found = read(`  - step: a\n${tools}`);

  it("names each task whose kind lacks something, and what to do", () => {
    const lacking = { python: { message: "no python", hint: "install it" } };
    assert.deepEqual(refuseLacking(found.playbook, lacking, found), [
      {
        ...{ message: "no python", hint: "install it", file: "p.yaml", line: 6, column: 55 },
        ...{ step: "a", field: "task 'two', kind" },
      },
    ]);
  });

  it("has nothing against what lacks nothing", () => {
    assert.deepEqual(refuseLacking(found.playbook, {}, found), []);
  });
});

describe("refuseUnrunnable", () => {
  it("has nothing against what runs", () => {
    const found = read("  - {step: a, loop: {in: [1], iterator: i}, tool: {kind: http, url: u}}\n");
    assert.deepEqual(refuseUnrunnable(found.playbook, ["http"], found), []);
  });

  it("names a kind that does not run, where it is written, and those that do", () => {
    const found = read("  - step: a\n    tool:\n      - name: one\n        kind: rhai\n");
    assert.deepEqual(refuseUnrunnable(found.playbook, ["http", "noop"], found), [
      {
        message: "tools of kind 'rhai' are not available in this build",
        file: "p.yaml",
        line: 8,
        column: 15,
        step: "a",
        field: "task 'one', kind",
        expected: "http | noop",
      },
    ]);
  });

  it("lets fan-outs and loops over a cursor be", () => {
    const found = read(`  - step: a
    loop:
      iterator: row
      cursor: {kind: postgres, claim: select 1}
      spec: {mode: cursor}
    tool: {kind: noop}
  - step: b
    spec: {loop_mode: fanout}
    loop: {in: [1], iterator: i}
    tool: {kind: noop}
`);
    assert.deepEqual(refuseUnrunnable(found.playbook, ["noop"], found), []);
  });

  it("works on a playbook without its text", () => {
    const { playbook } = read("  - {step: a, tool: {kind: python, code: x}}\n");
    const [issue] = refuseUnrunnable(playbook, ["noop"]);
    assert.equal(issue!.field, "tool.kind");
    assert.equal(issue!.line, undefined);
  });
});

describe("unknownNames", () => {
  it("knows workload, steps, sets, iterators, labels, inputs and what the runtime provides", () => {
    const found = read(
      `  - step: a
    input: {given: 1}
    loop: {in: "{{ items }}", iterator: item}
    tool:
      - name: get
        kind: http
        url: "{{ item.u }}{{ iter.item }}{{ iter._index }}{{ given }}{{ execution_id }}"
      - kind: http
        url: "{{ get.x }}{{ _prev }}{{ output.data }}{{ mine }}{{ results.get }}{{ now() }}"
        input: {mine: "{{ workload.items }}"}
        spec:
          policy:
            rules: [{when: "output.status == 'error'", then: {do: fail, set: {iter.n: 1}}}]
        set: {bare: "{{ output }}"}
    set: {ctx.total: "{{ bare }}{{ iter.n }}"}
    next: [{step: b, when: "{{ event.name == 'loop.done' }}", set: {ctx.route: 1}}]
  - step: b
    tool:
      kind: http
      url: "{{ a.data }}{{ total }}{{ ctx.route }}{{ ctx.items }}{{ keychain.k.token }}"
`,
      "workload: {items: []}\nkeychain: [{name: k}]\n",
    );
    assert.deepEqual(unknownNames(found.playbook, found), []);
  });

  it("warns once per step of a name nothing provides, with place and the nearest", () => {
    const found = read(
      `  - step: a
    tool:
      kind: http
      url: "{{ api_ulr }}/{{ api_ulr }}"
      headers: {x: "{{ api_ulr }}"}
`,
      "workload: {api_url: x}\n",
    );
    assert.deepEqual(unknownNames(found.playbook, found), [
      "p.yaml:9:12: step 'a', tool.url: nothing in this playbook provides 'api_ulr'; " +
        "(did you mean 'api_url'?)",
    ]);
  });

  it("looks behind workload, ctx, iter and keychain, and never into program text", () => {
    const found = read(`  - step: a
    tool:
      kind: python
      code: "{{ nothing }}"
      input: {a: "{{ workload.x }}{{ ctx.y }}{{ iter.z }}{{ keychain.q.f }}"}
`);
    const names = unknownNames(found.playbook).map(text => /provides '([^']+)'/.exec(text)![1]);
    assert.deepEqual(names, ["workload.x", "ctx.y", "iter.z", "keychain.q"]);
  });
});

describe("nearest", () => {
  it("finds a misspelt word, swapped letters counting once", () => {
    assert.equal(nearest("postgers", ["python", "postgres", "http"]), "postgres");
    assert.equal(nearest("HTPT", ["http", "noop"]), "http");
    assert.equal(nearest("sart", ["start", "end"]), "start");
  });

  it("says nothing when nothing is near", () => {
    assert.equal(nearest("kubernetes", ["http", "noop"]), undefined);
    assert.equal(nearest("", ["a"]), undefined);
    assert.equal(nearest("x".repeat(10_000), ["x"]), undefined);
  });
});
