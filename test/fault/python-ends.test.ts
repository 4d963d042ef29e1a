// A worker that is killed leaves no Python behind, and its task runs again where another one is.
import { strict as assert } from "node:assert";
import { existsSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { until } from "../support/actors.ts";
import { begin, endAll, newFolder, noetl } from "../support/process.ts";
import { needsPython } from "../support/python.ts";
import { setStage, type Stage } from "../support/stage.ts";

const PLAYBOOK = `
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: ends}
workload: {folder: ""}
workflow:
  - step: work
    tool:
      kind: python
      input: {folder: "{{ folder }}"}
      code: |
        import subprocess, time
        again = os.path.exists(folder + "/pids")
        child = subprocess.Popen(["sleep", "100"])
        with open(folder + "/pids.new", "w") as file:
            file.write(f"{os.getpid()} {child.pid}")
        os.rename(folder + "/pids.new", folder + "/pids")
        if not again:
            time.sleep(100)
        result = {"again": again}
`;

/** Whether a process runs: one that has ended and is not yet asked for does not. */
async function runs(pid: number): Promise<boolean> {
  const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "");
  return stat !== "" && !/\) [ZX]/.test(stat);
}

describe("Python of a worker that is killed", function () {
  this.timeout(90_000);
  let stage: Stage;
  let folder: string;

  before(async function () {
    if (process.platform !== "linux") this.skip();
    await needsPython(this);
    stage = await setStage();
    folder = await newFolder();
  });
  afterEach(endAll);
  after(() => stage?.close());

  it("ends with it, and what it has begun; the task runs again", async () => {
    const file = join(folder, "ends.yaml");
    await writeFile(file, PLAYBOOK);
    const env = {
      ...stage.env,
      NOETL_COMMAND_LEASE_SECONDS: "2",
      NOETL_WORKER_BEAT_SECONDS: "0.5",
    };
    const run = begin(["run", file, "--set", `folder=${folder}`, "--json"], env);
    const pids = join(folder, "pids");
    await until(() => existsSync(pids), 40_000);
    const [python = 0, child = 0] = (await readFile(pids, "utf8")).split(" ").map(Number);
    assert.deepEqual([await runs(python), await runs(child)], [true, true]);
    await run.kill();
    await until(async () => !(await runs(python)) && !(await runs(child)));
    const { stdout } = await noetl(["list", "--json"], env);
    const [one] = (JSON.parse(stdout) as { executions: { execution_id: string }[] }).executions;
    const resumed = await noetl(["resume", one?.execution_id ?? "", "--json"], env);
    const view = JSON.parse(resumed.stdout) as { status: string; result: unknown };
    assert.deepEqual([view.status, view.result], ["COMPLETED", { again: true }]);
  });
});
