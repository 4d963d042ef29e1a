/** Bad playbooks: missing tool fields, words of older languages, templates that do not compile. */
import { strict as assert } from "node:assert";
import { issuesIn, refuses } from "../support/playbook-samples.ts";

describe("playbook refusals: required fields of tools", () => {
  it("asks each kind for what it cannot run without", () => {
    const kinds = ["http", "postgres", "python", "workbook", "playbook", "shell", "nats", "duckdb"];
    const needs = ["url", "query", "code", "name", "path", "cmds", "operation", "query"];
    kinds.forEach((kind, index) => {
      refuses(issuesIn(`tool: {kind: ${kind}}`), {
        field: `tool.${needs[index]}`,
        message: `'${needs[index]}' is required by tool kind ${kind}`,
      });
    });
  });

  it("takes an empty field for a missing one", () => {
    refuses(issuesIn('tool: {kind: http, url: ""}'), { message: /is empty/ });
  });

  it("says when the field is there but not under tool", () => {
    refuses(issuesIn("tool: {kind: postgres}\ncommand: select 1"), {
      hint: /indent it under tool/,
    });
  });
});

describe("playbook refusals: legacy words", () => {
  it("names what to use instead, and points at the word", () => {
    const tool = "tool: {kind: noop}";
    refuses(issuesIn(`${tool}\nwhen: "{{ x }}"`), { hint: /admit/, line: 7, column: 5 });
    for (const word of [
      "case",
      "type",
      "args",
      "set_ctx",
      "vars",
      "retry",
      "sink",
      "save",
      "eval",
    ]) {
      refuses(issuesIn(`${tool}\n${word}: x`), {
        message: /not part of the language/,
        hint: /use|output/,
      });
    }
    refuses(issuesIn(`${tool}\nspec: {next_mode: inclusive}`), { hint: /next: \{spec/ });
    refuses(issuesIn("tool: {kind: noop, set_vars: {}}"), { hint: /ctx\.name/ });
    refuses(
      issuesIn("tool: {kind: noop, spec: {policy: {rules: [{else: {do: fail, set_iter: {}}}]}}}"),
      {
        hint: /iter\.name/,
      },
    );
    refuses(issuesIn(tool, "vars: {}\n"), { field: "vars", hint: /workload/ });
  });

  it("refuses args on an arc with the arc's set as the way", () => {
    refuses(issuesIn("tool: {kind: noop}\nnext: [{step: end, args: {a: 1}}]"), {
      field: "next[0].args",
      hint: /set: \{ctx\.name/,
    });
  });
});

describe("playbook refusals: templates", () => {
  it("points into the text, also of a block", () => {
    const [issue] = issuesIn(`
tool:
  kind: postgres
  query: |
    select 1;

    select {{ a | nonesuch }};`);
    assert.equal(issue!.line, 11);
    assert.match(issue!.message, /nonesuch.*\{\{ a \| nonesuch \}\}/);
    assert.equal(issue!.field, "tool.query");
  });

  it("names the nearest filter, function and test", () => {
    const value = (text: string) => issuesIn(`tool: {kind: noop}\nset: {ctx.a: "${text}"}`);
    refuses(value("{{ a | lengt }}"), { hint: /length/, field: "set.ctx.a" });
    refuses(value("{{ a is defind }}"), { hint: /defined/ });
    refuses(value("{{ nwo() }}"), { hint: /now/ });
  });

  it("checks guards, with and without braces, in the right column", () => {
    refuses(issuesIn('tool: {kind: noop}\nnext: [{step: end, when: "a ++"}]'), {
      field: "next[0].when",
      message: /bad template/,
      line: 7,
    });
    refuses(issuesIn('tool: {kind: noop}\nnext: [{step: end, when: "{{ a | nofilter }}"}]'), {});
  });

  it("checks workload, keychain, workbook, loops, frames and rules", () => {
    const bad = '"{{ 1 +"';
    const root = `workload: {a: ${bad}}
keychain: [{name: k, map: {a: ${bad}}}]
workbook: [{name: w, tool: {kind: http, url: ${bad}}}]
`;
    const issues = issuesIn(
      `
loop: {in: ${bad}, iterator: i, spec: {frame: {max_rows: ${bad}}}}
tool:
  kind: noop
  spec:
    policy:
      rules: [{when: ${bad}, then: {do: retry, delay: ${bad}, set: {a: ${bad}}}}]`,
      root,
    );
    assert.deepEqual(
      new Set(issues.map(issue => issue.field)),
      new Set([
        "workload.a",
        "keychain[0].map.a",
        "workbook[0].tool.url",
        "loop.in",
        "loop.spec.frame.max_rows",
        "tool.spec.policy.rules[0].when",
        "tool.spec.policy.rules[0].then.delay",
        "tool.spec.policy.rules[0].then.set.a",
      ]),
    );
  });
});
