/** Bad playbooks: issues name place, step, field, what was expected and the nearest word. */
import { strict as assert } from "node:assert";
import { HEAD, issuesIn, issuesOf, refusal, refuses } from "../support/playbook-samples.ts";

describe("playbook refusals: shape", () => {
  it("names place, step, field, what was expected and the nearest word", () => {
    const [issue, ...others] = issuesIn(`
tool:
  kind: http
  url: u
  spec:
    policy:
      rules:
        - when: "{{ x }}"
          then: {do: retyr}`);
    assert.deepEqual(others, []);
    assert.deepEqual(issue, {
      message: "unknown value 'retyr'",
      file: "p.yaml",
      line: 13,
      column: 26,
      step: "s",
      field: "tool.spec.policy.rules[0].then.do",
      expected: "continue | retry | jump | break | fail",
      hint: "did you mean 'retry'?",
    });
  });

  it("is Rejected 422, and its message is the first issue", () => {
    const error = refusal(`${HEAD}workflow: [{step: a, tool: {kind: nop}}]`);
    assert.equal(error.code, 422);
    assert.equal(error.type, "REJECTED");
    assert.match(error.message, /p\.yaml:4:35: step 'a', tool\.kind: unknown value 'nop'.*'noop'/);
  });

  it("collects the issues of all steps at once, in the order of the file", () => {
    const issues = issuesOf(`${HEAD}workload: 3
workflow:
  - {step: a, tool: {kind: nop}, next: nowhere}
  - {step: b, desc: [], tool: {kind: http}, set: []}
  - {step: c, loop: {in: "{{ x }}", iterator: 1 x}, tool: {kind: noop, input: "{{ bad"}}
`);
    const fields = issues.map(({ step, field }) => `${step ?? ""}:${field}`);
    assert.deepEqual(fields, [
      ":workload",
      "a:tool.kind",
      "a:next",
      "b:desc",
      "b:tool.url",
      "b:set",
      "c:loop.iterator",
      "c:tool.input",
    ]);
  });

  it("says tool is required, and what to use", () => {
    refuses(issuesIn("desc: no tool"), {
      message: "tool is required",
      step: "s",
      field: "tool",
      line: 5,
      hint: /use kind: noop/,
    });
    refuses(issuesIn("tool:"), { message: "tool is required", line: 6 });
    const [typo] = issuesIn("tol: {kind: noop}");
    assert.match(typo!.hint!, /rename 'tol' to 'tool'.*use kind: noop/);
  });

  it("says which root key is missing or wrong", () => {
    const fields = issuesOf("kind: Playbok\nmetadata: {path: x}\nworkflow: []").map(i => i.field);
    assert.deepEqual(fields.toSorted(), ["apiVersion", "kind", "metadata.name", "workflow"]);
  });

  it("refuses a root that is no map", () => {
    refuses(issuesOf("- a\n- b"), { message: /must be a map, is a list/, line: 1, column: 1 });
    refuses(issuesOf(""), { message: /must be a map, is empty/ });
  });

  it("refuses durations, counts and percentages that are none", () => {
    refuses(issuesIn("spec: {timeout: soon}\ntool: {kind: noop}"), { expected: /"5m"/ });
    refuses(issuesIn("spec: {timeout: 0}\ntool: {kind: noop}"), { field: "spec.timeout" });
    const loop = (spec: string) =>
      issuesIn(`loop: {in: [1], iterator: i, spec: {${spec}}}\ntool: {kind: noop}`);
    refuses(loop("mode: parallel, max_in_flight: 0"), { expected: /at least 1, or a template/ });
    refuses(loop("tolerated_failure_percent: 101"), {
      field: "loop.spec.tolerated_failure_percent",
    });
    refuses(loop("tolerated_failure_count: 1.5"), { expected: "a whole number" });
  });
});

