// What doctor says about this process and its files, and how it says it.
import { strict as assert } from "node:assert";
import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { checkLines, examine, ok, warn } from "../../cli/check.ts";
import type { Check } from "../../cli/check.ts";
import {
  checkFolders,
  checkKeys,
  checkPython,
  checkSettings,
  checkVersions,
  isOlder,
  judgeSpace,
} from "../../cli/doctor-here.ts";
import { judgeServer } from "../../cli/doctor-nats.ts";
import { loadSettings } from "../../schemas/env.ts";

const GIB = 1_073_741_824;
const KEY = Buffer.from(crypto.getRandomValues(new Uint8Array(32))).toString("base64");
const ELSEWHERE = { DATABASE_URL: "postgres://u:hunter2@db/x" };

function stateOf(checks: Check[], name: string): string | undefined {
  return checks.find(check => check.name === name)?.state;
}

describe("doctor: versions, settings and keys", () => {
  it("compares versions by their numbers, and knows what is too old", () => {
    assert.ok(isOlder("2.9.10", "2.10.0") && isOlder("2.9", "2.9.1") && isOlder("0.14.36", "0.15"));
    assert.ok(!isOlder("2.10.0", "2.9.10") && !isOlder("2.9.0", "2.9") && !isOlder("3.0", "2.9"));
    assert.ok(!isOlder("2.11.0-beta.1", "2.11.0"));
    assert.equal(stateOf(checkVersions(), "versions"), "ok");
    assert.equal(stateOf(checkVersions("20.20.2"), "versions"), "fail");
    assert.equal(stateOf(checkVersions("24.0.0", "0.14.36"), "versions"), "fail");
  });

  it("warns of a machine without Python, and fails where a named one is missing", async () => {
    const missing = await checkPython({
      ...loadSettings({}),
      pythonEnvironment: { PATH: "/nowhere" },
    });
    assert.deepEqual([missing.state, missing.name], ["warn", "python"]);
    assert.match(missing.found, /python tasks cannot run here: no python3 on the PATH/);
    const named = await checkPython(loadSettings({ NOETL_PYTHON: "/nowhere/python3" }));
    assert.equal(named.state, "fail");
    assert.match(named.remedy ?? "", /install Python 3\.8 or newer, or set NOETL_PYTHON/);
  });

  it("warns of a variable that means nothing", () => {
    const [first, misspelt] = checkSettings(loadSettings({ NOETL_PROT: "1" }));
    assert.equal(first?.state, "ok");
    assert.deepEqual([misspelt?.state, misspelt?.found], ["warn", "NOETL_PROT is not a setting"]);
  });

  it("asks for an encryption key where the database is elsewhere, more so when it is used", () => {
    assert.equal(checkKeys(loadSettings({}), 0).state, "ok");
    assert.equal(checkKeys(loadSettings(ELSEWHERE), 0).state, "warn");
    assert.equal(checkKeys(loadSettings(ELSEWHERE), 2).state, "fail");
    const keyed = checkKeys(loadSettings({ ...ELSEWHERE, NOETL_ENCRYPTION_KEY: KEY }), 2);
    assert.deepEqual([keyed.state, keyed.found.includes(KEY)], ["ok", false]);
  });
});

describe("doctor: NATS", () => {
  const judged = (version: string) =>
    judgeServer({
      version,
      rtt_ms: 1,
      stream: { wanted: {}, found: undefined },
      consumers: [],
    });

  it("refuses a server that is too old, and says what one that is older lacks", () => {
    assert.equal(judged("2.8.4").state, "fail");
    const { state, found } = judged("2.9.10");
    assert.match(`${state} ${found}`, /^warn .*several subjects, .*single keys/);
    assert.match(judged("2.10.27").found, /lacks: a time to live for single keys/);
    assert.doesNotMatch(judged("2.10.27").found, /several subjects/);
    assert.equal(judged("2.14.0").state, "ok");
  });
});

describe("doctor: files", () => {
  let folder: string;
  before(async () => void (folder = await mkdtemp(join(tmpdir(), "noetl-doctor-"))));
  after(() => rm(folder, { recursive: true }));

  const look = (env: Record<string, string>) =>
    checkFolders(loadSettings({ NOETL_DATA_DIR: join(folder, "data"), ...env }));

  it("finds a folder that is not there good where it can be made, and bad in a file", async () => {
    assert.equal(stateOf(await look({}), "data"), "ok");
    const file = join(folder, "file");
    await writeFile(file, "");
    const [data, results] = await look({ NOETL_DATA_DIR: join(file, "data") });
    assert.deepEqual([data?.state, results?.state], ["fail", "fail"]);
    assert.match(data?.found ?? "", /is not a folder/);
    assert.match(data?.remedy ?? "", /NOETL_DATA_DIR/);
  });

  it("asks for no folder where everything goes to the database", async () => {
    const checks = await look(ELSEWHERE);
    assert.match(checks.find(one => one.name === "results")?.found ?? "", /to the database/);
    const file = join(folder, "no-folder");
    await writeFile(file, "");
    const beside = { NOETL_DATA_DIR: file, NOETL_DEFAULT_STORE_TIER: "local" };
    assert.equal(stateOf(await look({ ...ELSEWHERE, NOETL_DATA_DIR: file }), "data"), "ok");
    assert.equal(stateOf(await look({ ...ELSEWHERE, ...beside }), "data"), "fail");
  });

  it("warns when space gets scarce, and fails before nothing is left", () => {
    assert.equal(judgeSpace("data", "/x", 2 * GIB).state, "ok");
    assert.equal(judgeSpace("data", "/x", GIB / 2).state, "warn");
    assert.equal(judgeSpace("data", "/x", GIB / 20).state, "fail");
  });

  it("reads the aliases of a credentials file, and shows names but no values", async () => {
    const file = join(folder, "credentials.yaml");
    const check = async (text: string) => {
      await writeFile(file, text, { mode: 0o600 });
      const found = await look({ NOETL_CREDENTIALS_FILE: file });
      return found.find(one => one.name === "credentials");
    };
    assert.equal((await check("db: {type: postgres, data: {db_password: hunter2}}"))?.state, "ok");
    if (process.platform !== "win32") {
      await chmod(file, 0o644);
      const [open] = (await look({ NOETL_CREDENTIALS_FILE: file })).slice(-1);
      assert.deepEqual([open?.state, open?.remedy], ["warn", `chmod 600 ${file}`]);
    }
    for (const text of [
      "[hunter2]",
      "db: {type: hunter2}",
      "db: {data: {a: hunter2}",
      "db: hunter2",
    ]) {
      const bad = await check(text);
      assert.equal(bad?.state, "fail", text);
      assert.doesNotMatch(JSON.stringify(bad), /hunter2/);
    }
    const [absent] = (await look({ NOETL_CREDENTIALS_FILE: join(folder, "no.yaml") })).slice(-1);
    assert.match(`${absent?.state} ${absent?.found}`, /fail .*ENOENT/);
  });
});

describe("doctor: its words", () => {
  it("are one line a check: state, name, what was found, and the remedy", () => {
    const lines = checkLines([ok("a", "fine"), warn("long", "odd", "mend it")], false);
    assert.deepEqual(lines, ["ok    a     fine", "warn  long  odd → mend it"]);
  });

  it("say that a check went wrong itself, and let the others speak", async () => {
    const [check] = await examine("x", () => Promise.reject(new Error("permission denied\n at")));
    assert.equal(check?.state, "fail");
    assert.match(check?.found ?? "", /could not be checked: permission denied$/);
  });
});
