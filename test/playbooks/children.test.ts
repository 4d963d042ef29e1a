// `noetl run` of a playbook that starts a child and does not wait for it: the command does.
import { strict as assert } from "node:assert";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { ask } from "../support/actors.ts";
import { assertSound } from "../support/log-checker.ts";
import { startMockApi, type MockApi } from "../support/mock-api.ts";
import { testDatabase, type TestDatabase } from "../support/postgres.ts";
import { endAll, newFolder, noetl } from "../support/process.ts";
import { ASYNC_PARENT, CHILD, MANY_CHILDREN, SLOW_CHILD } from "./family-stories.ts";

describe("children", function () {
  this.timeout(30_000);
  let api: MockApi;
  let store: TestDatabase;

  before(async () => {
    api = await startMockApi();
    store = await testDatabase({ migrated: true });
  });
  afterEach(endAll);
  after(async () => {
    await api.close();
    await store.drop();
  });

  it("that nobody waits for have ended too when noetl run has", async () => {
    const folder = await newFolder();
    const env = { NOETL_DATA_DIR: folder, DATABASE_URL: store.url };
    const [parent, child] = [join(folder, "parent.yaml"), join(folder, "child.yaml")];
    await Promise.all([writeFile(parent, ASYNC_PARENT), writeFile(child, SLOW_CHILD)]);
    assert.equal((await noetl(["register", child], env)).code, 0);
    const { code, stdout, stderr } = await noetl(
      ["run", parent, "--set", `api_url=${api.url}`, "--json"],
      env,
    );
    assert.equal(code, 0, stderr);
    const view = JSON.parse(stdout) as Record<string, unknown>;
    const result = view["result"] as { was: string; child: string };
    assert.deepEqual([view["status"], result.was], ["COMPLETED", "started"]);
    assert.equal(api.calls["GET /api/v1/concurrency/probe"], 10);
    const rows = await ask(
      store.url,
      `select c.execution_id, c.status, c.parent_execution_id, p.end_time < c.end_time as outlived
       from noetl.execution c join noetl.execution p on p.execution_id = c.parent_execution_id`,
    );
    const { execution_id: parent_execution_id } = view;
    assert.deepEqual(rows, [
      { execution_id: result.child, status: "COMPLETED", parent_execution_id, outlived: true },
    ]);
    await assertSound(store.url);
  });

  it("are one an item, also of items that share a frame", async () => {
    const folder = await newFolder();
    const env = { NOETL_DATA_DIR: folder, DATABASE_URL: store.url };
    const [parent, child] = [join(folder, "many.yaml"), join(folder, "child.yaml")];
    await Promise.all([writeFile(parent, MANY_CHILDREN), writeFile(child, CHILD)]);
    assert.equal((await noetl(["register", child], env)).code, 0);
    const { stdout, stderr } = await noetl(["run", parent, "--json"], env);
    const view = JSON.parse(stdout) as { status: string; result: { doubled: number[] } };
    assert.equal(view.status, "COMPLETED", stderr);
    assert.deepEqual(
      view.result.doubled,
      Array.from({ length: 40 }, (_, n) => 2 * n),
    );
    await assertSound(store.url);
  });
});