describe("playbook refusals: names that lead nowhere", () => {
  it("refuses an arc to no step, with the nearest", () => {
    const expected = {
      field: "next.arcs[0].step",
      message: /'edn', which is no step/,
      hint: /'end'/,
    };
    refuses(issuesIn("tool: {kind: noop}\nnext: {arcs: [{step: edn}]}"), expected);
    refuses(issuesIn("tool: {kind: noop}\nnext: [end, ned]"), { field: "next[1]", hint: /'end'/ });
  });

  it("refuses entry and final steps that do not exist", () => {
    const root = "executor: {spec: {entry_step: sta, final_step: edn}}\n";
    const issues = issuesIn("tool: {kind: noop}", root);
    assert.deepEqual(
      issues.map(i => i.field),
      ["executor.spec.entry_step", "executor.spec.final_step"],
    );
    assert.match(issues[1]!.hint!, /'end'/);
  });

  it("refuses a jump to no label, and to previous from the first task", () => {
    const jump = (to: string) =>
      issuesIn(`
tool:
  - name: fetch
    kind: noop
    spec: {policy: {rules: [{else: {do: jump${to}}}]}}
  - {name: save, kind: noop}`);
    refuses(jump(", to: svae"), { message: /'svae'/, expected: "fetch | save", hint: /'save'/ });
    refuses(jump(", to: prev"), { message: /no previous task/ });
    refuses(jump(""), { message: /'to' is required/ });
  });

  it("refuses unknown workbook tasks, modes and words, each with the nearest", () => {
    const root = "workbook: [{name: double, tool: {kind: noop}}]\n";
    refuses(issuesIn("tool: {kind: workbook, name: doubel}", root), { hint: /'double'/ });
    refuses(issuesIn("loop: {in: [1], iterator: i, spec: {mode: paralel}}\ntool: {kind: noop}"), {
      hint: /'parallel'/,
    });
    refuses(issuesIn("loop: {in: [1], iterator: i, spec: {mode: fanout}}\ntool: {kind: noop}"), {
      hint: /loop_mode: fanout/,
    });
    refuses(issuesIn("tool: {kind: noop}\nnext: {spec: {mode: exclusiv}, arcs: []}"), {
      hint: /'exclusive'/,
    });
    const retry = "{do: retry, backoff: exponental}";
    refuses(issuesIn(`tool: {kind: noop, spec: {policy: {rules: [{else: ${retry}}]}}}`), {
      hint: /'exponential'/,
    });
  });

  it("refuses duplicate steps, labels and workbook tasks", () => {
    refuses(
      issuesOf(
        `${HEAD}workflow:\n  - {step: a, tool: {kind: noop}}\n  - {step: a, tool: {kind: noop}}`,
      ),
      {
        message: "step 'a' is defined twice",
        line: 6,
        hint: /line 5/,
      },
    );
    refuses(issuesIn("tool: [{name: a, kind: noop}, {name: a, kind: noop}]"), {
      message: /label 'a' is used twice/,
      field: "tool[1].name",
    });
    const root = "workbook: [{name: w, tool: {kind: noop}}, {name: w, tool: {kind: noop}}]\n";
    refuses(issuesIn("tool: {kind: noop}", root), { field: "workbook[1].name" });
  });

  it("refuses an empty pipeline, both auth words, and both input words", () => {
    refuses(issuesIn("tool: []"), { message: /at least one task/ });
    refuses(issuesIn("tool: {kind: noop, auth: a, credential: b}"), { field: "tool.credential" });
    refuses(issuesIn("tool: {kind: noop, input: {}, args: {}}"), { field: "tool.args" });
  });
});

