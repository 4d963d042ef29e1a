// Whatever cannot be used is refused in words that name place and remedy, and leaves nothing.
import { strict as assert } from "node:assert";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { ask } from "../support/actors.ts";
import { assertSound } from "../support/log-checker.ts";
import { testDatabase, type TestDatabase } from "../support/postgres.ts";
import { endAll, newFolder, noetl, startServer, type NoetlServer } from "../support/process.ts";
import { ended, submit } from "../support/submitted.ts";

const playbook = (steps: string, root = ""): string =>
  `apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: bad, path: test/bad}
${root}workflow:
${steps}`;

const GOOD = playbook("  - {step: start, tool: {kind: noop}}\n").replaceAll("bad", "good");

/** A playbook that cannot be used, and what must be said: the place, and what to do. */
const PLAYBOOKS: [string, string, RegExp[]][] = [
  ["is not YAML", playbook("  - {step: start, tool: {kind: noop\n"), [/:6|:5|line 5|line 6/]],
  ["is text", "hello", [/a map|mapping|object/i]],
  ["has no steps", playbook("").replace("workflow:\n", "workflow: []\n"), [/workflow/]],
  [
    "has an arc to a step that is not there",
    playbook(
      "  - {step: start, tool: {kind: noop}, next: {arcs: [{step: finsh}]}}\n" +
        "  - {step: finish, tool: {kind: noop}}\n",
    ),
    [/finsh/, /finish/, /start/, /:5/],
  ],
  [
    "has a template that does not end",
    playbook('  - {step: start, tool: {kind: http, url: "{{ workload.url"}}\n'),
    [/start/, /url/, /:5/],
  ],
  [
    "has a filter that does not exist",
    playbook(`  - {step: start, tool: {kind: http, url: "{{ workload.url | uper }}"}}\n`),
    [/uper/, /upper/, /:5/],
  ],
  [
    "has an unknown kind of tool",
    playbook("  - {step: start, tool: {kind: htp}}\n"),
    [/htp/, /http/, /start/, /:5/],
  ],
  [
    "has two steps of one name",
    playbook("  - {step: a, tool: {kind: noop}}\n  - {step: a, tool: {kind: noop}}\n"),
    [/'a'|"a"|\ba\b/, /:6/],
  ],
  [
    "has a loop without a list",
    playbook("  - {step: start, loop: {iterator: i}, tool: {kind: noop}}\n"),
    [/loop/, /in\b/, /:5/],
  ],
];

/** A request that cannot be used, its status, and what must be said. */
const REQUESTS: [string, string, string, unknown, number, RegExp][] = [
  ["neither path nor playbook", "POST", "/execute", {}, 422, /either path or playbook/],
  [
    "both path and playbook",
    "POST",
    "/execute",
    { path: "test/good", playbook: GOOD },
    422,
    /either path or playbook/,
  ],
  ["a payload that is a list", "POST", "/execute", { path: "a", payload: [1] }, 422, /payload/],
  ["a version that is text", "POST", "/execute", { path: "a", version: "new" }, 422, /version/],
  ["a field there is not", "POST", "/execute", { path: "a", paylod: {} }, 422, /paylod/],
  ["an unknown path", "POST", "/execute", { path: "test/goood" }, 404, /test\/good\b/],
  ["an unknown version", "POST", "/execute", { path: "test/good", version: 9 }, 404, /version/],
  [
    "a payload beyond its limit",
    "POST",
    "/execute",
    { path: "test/good", payload: { a: "x".repeat(4_200_000) } },
    422,
    /at most 4194304 bytes/,
  ],
  ["a body beyond its limit", "POST", "/execute", { a: "x".repeat(8_400_000) }, 413, /too large/],
  ["an unknown execution", "GET", "/executions/123456789", undefined, 404, /123456789/],
  ["the status of none", "GET", "/executions/123456789/status", undefined, 404, /123456789/],
  ["the events of none", "GET", "/executions/123456789/events", undefined, 404, /123456789/],
  ["the end of none", "POST", "/executions/123456789/cancel", {}, 404, /no such|there is no/i],
  ["an id that is none", "GET", "/executions/12ab", undefined, 422, /digits/],
  ["an id beyond 64 bits", "GET", "/executions/9999999999999999999", undefined, 422, /id/],
  ["a page that is none", "GET", "/executions/1/events?page=-1", undefined, 422, /page/],
  ["an address there is not", "GET", "/executoins", undefined, 404, /nothing/],
  ["a method there is not", "GET", "/execute", undefined, 405, /POST/],
];

/** Command lines that cannot be used. FILE is a good playbook. */
const COMMANDS: [string, string[], RegExp][] = [
  ["a file there is not", ["run", "nowhere.yaml"], /nowhere\.yaml: there is no such file/],
  ["a payload that is a list", ["run", "FILE", "--payload", "[1]"], /--payload.*JSON object/],
  ["a payload that is not JSON", ["run", "FILE", "--payload", "{a: "], /--payload.*JSON object/],
  ["a setting without a value", ["run", "FILE", "--set", "n"], /--set.*name=value/],
  ["an unknown catalog path", ["run", "catalog://test/goood"], /test\/good\b/],
  ["an unknown execution", ["status", "123456789"], /123456789/],
  ["an unknown execution to resume", ["resume", "123456789"], /123456789/],
  ["an unknown execution to cancel", ["cancel", "123456789"], /execution/],
  ["an id that is none", ["status", "abc"], /digits/],
  ["an unknown verb", ["rnu", "FILE"], /run/],
  ["an unknown option", ["run", "FILE", "--payloda", "{}"], /--payload/],
];

