// `noetl repl` as a person uses it: typed into, through a pipe and on a terminal.
import { strict as assert } from "node:assert";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { startGate, type Gate } from "../support/gate.ts";
import { natsServerBinary, startNats } from "../support/nats.ts";
import { HEAD } from "../support/playbook-samples.ts";
import { testDatabase, type TestDatabase } from "../support/postgres.ts";
import { ROOT } from "../support/source-files.ts";
import { endAll, newFolder, noetl, startServer } from "../support/process.ts";
import {
  CTRL_C,
  CTRL_D,
  hasTerminal,
  typeOnTerminal,
  typeThroughPipe,
  type TypedRepl,
} from "../support/repl.ts";

const GREET = playbook(
  "t/greet",
  `workload: {name: nobody}
workflow:
  - {step: greet, tool: {kind: noop, result: {hello: "{{ workload.name }}"}}}
`,
);
const HOLD = held("t/hold");
/** A worker has the step: it has claimed it, or it was issued as its own. */
const HELD = /command\.(claimed +hold|issued +hold .*delivery=1)/;

/** Waits at the gate, and goes on to one more step. */
function held(path: string): string {
  return playbook(
    path,
    `workload: {gate: ""}
workflow:
  - step: hold
    tool: {kind: http, url: "{{ workload.gate }}"}
    next: {arcs: [{step: last}]}
  - {step: last, tool: {kind: noop, result: {done: true}}}
`,
  );
}

function playbook(path: string, rest: string): string {
  return HEAD.replace("demo/one", path) + rest;
}

/** By a command of Moleculer's own. */
async function register(repl: TypedRepl, content: string): Promise<void> {
  repl.type(`call catalog.register '${JSON.stringify({ content })}'\n`);
  await repl.says(/version: .*1/);
}

async function startOf(repl: TypedRepl, line: string): Promise<string> {
  repl.type(`${line}\n`);
  const [, id = ""] = await repl.says(/(\d{15,}) {2}started/);
  return id;
}