describe("playbook refusals: loops and rules", () => {
  const tool = "tool: {kind: noop}";

  it("asks for exactly one of in and cursor, and for mode cursor with a cursor", () => {
    refuses(issuesIn(`loop: {iterator: i}\n${tool}`), { field: "loop.in" });
    const cursor = 'cursor: {kind: postgres, claim: "select 1"}';
    refuses(issuesIn(`loop: {iterator: i, ${cursor}}\n${tool}`), {
      message: /needs spec.mode: cursor/,
    });
    const both = `loop: {in: [1], iterator: i, ${cursor}, spec: {mode: cursor}}`;
    refuses(issuesIn(`${both}\n${tool}`), { expected: /exactly one/ });
    refuses(issuesIn(`loop: {in: [1], iterator: i, spec: {mode: cursor}}\n${tool}`), {
      field: "loop.spec.mode",
    });
  });

  it("asks for an iterator that is a name", () => {
    refuses(issuesIn(`loop: {in: [1]}\n${tool}`), { message: "'iterator' is required" });
    refuses(issuesIn(`loop: {in: [1], iterator: my-item}\n${tool}`), {
      expected: /letters, digits/,
    });
  });

  it("refuses fan-out without a loop", () => {
    refuses(issuesIn(`spec: {loop_mode: fanout}\n${tool}`), { field: "spec.loop_mode" });
  });

  it("refuses fan-out of what has an order", () => {
    const loop = "loop: {in: [1], iterator: i, spec: {mode: sequential}}";
    refuses(issuesIn(`spec: {loop_mode: fanout}\n${loop}\n${tool}`), {
      ...{ field: "spec.loop_mode", message: /sequential loop cannot be fanned out/ },
    });
  });

  it("refuses shards that write ctx in a task's set or a rule's, and not the step's set", () => {
    const head = "spec: {loop_mode: fanout}\nloop: {in: [1], iterator: i}";
    const shared = { message: /a shard of a fan-out cannot write ctx/, hint: /step's own set/ };
    refuses(issuesIn(`${head}\ntool: {kind: noop, set: {ctx.sum: 1}}`), {
      ...{ field: "tool.set.ctx.sum", ...shared },
    });
    const rule = "{else: {then: {do: continue, set: {ctx.sum: 1}}}}";
    refuses(issuesIn(`${head}\ntool: {kind: noop, spec: {policy: {rules: [${rule}]}}}`), {
      ...{ field: "tool.spec.policy.rules[0]", ...shared },
    });
    const fine = `${head}\nset: {ctx.sum: 1}\ntool: {kind: noop, set: {iter.a: 1, b: 2}}`;
    assert.throws(() => issuesIn(fine), /the playbook was accepted/);
  });

  it("refuses limits of a fan-out that are none", () => {
    const loop = "loop: {in: [1], iterator: i}";
    for (const [limit, expected] of [
      ["max_in_flight: 0", /whole number of at least 1, or a template/],
      ["batch: many", /whole number of at least 1, or a template/],
      ["queue_ttl: soon", /duration/],
      ["allow_partial: perhaps", /true or false/],
    ] as const) {
      const text = `spec: {loop_mode: fanout, fanout: {${limit}}}\n${loop}\n${tool}`;
      const field = `spec.fanout.${limit.split(":")[0]}`;
      refuses(issuesIn(text), { field, expected });
    }
  });

  it("refuses rules without condition, without action, or with both conditions", () => {
    const rule = (text: string) =>
      issuesIn(`tool: {kind: noop, spec: {policy: {rules: [${text}]}}}`);
    refuses(rule("{then: {do: fail}}"), { message: /needs 'when' or 'else'/ });
    refuses(rule("{when: true}"), { message: /nothing to do/ });
    refuses(rule("{when: true, else: {do: fail}}"), { message: /not both/ });
    refuses(rule("{when: true, then: {}}"), { message: "'do' is required" });
    const hints = rule("{when: true, do: fail}").map(issue => issue.hint);
    assert.match(hints.join(), /under then/);
    refuses(issuesIn("tool: {kind: noop, spec: {policy: {}}}"), { message: "'rules' is required" });
  });

  it("refuses to set what cannot be set", () => {
    refuses(issuesIn(`${tool}\nset: {workload.x: 1}`), { hint: /ctx\.x/ });
    refuses(issuesIn(`${tool}\nset: {ctx: 1}`), { hint: /ctx\.name/ });
    refuses(issuesIn(`${tool}\nset: {ctx..x: 1}`), { expected: /ctx\.name/ });
  });
});
