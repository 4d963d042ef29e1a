// The public pipeline test_pft_flow, unmodified, through `noetl run`: exactly its rows.
import { strict as assert } from "node:assert";
import { assertSound } from "../support/log-checker.ts";
import { assertPftRows, BATCHES, PFT, PFT_PATH, SMOKE, smokePayload } from "../support/pft.ts";
import { endAll, noetl } from "../support/process.ts";
import { arePublicPlaybooksHere } from "../support/public-playbooks.ts";
import { setStage, type Stage } from "../support/stage.ts";

describe("test_pft_flow", function () {
  this.timeout(120_000);
  if (!arePublicPlaybooksHere()) return;
  let stage: Stage;

  before(async () => void (stage = await setStage()));
  afterEach(endAll);
  after(() => stage.close());

  it("ends COMPLETED with exit code 0 and exactly the rows it promises", async () => {
    const { api, store, target, env } = stage;
    const payload = JSON.stringify(smokePayload(api.url));
    const { code, stdout, stderr } = await noetl(["run", PFT, "--payload", payload, "--json"], env);
    assert.equal(code, 0, stderr);
    const view = JSON.parse(stdout) as Record<string, unknown>;
    assert.deepEqual([view["path"], view["status"]], [PFT_PATH, "COMPLETED"]);
    await assertPftRows(target.url, SMOKE);
    const { rows } = await assertSound(store.url, String(view["execution_id"]));
    const { total, done, failed } = rows[0]?.loop?.["process_pft_action_batches"] ?? {};
    assert.deepEqual({ total, done, failed }, { total: 16, done: 16, failed: 0 });
    // One request a batch: nothing was fetched twice.
    assert.equal(api.calls[BATCHES], 24);
  });
});
