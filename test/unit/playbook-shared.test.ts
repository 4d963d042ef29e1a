/** Public playbooks, unmodified: each is accepted, and the broken one refused. */
import { strict as assert } from "node:assert";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { Rejected } from "../../schemas/errors.ts";
import type { Issue } from "../../schemas/errors.ts";
import { readPlaybook } from "../../schemas/playbook/parse.ts";
import { unknownNames } from "../../schemas/playbook/unknown-names.ts";

const FOLDER = join(import.meta.dirname, "../../../shared/playbooks");
const BROKEN = "broken_playbooks/should_error_tool_is_required.yaml";

describe("public playbooks", () => {
  if (!existsSync(FOLDER)) {
    it.skip(`are not here: ${FOLDER} is absent`);
    return;
  }
  const files = readdirSync(FOLDER, { recursive: true, encoding: "utf8" });
  for (const file of files.filter(name => name.endsWith(".yaml") && name !== BROKEN)) {
    it(`accepts ${file}, and knows every name in it`, () => {
      const found = readPlaybook(readFileSync(join(FOLDER, file), "utf8"), { file });
      assert.ok(Object.hasOwn(found.playbook.steps, found.playbook.entry));
      assert.deepEqual(unknownNames(found.playbook, found), []);
    });
  }

  it("refuses the one without a tool, naming step and field", () => {
    const text = readFileSync(join(FOLDER, BROKEN), "utf8");
    assert.throws(
      () => readPlaybook(text, { file: BROKEN }),
      (error: unknown) => {
        assert.ok(error instanceof Rejected);
        assert.match(error.message, /step 'end', tool: tool is required/);
        const issues = error.data["issues"] as Issue[];
        const issue = issues.find(found => found.message === "tool is required");
        assert.equal(issue?.step, "end");
        assert.equal(issue?.field, "tool");
        assert.equal(issue?.line, 39);
        return true;
      },
    );
  });
});
