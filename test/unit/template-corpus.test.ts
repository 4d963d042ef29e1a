/** Every template of the playbooks at hand compiles; the few that must not are named. */
import { strict as assert } from "node:assert";
import { globSync, readFileSync } from "node:fs";
import { parse } from "yaml";
import { isObject } from "../../schemas/json.ts";
import { compileTemplate, hasTemplate } from "../../schemas/playbook/template.ts";

const FOLDERS = ["examples", "test/playbooks", "../shared/playbooks"];
/** Playbooks that are wrong on purpose. */
const BROKEN = /broken|invalid|should_error/;

function templatesIn(value: unknown, key = ""): string[] {
  if (typeof value === "string") return key !== "code" && hasTemplate(value) ? [value] : [];
  if (Array.isArray(value)) return value.flatMap(item => templatesIn(item, key));
  if (!isObject(value)) return [];
  return Object.entries(value).flatMap(([name, item]) => templatesIn(item, name));
}

describe("template corpus", () => {
  const files = FOLDERS.flatMap(folder => globSync(`${folder}/**/*.{yaml,yml}`)).filter(
    file => !BROKEN.test(file),
  );

  it("compiles every template of every playbook found", function () {
    if (files.length === 0) this.skip();
    for (const file of files) {
      for (const template of templatesIn(parse(readFileSync(file, "utf8")))) {
        assert.doesNotThrow(() => compileTemplate(template), `${file}: ${template}`);
      }
    }
  });
});