describe("noetl repl", function () {
  this.timeout(90_000);
  let database: TestDatabase;
  let gate: Gate;
  const open: TypedRepl[] = [];
  before(async () => void (database = await testDatabase({ migrated: true })));
  after(() => database.drop());
  beforeEach(async () => void (gate = await startGate()));
  afterEach(() => gate.close());
  afterEach(() => open.splice(0).forEach(repl => repl.kill()));
  afterEach(endAll);

  async function environment(more: Record<string, string> = {}): Promise<Record<string, string>> {
    return { DATABASE_URL: database.url, NOETL_DATA_DIR: await newFolder(), ...more };
  }

  function opened(repl: TypedRepl): TypedRepl {
    open.push(repl);
    return repl;
  }

  it("runs a playbook here, shows it in every way, and leaves nothing behind", async () => {
    const folder = await newFolder();
    const repl = opened(typeThroughPipe({ NOETL_DATA_DIR: folder }));
    await repl.says(/Everything runs in this process/);
    await register(repl, GREET);
    const id = await startOf(repl, `exec t/greet --set name='"Ada L"'`);
    repl.type(`tail ${id}\n`);
    await repl.says(/playbook\.initialized +greet\n.*command\.issued[^]*playbook\.completed/);
    await repl.says(new RegExp(`COMPLETED[^]*execution ${id}[^]*"hello":"Ada L"`));
    repl.type("executions --limit 1 --status completed\n");
    await repl.says(new RegExp(`EXECUTION[^]*${id} +COMPLETED`));
    repl.type(`status ${id}\nworkers\n`);
    await repl.says(/COMPLETED +t\/greet/);
    await repl.says(/WORKER[^]*ready +0 of 8/);
    repl.type("limits\n");
    await repl.says(/No limits; set one with: noetl limits set http:host:/);
    assert.ok(existsSync(join(folder, "keeper.json")), "Postgres runs");
    repl.type("exit\n");
    assert.equal(await repl.ended, 0, repl.said);
    assert.ok(!existsSync(join(folder, "keeper.json")), "Postgres has stopped");
  });

  it("runs what comes through a pipe line by line, to the end of each", async () => {
    const repl = opened(typeThroughPipe(await environment()));
    await repl.says(/Everything runs in this process/);
    await register(repl, HOLD);
    repl.type(`exec t/hold --set gate=${gate.url} --wait\nexecutions --limit 1\n`);
    repl.end();
    await gate.arrived(1);
    gate.open();
    await repl.says(/COMPLETED +t\/hold[^]*EXECUTION[^]*COMPLETED +2[^]*t\/hold/);
    await repl.says(/Stopping/);
    assert.equal(await repl.ended, 0, repl.said);
  });

  it("says what is wrong with a command in a line, without a stack", async () => {
    const repl = opened(typeThroughPipe(await environment()));
    await repl.says(/Everything runs in this process/);
    const answers: [string, RegExp][] = [
      ["status 12", /there is no execution 12\n/],
      ["status twelve", /an id of 1 to 19 digits/],
      ["exec t/nope", /no playbook 't\/nope'/],
      ["exec t/nope --set name", /expected name=value/],
      ["exec t/nope --payload @-", /use @file/],
      ["executions --status lost", /one of RUNNING/],
      ["tail", /missing required argument 'id'/],
      ["cancel 12 --reason not needed any more", /no such execution/],
    ];
    for (const [line, answer] of answers) {
      repl.type(`${line}\n`);
      await repl.says(answer);
    }
    repl.end();
    assert.equal(await repl.ended, 0);
    assert.doesNotMatch(repl.said, /^ +at .*\(/m, "no stack");
  });

  it("Ctrl-C ends a tail, not the REPL; Ctrl-D leaves the terminal as it was", async function () {
    if (!hasTerminal()) return this.skip();
    const repl = opened(typeOnTerminal(await environment(), "stty -a"));
    await repl.says(/noetl \$ /);
    await register(repl, HOLD);
    const id = await startOf(repl, `exec t/hold --set gate=${gate.url}`);
    repl.type(`tail ${id}\n`);
    await repl.says(HELD);
    repl.type(CTRL_C);
    await repl.says(/The execution goes on by itself/);
    assert.doesNotMatch(repl.said, /To exit, press/, "the REPL has not heard the key");
    repl.type(`status ${id}\n`);
    await repl.says(/RUNNING +t\/hold/);
    repl.type(`cancel ${id} --reason enough of it\n`);
    await repl.says(new RegExp(`${id} +(cancel requested|CANCELLED)`));
    repl.type(`tail ${id}\n`);
    await repl.says(/execution\.cancel_requested[^]*CANCELLED +t\/hold/);
    repl.type(CTRL_D);
    await repl.says(/left with 0/);
    await repl.says(/[^-]icanon[^]*[^-]echo /);
    assert.equal(await repl.ended, 0);
  });

  it("gives its commands to a runner of Moleculer, beside the runner's own", async () => {
    const config = join(ROOT, "moleculer.config.ts");
    const runner = join(ROOT, "node_modules/moleculer/bin/moleculer-runner.js");
    const env = { NOETL_DATA_DIR: await newFolder(), NOETL_LOG_LEVEL: "error" };
    const repl = opened(typeThroughPipe(env, [runner, "--repl", "--config", config]));
    repl.type("help\n");
    await repl.says(/nodes[^]*executions[^]*exec [^]*status [^]*tail [^]*cancel [^]*workers/);
    repl.type("status 12\n");
    await repl.says(/'executions\.get' is not found\.\n.*show who is there/);
    repl.end();
    assert.equal(await repl.ended, 0, repl.said);
  });

  it("joins a cluster with nothing but NATS_URL, and says when there is none", async function () {
    const binary = natsServerBinary();
    if (!binary) return this.skip();
    const nats = await startNats(binary);
    const server = await startServer(await environment({ NATS_URL: nats.url }));
    const repl = opened(typeThroughPipe({ NATS_URL: nats.url, NOETL_DATA_DIR: await newFolder() }));
    await repl.says(/Joined 'noetl' as .*\. 'help'/);
    repl.type("nodes\n");
    await repl.says(/ONLINE[^]*ONLINE/);
    await register(repl, held("t/there"));
    const id = await startOf(repl, `exec t/there --set gate=${gate.url}`);
    await gate.arrived(1);
    repl.type(`tail ${id}\n`);
    await repl.says(HELD);
    gate.open();
    await repl.says(/playbook\.completed[^]*COMPLETED +t\/there/);
    repl.end();
    assert.equal(await repl.ended, 0);
    assert.equal((await server.ask("GET", `/executions/${id}`)).body["status"], "COMPLETED");
    server.signal("SIGTERM");
    await server.ended;
    await nats.stop();
    const alone = await noetl(["repl"], { NATS_URL: nats.url });
    assert.deepEqual([alone.code, /NATS cannot be reached/.test(alone.stderr)], [3, true]);
  });
});
