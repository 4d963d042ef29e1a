// `noetl run` in one data folder: two at once, Ctrl-C once and twice, kill -9, and `noetl resume`.
import { strict as assert } from "node:assert";
import { existsSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { ask, until } from "../support/actors.ts";
import { chance } from "../support/chance.ts";
import { assertCopied, COPY, COPY_PATH } from "../support/copy-playbook.ts";
import { startMockApi, type MockApi } from "../support/mock-api.ts";
import { testDatabase, type TestDatabase } from "../support/postgres.ts";
import { begin, endAll, newFolder, noetl, type Ended, type Env } from "../support/process.ts";
import { credentialsFor, embeddedUrl } from "../support/public-playbooks.ts";
import { asked, deserted } from "../support/submitted.ts";
import { assertSound } from "../support/log-checker.ts";
import { untoldItems } from "../support/lost-work.ts";

const POSTS = "GET /posts/{id}";
/** Two signals within 250 ms are one key press that reached two processes. */
const PERSON_MS = 400;

describe("noetl run in a data folder", function () {
  this.timeout(120_000);
  let api: MockApi;
  let target: TestDatabase;
  let env: Env;
  let folder: string;
  let file: string;

  beforeEach(async () => {
    api = await startMockApi();
    target = await testDatabase();
    folder = await newFolder();
    file = join(folder, "copy.yaml");
    await writeFile(file, COPY);
    env = { NOETL_DATA_DIR: folder, ...credentialsFor(target.url) };
  });
  afterEach(endAll);
  afterEach(async () => {
    await api.close();
    await target.drop();
  });

  const copy = (seconds: number, ...more: string[]): string[] => {
    const payload = JSON.stringify({ api_url: api.url, pause: seconds });
    return ["run", file, "--payload", payload, ...more];
  };

  const postmasterPid = async (): Promise<number> =>
    Number.parseInt(await readFile(join(folder, "postgres", "postmaster.pid"), "utf8"), 10);

  const isGone = async (pid: number): Promise<boolean> => {
    const files = ["keeper.json", join("postgres", "postmaster.pid")];
    if (files.some(name => existsSync(join(folder, name)))) return false;
    const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "");
    return stat === "" || / Z /.test(stat);
  };

  const viewOf = ({ stdout }: Ended): Record<string, unknown> =>
    JSON.parse(stdout) as Record<string, unknown>;

  it("twice at once: both complete, the first to end leaves Postgres to the second", async () => {
    // Two of `create table if not exists` at once is a race of Postgres's own.
    await ask(
      target.url,
      "create table copied (id integer primary key, title text not null, times integer not null)",
    );
    const short = begin(copy(0, "--json"), env);
    const long = begin(copy(0.2, "--json"), env);
    const first = await short.ended;
    assert.equal(first.code, 0, first.stderr);
    assert.equal(long.said, "", "the long one has ended first");
    const postmaster = await postmasterPid();
    const second = await long.ended;
    assert.equal(second.code, 0, second.stderr);
    for (const ended of [first, second]) {
      const { status, path } = viewOf(ended);
      assert.deepEqual([status, path], ["COMPLETED", COPY_PATH]);
    }
    // The last to leave stops Postgres before it ends itself.
    assert.ok(await isGone(postmaster), "Postgres is left running");
    // Both wrote every row: one insert and one update each.
    assert.equal(await assertCopied(target.url, 100), 100);
    const list = viewOf(await noetl(["list", "--json"], env));
    const statuses = (list["executions"] as { status: string }[]).map(one => one.status);
    assert.deepEqual(statuses, ["COMPLETED", "COMPLETED"]);
  });

  it("Ctrl-C: what runs is finished, a hint is printed, resume writes each row once", async () => {
    const seed = chance("Ctrl-C");
    const run = begin(copy(0.1), env);
    await asked(api, POSTS, seed.between(5, 60));
    const postmaster = await postmasterPid();
    run.signal("SIGINT");
    const { code, stderr } = await run.ended;
    assert.equal(code, 130);
    assert.ok(await isGone(postmaster), "Postgres is left running");
    const [, id = ""] = /noetl resume (\d+)/.exec(stderr) ?? [];
    assert.notEqual(id, "", stderr);
    const calls = api.calls[POSTS] ?? 0;
    assert.ok(calls < 100, "nothing was left to do");
    const [row] = await ask<{ n: number }>(target.url, "select count(*)::integer as n from copied");
    assert.equal(row?.n, calls, "what ran was not finished");
    const resumed = await noetl(["resume", id, "--json"], env);
    assert.equal(resumed.code, 0, resumed.stderr);
    assert.equal(viewOf(resumed)["status"], "COMPLETED");
    assert.equal(await assertCopied(target.url, 100), 0);
    assert.equal(api.calls[POSTS], 100);
  });

  it("Ctrl-C twice cancels, with exit code 1", async () => {
    const run = begin(copy(2), env);
    await asked(api, POSTS, 3);
    run.signal("SIGINT");
    await run.says(/Ctrl-C again cancels/);
    await pause(PERSON_MS);
    run.signal("SIGINT");
    const { code, stdout } = await run.ended;
    assert.deepEqual([code, /CANCELLED/.test(stdout)], [1, true], stdout);
    const list = viewOf(await noetl(["list", "--json"], env));
    const [{ execution_id: id } = { execution_id: "" }] = list["executions"] as {
      execution_id: string;
    }[];
    const resumed = await noetl(["resume", id, "--json"], env);
    assert.deepEqual([resumed.code, viewOf(resumed)["status"]], [1, "CANCELLED"]);
    assert.ok((api.calls[POSTS] ?? 0) <= 8, "it went on after the cancel");
  });

  it("killed with -9, resume goes on with it, and Postgres is not left behind", async () => {
    const seed = chance("kill -9 of run");
    const run = begin(copy(0.05), env);
    await asked(api, POSTS, seed.between(5, 80));
    const postmaster = await postmasterPid();
    await run.kill();
    await until(() => isGone(postmaster), 15_000);
    await deserted(target.url);
    const list = viewOf(await noetl(["list", "--json"], env));
    const [{ execution_id: id, status } = { execution_id: "", status: "" }] = list[
      "executions"
    ] as { execution_id: string; status: string }[];
    assert.equal(status, "RUNNING");
    const begun = performance.now();
    const resume = begin(["resume", id, "--json"], env);
    await asked(api, POSTS, (api.calls[POSTS] ?? 0) + 1);
    const tookMs = Math.round(performance.now() - begun);
    process.stdout.write(`      resume: at work ${tookMs} ms after its process began\n`);
    const url = await embeddedUrl(folder);
    const keeper = begin(["start"], { ...env, NOETL_PORT: "0" });
    await keeper.says(/serves/);
    const ended = await resume.ended;
    assert.equal(ended.code, 0, ended.stderr);
    assert.equal(viewOf(ended)["status"], "COMPLETED");
    const again = await assertCopied(target.url, 100);
    const untold = untoldItems((await assertSound(url, id)).events);
    assert.ok(untold > 0, "the kill hit nothing");
    assert.ok(again <= untold, `${again} rows were written again, ${untold} were not told of`);
    keeper.signal("SIGTERM");
    assert.equal((await keeper.ended).code, 0);
  });
});
