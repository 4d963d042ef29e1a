// The public pipeline test_pft_flow over a server and two workers: exactly its rows, whichever way
// their outcomes take.
import { strict as assert } from "node:assert";
import { readFile } from "node:fs/promises";
import { assertPftRows, BATCHES, PFT, SMOKE, smokePayload } from "../support/pft.ts";
import { needsNats, startCluster, type Cluster } from "../support/cluster.ts";
import { assertSound } from "../support/log-checker.ts";
import { endAll } from "../support/process.ts";
import { arePublicPlaybooksHere } from "../support/public-playbooks.ts";
import { ended, submit } from "../support/submitted.ts";

describe("test_pft_flow over servers and workers", function () {
  this.timeout(240_000);
  if (!arePublicPlaybooksHere()) return;
  before(needsNats);
  let cluster: Cluster;
  afterEach(endAll);
  afterEach(() => cluster.close());

  for (const transport of ["call", "nats", "http"] as const) {
    it(`is exact with outcomes by ${transport}`, async () => {
      const env = { NOETL_EVENT_TRANSPORT: transport };
      cluster = await startCluster({ servers: 1, workers: 2, env, isOverHttp: true });
      const { api, store, target, servers } = cluster;
      const playbook = await readFile(PFT, "utf8");
      const id = await submit(servers[0]!, playbook, smokePayload(api.url));
      const { status } = await ended(store.direct, id);
      assert.equal(status, "COMPLETED");
      await assertPftRows(target.direct, SMOKE);
      await assertSound(store.direct, id);
      assert.equal(api.calls[BATCHES], 24, "a batch was fetched twice");
    });
  }
});
