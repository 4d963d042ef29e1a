// `noetl verify`: a report for people, one object for programs, exit codes; here and over HTTP.
import { strict as assert } from "node:assert";
import { ask } from "../support/actors.ts";
import { HEAD } from "../support/playbook-samples.ts";
import { testDatabase, type TestDatabase } from "../support/postgres.ts";
import { endAll, newFolder, noetl, startServer, type NoetlServer } from "../support/process.ts";

const LOOP = `${HEAD}workflow:
  - step: each
    loop: {in: "{{ 4000 }}", iterator: i, spec: {mode: parallel, max_in_flight: 8}}
    tool: {kind: noop}
`;

describe("noetl verify", function () {
  this.timeout(120_000);
  let database: TestDatabase;
  let server: NoetlServer;
  let env: Record<string, string>;
  let id: string;
  before(async () => {
    database = await testDatabase({ migrated: true });
    env = { DATABASE_URL: database.url, NOETL_DATA_DIR: await newFolder() };
    server = await startServer(env);
    const { body } = await server.ask("POST", "/execute", { playbook: LOOP });
    id = String(body["execution_id"]);
    const wait = await server.ask("GET", `/executions/${id}/wait?timeout_ms=30000`);
    assert.equal(wait.body["status"], "COMPLETED");
  });
  after(endAll);
  after(() => database.drop());

  const there = (...args: string[]) => [...args, "--server-url", server.url];

  it("says of each rule what was looked at, then the verdict; over HTTP", async () => {
    const { code, stdout } = await noetl(there("verify", id), env);
    assert.match(stdout, new RegExp(`^demo/one  COMPLETED  ${id}\n`));
    assert.match(stdout, /✔ items +4,000 of 4,000 accepted, each once\n/);
    assert.match(stdout, /✔ counts +4,000 succeeded, 0 failed, 0 not run\n/);
    assert.match(stdout, /✔ digest +[0-9a-f]{32}\n/);
    assert.match(stdout, /\n✔ proved by its log \(.*\)\n$/);
    assert.equal(code, 0);
  });

  it("is 2 for an id that nothing is known of, and 3 where nothing answers", async () => {
    const unknown = await noetl(there("verify", "77"), env);
    assert.deepEqual([unknown.code, unknown.stdout], [2, ""]);
    assert.match(unknown.stderr, /there is no execution 77/);
    const nobody = await noetl(["verify", id, "--server-url", "http://127.0.0.1:1"], env);
    assert.deepEqual([nobody.code, nobody.stdout], [3, ""]);
    const refused = await noetl(there("verify", "seven"), env);
    assert.equal(refused.code, 2);
  });

  it("is 1 for a log that was changed, and names it; without a server too", async () => {
    await ask(
      database.url,
      `update noetl.event set result = '{"status": "ok", "context": 1}'
       where execution_id = $1 and event_type = 'frame.committed'
         and version = (select max(version) from noetl.event
                        where execution_id = $1 and event_type = 'frame.committed')`,
      [id],
    );
    const { code, stdout } = await noetl(["verify", id], env);
    assert.match(stdout, /✘ digest +loop \d+ of each: loop.done says \w+, the log gives/);
    assert.match(stdout, / {6}loop \d+ of each, item \d+: version \d+ says \w+, its stored result/);
    assert.match(stdout, /\n✘ 1 rule broken: the log does not prove it \(.*\)\n$/);
    assert.equal(code, 1);
    const json = await noetl(there("verify", id, "--json"), env);
    const report = JSON.parse(json.stdout) as {
      ok: boolean;
      checks: { rule: string; ok: boolean }[];
    };
    assert.deepEqual([json.code, report.ok], [1, false]);
    assert.deepEqual(
      report.checks.filter(check => !check.ok).map(check => check.rule),
      ["digest"],
    );
  });
});
