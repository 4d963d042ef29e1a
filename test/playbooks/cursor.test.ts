// Loops over a cursor through `noetl run`: what a person sees, and what the summary counts.
import { strict as assert } from "node:assert";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { ask } from "../support/actors.ts";
import { assertSound } from "../support/log-checker.ts";
import { endAll, newFolder, noetl } from "../support/process.ts";
import { setStage, type Stage } from "../support/stage.ts";
import { ROOT } from "../support/source-files.ts";

const QUEUE = join(ROOT, "examples/queue.yaml");

describe("noetl run of a loop over a cursor", function () {
  this.timeout(60_000);
  let stage: Stage;
  let env: Record<string, string>;

  before(async () => {
    stage = await setStage();
    env = { ...stage.env, NOETL_CREDENTIAL_NOETL_DEMO: stage.env["NOETL_CREDENTIAL_PG_K8S"] ?? "" };
  });
  afterEach(endAll);
  after(() => stage.close());

  it("of examples/queue.yaml does every job, and shows rows instead of a share", async () => {
    const { code, stdout, stderr } = await noetl(["run", QUEUE, "--set", "jobs=150"], env);
    const said = stdout + stderr;
    assert.equal(code, 0, said);
    assert.match(said, /work: 147 of 150 rows, 3 failed/);
    assert.match(said, /"done":147,"failed":3,"frames":\d+,"status":"partial"/);
    const [run] = await ask<{ id: string }>(
      stage.store.url,
      "select execution_id as id from noetl.execution",
    );
    await assertSound(stage.store.url, run?.id);
    const counts = await ask(
      stage.target.url,
      "select status, count(*)::integer as n from job group by 1 order by 1",
    );
    assert.deepEqual(counts, [
      { status: "claimed", n: 3 },
      { status: "done", n: 147 },
    ]);
  });

  it("of a wrong one says where it is wrong, and what is expected", async () => {
    const file = join(await newFolder(), "wrong.yaml");
    await writeFile(file, WRONG);
    const { code, stderr } = await noetl(["run", file], env);
    assert.equal(code, 2);
    assert.match(stderr, /wrong.yaml:8:22: step 'work', loop.cursor.kind:.*expected postgres/);
    assert.match(stderr, /8:15: step 'work', loop.cursor.claim: 'claim' is required/);
    assert.match(stderr, /9:43: step 'work', loop.spec.max_in_flight: must be a whole number/);
  });
});

const WRONG = `apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: wrong, path: test/wrong}
workflow:
  - step: work
    loop:
      iterator: row
      cursor: {kind: mysql}
      spec: {mode: cursor, max_in_flight: 0}
    tool: {kind: noop}
`;
