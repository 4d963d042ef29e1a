/** Small playbooks for tests: a head, steps, and what refusing them says. */
import { strict as assert } from "node:assert";
import { Rejected } from "../../schemas/errors.ts";
import type { Issue } from "../../schemas/errors.ts";
import type { Playbook, Step } from "../../schemas/playbook/model.ts";
import { parsePlaybook } from "../../schemas/playbook/parse.ts";

/** The first three lines of each sample. */
export const HEAD = `apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: demo, path: demo/one}
`;

/** A playbook of these steps, with whatever root keys come before. */
export function parse(steps: string, root = ""): Playbook {
  return parsePlaybook(`${HEAD}${root}workflow:\n${steps}`);
}

/** The text of a playbook with a step `s` of these fields and a step `end` for arcs to lead to. */
function textOf(fields: string, root: string): string {
  const body = fields.trim().replace(/^/gm, "    ");
  return `${HEAD}${root}workflow:\n  - step: s\n${body}\n  - {step: end, tool: {kind: noop}}\n`;
}

/** The step `s` with these fields. */
export function step(fields: string, root = ""): Step {
  return parsePlaybook(textOf(fields, root)).steps["s"]!;
}

/** The refusal of a bad playbook; fails when it is accepted. */
export function refusal(text: string): Rejected {
  try {
    parsePlaybook(text, { file: "p.yaml" });
  } catch (error) {
    assert.ok(error instanceof Rejected, String(error));
    return error;
  }
  throw new Error("the playbook was accepted");
}

export function issuesOf(text: string): Issue[] {
  return refusal(text).data["issues"] as Issue[];
}

/** Issues of a step `s` with these fields, which begin in line 6. */
export function issuesIn(fields: string, root = ""): Issue[] {
  return issuesOf(textOf(fields, root));
}

/** Exactly one issue, with these parts; texts may be patterns. */
export function refuses(issues: Issue[], expected: Record<string, string | number | RegExp>): void {
  assert.equal(issues.length, 1, JSON.stringify(issues, null, 1));
  for (const [key, value] of Object.entries(expected)) {
    const found = issues[0]![key as keyof Issue];
    if (value instanceof RegExp) assert.match(String(found), value);
    else assert.equal(found, value, key);
  }
}
