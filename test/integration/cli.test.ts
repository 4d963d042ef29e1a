/** The command line as a user meets it: real processes, a real database, signals, exit codes. */
import { strict as assert } from "node:assert";
import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { testDatabase } from "../support/postgres.ts";
import type { TestDatabase } from "../support/postgres.ts";

const CLI = fileURLToPath(new URL("../../cli/launcher.js", import.meta.url));
const HELLO = fileURLToPath(new URL("../../examples/hello.yaml", import.meta.url));

interface Outcome {
  code: number | null;
  stdout: string;
  stderr: string;
}

/** A page that answers when it is let go, and says when it was asked. */
interface Gate {
  url: string;
  asked: Promise<void>;
  open(): void;
  close(): Promise<void>;
}

async function startGate(): Promise<Gate> {
  const asked = Promise.withResolvers<void>();
  const opened = Promise.withResolvers<void>();
  const server: Server = createServer((_request, response) => {
    asked.resolve();
    void opened.promise.then(() => {
      response.setHeader("content-type", "application/json");
      response.end('{"ok": true}');
    });
  });
  await new Promise<void>(resolve => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    asked: asked.promise,
    open: () => opened.resolve(),
    async close() {
      const closed = new Promise(resolve => server.close(resolve));
      server.closeAllConnections();
      await closed;
    },
  };
}

function playbook(name: string, steps: string): string {
  return `apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: ${name}, path: test/${name}}
workload: {url: "http://127.0.0.1:1"}
workflow:
${steps}`;
}

const FETCH = playbook(
  "fetch",
  `  - step: first
    tool: {kind: http, url: "{{ workload.url }}", timeout: 30}
    next: {arcs: [{step: second}]}
  - step: second
    tool: {kind: noop, result: {done: true}}
`,
);