describe("bad input", function () {
  this.timeout(60_000);
  let store: TestDatabase;
  let server: NoetlServer;
  let folder: string;
  let env: Record<string, string>;

  before(async () => {
    store = await testDatabase({ migrated: true });
    folder = await newFolder();
    env = { NOETL_DATA_DIR: folder, DATABASE_URL: store.url };
    server = await startServer(env);
    const { status } = await server.ask("POST", "/catalog/register", GOOD);
    assert.equal(status, 200);
  });
  after(endAll);
  after(() => store.drop());

  /** What a request could have made. */
  async function made(): Promise<object> {
    const [row] = await ask(
      store.url,
      `select (select count(*) from noetl.catalog) as catalog,
              (select count(*) from noetl.execution) as execution,
              (select count(*) from noetl.stream) as stream,
              (select count(*) from noetl.event) as event,
              (select count(*) from noetl.start_request) as start_request,
              (select count(*) from noetl.credential) as credential`,
    );
    return row ?? {};
  }

  async function makesNothing(work: () => Promise<void>): Promise<void> {
    const before = await made();
    await work();
    assert.deepEqual(await made(), before, "something was left behind");
  }

  const says = (text: string, patterns: RegExp[]): void => {
    for (const pattern of patterns) assert.match(text, pattern);
  };

  for (const [what, text, patterns] of PLAYBOOKS) {
    it(`a playbook that ${what} is refused by register and by execute`, async () => {
      await makesNothing(async () => {
        const registered = await server.ask("POST", "/catalog/register", {
          content: text,
          file: "bad.yaml",
        });
        assert.equal(registered.status, 422);
        says(JSON.stringify(registered.body), patterns.slice(0, -1));
        const { issues } = registered.body["error"] as { issues?: { line?: number }[] };
        assert.ok((issues ?? []).length > 0, "no issue is named");
        const started = await server.ask("POST", "/execute", { playbook: text });
        assert.equal(started.status, 422);
      });
    });
  }

  it("on the command line, each playbook with its file and place, by validate and by run", () =>
    makesNothing(async () => {
      const files = PLAYBOOKS.map((_case, index) => join(folder, `bad-${index}.yaml`));
      await Promise.all(files.map((file, index) => writeFile(file, PLAYBOOKS[index]![1])));
      const validated = await noetl(["validate", ...files], env);
      assert.equal(validated.code, 2);
      const parts = validated.stdout.split("✘ ").slice(1);
      assert.equal(parts.length, files.length);
      for (const [index, part] of parts.entries()) says(part, PLAYBOOKS[index]![2]);
      for (const index of [0, 3, 5]) {
        const { code, stderr } = await noetl(["run", files[index]!], env);
        assert.equal(code, 2);
        says(stderr, [...PLAYBOOKS[index]![2], new RegExp(`bad-${index}\\.yaml`)]);
      }
    }));

  for (const [what, method, path, body, status, pattern] of REQUESTS) {
    it(`over HTTP, ${what}: ${status}`, () =>
      makesNothing(async () => {
        const answer = await server.ask(method, path, body);
        assert.equal(answer.status, status, JSON.stringify(answer.body));
        assert.match(JSON.stringify(answer.body), pattern);
        const { type, code } = answer.body["error"] as { type: string; code: number };
        assert.deepEqual([type, code], ["REJECTED", status]);
      }));
  }

  it("over HTTP, a body that is not JSON: 400", () =>
    makesNothing(async () => {
      const response = await fetch(`${server.url}/api/execute`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: '{"path": ',
      });
      assert.equal(response.status, 400);
      assert.match(await response.text(), /not JSON/);
    }));

  it("on the command line, each with exit code 2 and no stack", async () => {
    const file = join(folder, "good.yaml");
    await writeFile(file, GOOD);
    await makesNothing(async () => {
      const runs = COMMANDS.map(async ([what, words, pattern]) => {
        const { code, stderr } = await noetl(
          words.map(word => (word === "FILE" ? file : word)),
          env,
        );
        assert.equal(code, 2, `${what}: ${stderr}`);
        assert.match(stderr, pattern, what);
        assert.doesNotMatch(stderr, /^ +at .*:\d+:\d+/m, what);
      });
      await Promise.all(runs);
    });
  });

  it("an unknown credential fails its step, naming alias, step and remedy", async () => {
    const text = playbook(
      "  - {step: start, tool: {kind: postgres, auth: pg_nowhere, query: select 1}}\n",
    );
    const id = await submit(server, text, {});
    assert.equal((await ended(store.url, id)).status, "FAILED");
    await assertSound(store.url, id);
    const { body } = await server.ask("GET", `/executions/${id}`);
    const error = body["error"] as { message: string; step: string };
    assert.equal(error.step, "start");
    assert.match(error.message, /pg_nowhere/);
    assert.match(error.message, /NOETL_CREDENTIAL|noetl credential add|register/);
    const file = join(folder, "credential.yaml");
    await writeFile(file, text);
    const { code, stdout } = await noetl(["run", file, "--json"], env);
    assert.equal(code, 1);
    assert.equal((JSON.parse(stdout) as { status: string }).status, "FAILED");
  });
});
