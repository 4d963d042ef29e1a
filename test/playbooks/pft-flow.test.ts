// The public pipeline test_pft_flow, unmodified, through `noetl run`: exactly its rows.
import { strict as assert } from "node:assert";
import { startMockApi, type MockApi } from "../support/mock-api.ts";
import { assertSound } from "../support/log-checker.ts";
import { testDatabase, type TestDatabase } from "../support/postgres.ts";
import { endAll, newFolder, noetl } from "../support/process.ts";
import {
  arePublicPlaybooksHere,
  assertSmokeRows,
  credentialsFor,
  PFT,
  PFT_PATH,
  smokePayload,
} from "../support/public-playbooks.ts";

describe("test_pft_flow", function () {
  this.timeout(120_000);
  if (!arePublicPlaybooksHere()) return;
  let api: MockApi;
  let store: TestDatabase;
  let target: TestDatabase;

  before(async () => {
    api = await startMockApi();
    store = await testDatabase({ migrated: true });
    target = await testDatabase();
  });
  afterEach(endAll);
  after(async () => {
    await api.close();
    await store.drop();
    await target.drop();
  });

  it("ends COMPLETED with exit code 0 and exactly the rows it promises", async () => {
    const env = {
      NOETL_DATA_DIR: await newFolder(),
      DATABASE_URL: store.url,
      ...credentialsFor(target.url),
    };
    const payload = JSON.stringify(smokePayload(api.url));
    const { code, stdout, stderr } = await noetl(["run", PFT, "--payload", payload, "--json"], env);
    assert.equal(code, 0, stderr);
    const view = JSON.parse(stdout) as Record<string, unknown>;
    assert.deepEqual([view["path"], view["status"]], [PFT_PATH, "COMPLETED"]);
    await assertSmokeRows(target.url);
    const { rows } = await assertSound(store.url, String(view["execution_id"]));
    const { total, done, failed } = rows[0]?.loop?.["process_pft_action_batches"] ?? {};
    assert.deepEqual({ total, done, failed }, { total: 16, done: 16, failed: 0 });
    // One request a batch: nothing was fetched twice.
    assert.equal(api.calls["GET /api/v1/pft/batch/{type}"], 24);
  });
});
