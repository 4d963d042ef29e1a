// Which Python is found, what of the environment it sees, and what a step says without one.
import { strict as assert } from "node:assert";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { findPython } from "../../mixins/python.ts";
import { loadSettings, programEnvironment } from "../../schemas/env.ts";

describe("findPython", () => {
  let folder: string;
  before(() => void (folder = mkdtempSync(join(tmpdir(), "noetl-python-"))));
  after(() => rmSync(folder, { recursive: true }));

  /** Something on a PATH of its own that answers like an interpreter. */
  function script(name: string, text: string): string {
    const path = join(folder, name);
    writeFileSync(path, `#!/bin/sh\n${text}\n`);
    chmodSync(path, 0o755);
    return path;
  }

  const find = (command?: string) => findPython({ command, environment: { PATH: folder } });

  it("says that there is none on the PATH", async () => {
    assert.deepEqual(await find(), { problem: "no python3 on the PATH" });
  });

  it("names NOETL_PYTHON when that cannot be run", async () => {
    const found = await find("/nowhere/python3");
    assert.deepEqual(found, { problem: "NOETL_PYTHON '/nowhere/python3' cannot be run (ENOENT)" });
  });

  it("refuses one that is too old, with its version", async () => {
    for (const [version, tooOld] of [
      ["3, 7, 16", "3.7.16"],
      ["2, 7, 18", "2.7.18"],
    ] as const) {
      script("python3", `echo '["/usr/bin/python3", [${version}]]'`);
      assert.deepEqual(await find(), { problem: `python3 is Python ${tooOld}, too old` });
    }
  });

  it("takes 3.8 and newer, by the path of the interpreter itself", async () => {
    script("python3", `echo '["/opt/python3.8", [3, 8, 0]]'`);
    assert.deepEqual(await find(), { python: { path: "/opt/python3.8", version: "3.8.0" } });
  });

  it("refuses what is no interpreter", async () => {
    const path = script("other", "echo hello");
    assert.deepEqual(await find(path), {
      problem: `NOETL_PYTHON '${path}' is no Python interpreter`,
    });
    script("python3", "exit 3");
    assert.deepEqual(await find(), { problem: "python3 cannot be run (3)" });
  });
});

describe("the environment of python tasks", () => {
  const env = {
    ...{ PATH: "/bin", HOME: "/home/me", LANG: "C", TZ: "UTC", AWS_REGION: "eu", SHELL: "/bin/sh" },
    ...{ NOETL_ENCRYPTION_KEY: "x", DATABASE_URL: "x", NATS_PASSWORD: "x", POSTGRES_PASSWORD: "x" },
  };

  it("is what any program needs", () => {
    const seen = programEnvironment(env);
    const { PATH, HOME, LANG, TZ } = seen;
    assert.deepEqual(
      { PATH, HOME, LANG, TZ },
      { PATH: "/bin", HOME: "/home/me", LANG: "C", TZ: "UTC" },
    );
    assert.ok(!Object.keys(seen).some(name => /NOETL|NATS|DATABASE|POSTGRES|AWS|SHELL/.test(name)));
  });

  it("and what the operator adds, but never what the runtime keeps to itself", () => {
    const seen = programEnvironment(env, ["AWS_REGION", "NOETL_ENCRYPTION_KEY", "DATABASE_URL"]);
    assert.equal(seen["AWS_REGION"], "eu");
    assert.ok(!("NOETL_ENCRYPTION_KEY" in seen) && !("DATABASE_URL" in seen));
  });

  it("a setting that asks for a secret of the runtime is refused", () => {
    assert.throws(
      () => loadSettings({ NOETL_PYTHON_ENV: "AWS_REGION,DATABASE_URL" }),
      /NOETL_PYTHON_ENV: it contradicts another setting; expected no variables of the runtime/,
    );
  });
});