describe("noetl", function () {
  this.timeout(60_000);
  let database: TestDatabase;
  let folder: string;
  const running = new Set<ChildProcess>();

  before(async () => {
    database = await testDatabase({ migrated: true });
    folder = await mkdtemp(join(tmpdir(), "noetl-cli-"));
  });
  afterEach(() => {
    for (const child of running) child.kill("SIGKILL");
  });
  after(async () => {
    await database.drop();
    await rm(folder, { recursive: true, force: true });
  });

  function begin(args: string[], env: Record<string, string> = {}) {
    const child = spawn(process.execPath, [CLI, ...args], {
      cwd: folder,
      env: {
        PATH: process.env["PATH"],
        DATABASE_URL: database.url,
        NOETL_DATA_DIR: folder,
        ...env,
      },
      stdio: ["ignore", "pipe", "pipe"],
    });
    running.add(child);
    const seen = { stdout: "", stderr: "" };
    const listeners = new Set<() => void>();
    for (const name of ["stdout", "stderr"] as const) {
      child[name].on("data", (chunk: Buffer) => {
        seen[name] += chunk.toString();
        for (const listener of listeners) listener();
      });
    }
    const ended = new Promise<Outcome>(resolve => {
      child.once("close", code => {
        running.delete(child);
        resolve({ code, ...seen });
      });
    });
    /** Resolves when stderr has this. */
    function says(pattern: RegExp): Promise<string> {
      return new Promise(resolve => {
        function look() {
          if (!pattern.test(seen.stderr)) return;
          listeners.delete(look);
          resolve(seen.stderr);
        }
        listeners.add(look);
        look();
      });
    }
    return { child, ended, says };
  }
  const noetl = (args: string[], env?: Record<string, string>) => begin(args, env).ended;

  async function file(name: string, content: string): Promise<string> {
    const path = join(folder, name);
    await writeFile(path, content);
    return path;
  }

  it("run prints one object with --json and exits 0 when the playbook completed", async () => {
    const { code, stdout } = await noetl(["run", HELLO, "--set", "name=Ada", "--json"]);
    assert.equal(code, 0);
    const { execution_id, start_time, end_time, duration_ms, ...rest } = JSON.parse(
      stdout,
    ) as Record<string, unknown>;
    assert.match(String(execution_id), /^\d+$/);
    assert.ok(start_time && end_time && Number(duration_ms) >= 0);
    assert.deepEqual(rest, {
      path: "examples/hello",
      status: "COMPLETED",
      result: { greeting: "Hello, Ada!" },
      loop_progress: {},
    });
  });

  it("run sums up for people on stdout and keeps progress on stderr", async () => {
    const { code, stdout, stderr } = await noetl(["run", HELLO]);
    assert.equal(code, 0);
    assert.match(stdout, /^✔ COMPLETED {2}examples\/hello/);
    assert.match(stdout, /Hello, world!/);
    assert.doesNotMatch(stderr, /COMPLETED|warn|error/);
  });

  it("run exits 1 and names the step and the error when the playbook failed", async () => {
    const path = await file("fetch.yaml", FETCH);
    const people = await noetl(["run", path]);
    assert.equal(people.code, 1);
    assert.match(people.stdout, /✘ FAILED {2}test\/fetch[^]*step 'first': /);
    const json = await noetl(["run", path, "--json"]);
    assert.equal(json.code, 1);
    const view = JSON.parse(json.stdout) as { status: string; error: { step: string } };
    assert.deepEqual([view.status, view.error.step], ["FAILED", "first"]);
  });

  it("run exits 2 for a bad playbook, with file, line and hint, and starts nothing", async () => {
    const path = await file("bad.yaml", FETCH.replace("step: second}]", "step: secnd}]"));
    const { code, stdout, stderr } = await noetl(["run", path]);
    assert.deepEqual([code, stdout], [2, ""]);
    assert.match(stderr, /bad\.yaml:\d+:\d+/);
    assert.match(stderr, /second/);
    const json = await noetl(["run", path, "--json"]);
    const { error } = JSON.parse(json.stdout) as { error: { type: string; issues: object[] } };
    assert.deepEqual([error.type, error.issues.length], ["REJECTED", 1]);
  });

  it("exits 2 for what cannot be used, before anything is started", async () => {
    const unreachable = { DATABASE_URL: "postgres://u:p@127.0.0.1:1/x" };
    for (const args of [
      ["run", "no-such-file.yaml"],
      ["run", HELLO, "--payload", "[1]"],
      ["run", HELLO, "--set", "nothing"],
      ["frobnicate"],
      ["run"],
      ["exec", "a/b"],
      ["status", "7", "--server-url", "not a url"],
    ]) {
      const { code, stderr } = await noetl(args, unreachable);
      assert.equal(code, 2, args.join(" "));
      assert.doesNotMatch(stderr, /\n\s+at /, "no stack");
    }
    const { code, stderr } = await noetl(["list"], { NOETL_PORT: "many" });
    assert.deepEqual([code, /NOETL_PORT/.test(stderr)], [2, true]);
  });

  it("exits 3 when the database or server cannot be reached, and hides the password", async () => {
    const { code, stderr } = await noetl(["list"], {
      DATABASE_URL: "postgres://u:hunter2@127.0.0.1:1/x",
    });
    assert.equal(code, 3);
    assert.doesNotMatch(stderr, /hunter2/);
    const remote = await noetl(["list", "--server-url", "http://127.0.0.1:1"]);
    assert.equal(remote.code, 3);
    assert.match(remote.stderr, /nothing listens there/);
  });

  it("Ctrl-C lets running work finish, keeps the rest, and resume goes on to the end", async () => {
    const gate = await startGate();
    const path = await file("fetch.yaml", FETCH);
    const { child, ended, says } = begin(["run", path, "--set", `url=${gate.url}`]);
    await gate.asked;
    child.kill("SIGINT");
    await says(/Ctrl-C again cancels/);
    gate.open();
    const { code, stderr } = await ended;
    const id = /noetl resume (\d+)/.exec(stderr)?.[1] ?? "";
    assert.equal(code, 130, stderr);
    const between = await noetl(["status", id, "--json"]);
    assert.equal((JSON.parse(between.stdout) as { status: string }).status, "RUNNING");
    const resumed = await noetl(["resume", id, "--json"]);
    const view = JSON.parse(resumed.stdout) as { status: string; result: unknown };
    assert.deepEqual([resumed.code, view.status], [0, "COMPLETED"]);
    assert.deepEqual(view.result, { done: true });
    await gate.close();
  });

  it("Ctrl-C twice cancels the execution and exits 1", async () => {
    const gate = await startGate();
    const path = await file("fetch.yaml", FETCH);
    const args = ["run", path, "--set", `url=${gate.url}`, "--json"];
    const { child, ended, says } = begin(args, { NOETL_DRAIN_SECONDS: "3" });
    await gate.asked;
    child.kill("SIGINT");
    await says(/Ctrl-C again cancels/);
    // Signals closer together than this count as one: the launcher may pass on a second copy.
    await new Promise(resolve => setTimeout(resolve, 300));
    child.kill("SIGINT");
    const { code, stdout } = await ended;
    const view = JSON.parse(stdout) as { status: string };
    assert.deepEqual([code, view.status], [1, "CANCELLED"]);
    await gate.close();
  });

  it("register takes a folder, refuses what is bad by name and keeps the rest", async () => {
    const inner = await mkdtemp(join(folder, "playbooks-"));
    await writeFile(
      join(inner, "good.yaml"),
      playbook("good", "  - {step: s, tool: {kind: noop}}\n"),
    );
    await writeFile(join(inner, "bad.yml"), playbook("bad", "  - {step: s}\n"));
    await writeFile(join(inner, "other.yaml"), "kind: ConfigMap\n");
    const { code, stdout } = await noetl(["register", "-d", inner]);
    assert.equal(code, 2);
    assert.match(stdout, /✔ test\/good {2}version 1/);
    assert.match(stdout, /✘ .*bad\.yml/);
    assert.doesNotMatch(stdout, /other/);
    const again = await noetl(["register", join(inner, "good.yaml"), "--json"]);
    const [entry] = (JSON.parse(again.stdout) as { playbooks: Record<string, unknown>[] })
      .playbooks;
    assert.deepEqual([again.code, entry?.["version"], entry?.["created"]], [0, 1, false]);
    const ran = await noetl(["run", "catalog://test/good"]);
    assert.equal(ran.code, 0);
  });

  it("validate needs no database and lists every problem of every file", async () => {
    const bad = await file("bad2.yaml", playbook("bad2", "  - {step: s, tool: {kind: nop}}\n"));
    const { code, stdout } = await noetl(["validate", HELLO, bad], { DATABASE_URL: "" });
    assert.equal(code, 2);
    assert.match(stdout, /✔ .*hello\.yaml[^]*✘ .*bad2\.yaml {2}1 problem[^]*noop/);
  });

  it("strict refuses a python step where there is no Python, by step and field", async () => {
    const code = playbook("py", "  - {step: s, tool: {kind: python, code: result = 1}}\n");
    const py = await file("py.yaml", code);
    const absent = { NOETL_PYTHON: join(folder, "no-python") };
    for (const verb of ["validate", "register"]) {
      assert.equal((await noetl([verb, py], absent)).code, 0, verb);
      const { code, stdout } = await noetl([verb, "--strict", py], absent);
      assert.equal(code, 2, verb);
      assert.match(stdout, /py\.yaml:\d+:\d+: step 's', tool\.kind: python cannot run/, verb);
      assert.match(stdout, /NOETL_PYTHON '.*no-python' cannot be run .*install Python 3\.8/, verb);
      assert.equal((await noetl([verb, "--strict", HELLO], absent)).code, 0, verb);
    }
  });

  it("a server is asked with --server-url, and SIGTERM stops it with 0", async () => {
    const server = begin(["start"], { NOETL_PORT: "0" });
    const url = /serves (http:\/\/\S+)\/api/.exec(await server.says(/serves \S+/))?.[1] ?? "";
    const ask = (...args: string[]) => noetl([...args, "--server-url", url, "--json"]);
    assert.equal((await fetch(`${url}/health`)).status, 200);
    assert.equal((await ask("register", HELLO)).code, 0);
    const exec = await ask("exec", "examples/hello", "--set", "name=Eve", "--wait");
    const view = JSON.parse(exec.stdout) as Record<string, unknown>;
    assert.deepEqual([exec.code, view["result"]], [0, { greeting: "Hello, Eve!" }]);
    const id = String(view["execution_id"]);
    const status = await ask("status", id);
    assert.deepEqual(JSON.parse(status.stdout), view);
    const events = await ask("events", id, "--type", "playbook.completed");
    assert.equal((JSON.parse(events.stdout) as { events: object[] }).events.length, 1);
    const missing = await ask("exec", "examples/hallo");
    assert.equal(missing.code, 2);
    assert.match(missing.stderr, /examples\/hello/);
    const list = await noetl(["list"], { NOETL_SERVER_URL: url });
    assert.match(list.stdout, new RegExp(`${id} +COMPLETED`));
    server.child.kill("SIGTERM");
    assert.equal((await server.ended).code, 0);
  });

  it("start says that the port is taken and exits 3", async () => {
    const gate = await startGate();
    const { code, stderr } = await noetl(["start"], { NOETL_PORT: new URL(gate.url).port });
    assert.deepEqual([code, /in use/.test(stderr)], [3, true]);
    await gate.close();
  });

  it("config shows values and their sources, and no secret", async () => {
    const { stdout } = await noetl(["config", "--json"], { NATS_PASSWORD: "hunter2" });
    const { settings } = JSON.parse(stdout) as { settings: { name: string; value: string }[] };
    const url = settings.find(line => line.name === "DATABASE_URL");
    assert.deepEqual([url?.value, stdout.includes("hunter2")], ["***", false]);
  });

  it("credential add stores an alias sealed, and list shows no data", async () => {
    const key = {
      NOETL_ENCRYPTION_KEY: Buffer.from(crypto.getRandomValues(new Uint8Array(32))).toString(
        "base64",
      ),
    };
    const data = '{"db_host":"h","db_password":"hunter2"}';
    const added = await noetl(
      ["credential", "add", "pg_x", "--type", "postgres", "--data", data],
      key,
    );
    assert.equal(added.code, 0, added.stderr);
    const { stdout } = await noetl(["credential", "list"], key);
    assert.match(stdout, /pg_x +postgres/);
    assert.doesNotMatch(added.stdout + stdout, /hunter2/);
  });

  it("db migrate is done once and then has nothing to do", async () => {
    const { code, stdout } = await noetl(["db", "migrate"]);
    assert.deepEqual([code, stdout], [0, "Nothing to do.\n"]);
  });
});
