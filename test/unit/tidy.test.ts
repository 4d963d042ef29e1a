// Enforces the rules of the house, so that nobody has to remember them.
import { strict as assert } from "node:assert";
import { dirname } from "node:path";
import { ourSources, ourTexts, ROOT, sourceFile } from "../support/source-files.ts";
import { impurities, rules } from "../support/tidy-rules.ts";

describe("the house", () => {
  const files = ourSources();

  for (const rule of rules) {
    it(rule.name, () => {
      const { path, text } = rule.bad;
      assert.notDeepEqual(rule.check(sourceFile(path, text)), [], "this check cannot fail");
      const broken = files.flatMap(file => rule.check(file));
      assert.equal(broken.length, 0, `\n  ${broken.join("\n  ")}`);
    });
  }

  it("a machine imports schemas only and never asks the clock or chance", () => {
    const known = new Map(files.map(file => [file.path, file]));
    const bad = sourceFile("services/a/machine.ts", 'import x from "x"; const at = Date.now();');
    assert.equal(impurities(bad, known).length, 2, "this check cannot fail");
    const machines = files.filter(({ path }) => /^services\/.*\bmachine\.ts$/.test(path));
    assert.deepEqual(
      machines.flatMap(machine => impurities(machine, known)),
      [],
    );
  });

  it("no file names the folder that this checkout is in", () => {
    // A folder right under / (such as a container's) may be named by a Dockerfile with reason.
    const isTelling = dirname(ROOT) !== dirname(dirname(ROOT));
    const naming = ourTexts().filter(({ text }) => isTelling && text.includes(ROOT));
    assert.deepEqual(
      naming.map(({ path }) => path),
      [],
    );
  });

  it("finds our files at all", () => {
    assert.ok(files.some(file => file.path === "schemas/errors.ts"));
    assert.ok(files.some(file => file.path === "test/unit/tidy.test.ts"));
  });
});
