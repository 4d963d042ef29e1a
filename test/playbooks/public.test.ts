// Public playbooks, unmodified: those this build can run do, the others say what they need.
import { strict as assert } from "node:assert";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { readPlaybook } from "../../schemas/playbook/parse.ts";
import { refuseUnrunnable } from "../../schemas/playbook/unrunnable.ts";
import { RUNNABLE_KINDS } from "../../schemas/tool.ts";
import { assertSound } from "../support/log-checker.ts";
import { startMockApi, type MockApi } from "../support/mock-api.ts";
import { startNode, type TestNode } from "../support/node.ts";
import { assertPftRows, SMOKE, smokePayload } from "../support/pft.ts";
import { testDatabase, type TestDatabase } from "../support/postgres.ts";
import { arePublicPlaybooksHere, credentialsFor, PUBLIC } from "../support/public-playbooks.ts";

const BROKEN = "broken_playbooks/should_error_tool_is_required.yaml";

interface Case {
  payload(api: MockApi): object;
  status: string;
  check(target: string): Promise<void>;
}

/** What each that can run must do (EXPECTED.md); any other must end COMPLETED. */
const CASES: Record<string, Case> = {
  "pft_flow_test/test_pft_flow.yaml": {
    payload: api => smokePayload(api.url),
    status: "COMPLETED",
    check: target => assertPftRows(target, SMOKE),
  },
};

const ANY: Case = {
  payload: api => ({ api_url: api.url }),
  status: "COMPLETED",
  check: () => Promise.resolve(),
};

describe("public playbooks of http, postgres, noop, playbook and workbook alone", function () {
  this.timeout(60_000);
  if (!arePublicPlaybooksHere()) return;
  let api: MockApi;
  let store: TestDatabase;
  let target: TestDatabase;
  let node: TestNode;

  before(async () => {
    api = await startMockApi();
    store = await testDatabase({ migrated: true });
    target = await testDatabase();
    node = await startNode({ url: store.url, env: credentialsFor(target.url) });
  });
  after(async () => {
    await node.stop();
    await api.close();
    await store.drop();
    await target.drop();
  });

  const files = readdirSync(PUBLIC, { recursive: true, encoding: "utf8" })
    .filter(name => name.endsWith(".yaml") && name !== BROKEN)
    .sort();
  const textOf = (file: string): string => readFileSync(join(PUBLIC, file), "utf8");
  const needs = (file: string): string[] => {
    const read = readPlaybook(textOf(file), { file });
    return refuseUnrunnable(read.playbook, RUNNABLE_KINDS, read).map(issue => issue.message);
  };
  const runnable = files.filter(file => needs(file).length === 0);

  it("are found by reading them", () => {
    assert.ok(runnable.includes("pft_flow_test/test_pft_flow.yaml"), runnable.join(", "));
  });

  for (const file of runnable) {
    it(`${file} does what is expected of it`, async () => {
      const { payload, status, check } = CASES[file] ?? ANY;
      const view = await node.run(textOf(file), payload(api));
      assert.equal(view.status, status, JSON.stringify(view.error));
      await check(target.url);
      await assertSound(store.url, view.execution_id);
    });
  }

  it("the others are refused with the kind that is missing, and nothing is started", async () => {
    const others = files.filter(file => !runnable.includes(file));
    for (const file of others) {
      const refused = node.call("executions.start", { playbook: textOf(file), payload: {} });
      await assert.rejects(refused, (error: Error & { code?: number }) => {
        assert.equal(error.code, 422, `${file}: ${error.message}`);
        assert.match(error.message, /python|duckdb|nats|shell|container|artifact/, file);
        return true;
      });
    }
    const { executions } = await node.call<{ executions: object[] }>("executions.list");
    assert.equal(executions.length, runnable.length);
  });
});
