// `noetl tail` and `noetl status --watch`: news as they come, here and over HTTP, to the end.
import { strict as assert } from "node:assert";
import type { CallOptions } from "../../cli/backend.ts";
import { tailing, type TailAnswer } from "../../cli/tail.ts";
import { Rejected, Unavailable } from "../../schemas/errors.ts";
import { startGate, type Gate } from "../support/gate.ts";
import { HEAD } from "../support/playbook-samples.ts";
import { testDatabase, type TestDatabase } from "../support/postgres.ts";
import {
  begin,
  endAll,
  newFolder,
  noetl,
  startServer,
  type NoetlServer,
} from "../support/process.ts";

const GATED = `${HEAD}workload: {gate: "", code: 200}
workflow:
  - step: each
    loop: {in: [1, 2, 3], iterator: n, spec: {mode: parallel, max_in_flight: 3}}
    tool: {kind: http, url: "{{ workload.gate }}"}
    next: {arcs: [{step: last}]}
  - step: last
    tool: {kind: http, url: "{{ workload.gate }}?last", timeout: 5}
`;
const BROKEN = `${HEAD}workflow:
  - {step: fails, tool: {kind: http, url: "http://127.0.0.1:1/", timeout: 1}}
`;

describe("noetl tail", function () {
  this.timeout(120_000);
  let database: TestDatabase;
  let server: NoetlServer;
  let gate: Gate;
  let env: Record<string, string>;
  before(async () => {
    database = await testDatabase({ migrated: true });
  });
  after(() => database.drop());
  beforeEach(async () => {
    gate = await startGate();
    env = { DATABASE_URL: database.url, NOETL_DATA_DIR: await newFolder() };
    server = await startServer(env);
  });
  afterEach(endAll);
  afterEach(() => gate.close());

  const there = (...args: string[]) => [...args, "--server-url", server.url];

  async function start(playbook = GATED): Promise<string> {
    const request = { playbook, payload: { gate: gate.url } };
    const { body } = await server.ask("POST", "/execute", request);
    return String(body["execution_id"]);
  }

  it("prints facts as they come, progress of loops, and the end; over HTTP", async () => {
    const id = await start();
    await gate.arrived(3);
    const tail = begin(there("tail", id), env);
    await tail.says(/playbook\.initialized[^]*step\.enter +each/);
    await tail.says(/… each 0\/3, 3 running/);
    gate.open(2);
    await tail.says(/… each 2\/3, 1 running/);
    gate.open();
    const { code, stdout } = await tail.ended;
    assert.equal(code, 0);
    assert.match(stdout, /command\.(claimed|issued) +last .*delivery=1 to \S+/, "who runs it");
    assert.match(stdout, /command\.completed +last[^]*playbook\.completed[^]*COMPLETED +demo\/one/);
  });

  it("prints JSON lines of the same facts without a server, and nothing else", async () => {
    const id = await start(BROKEN);
    const ended = await noetl(there("tail", id), env);
    assert.equal(ended.code, 1, "a run that FAILED");
    assert.match(
      ended.stdout,
      /command\.failed +fails +attempt=1 delivery=1 \S+/,
      "with its error",
    );
    const { code, stdout } = await noetl(["tail", id, "--json"], env);
    assert.equal(code, 1);
    const facts = stdout
      .trim()
      .split("\n")
      .map(line => JSON.parse(line) as { version: number });
    assert.deepEqual(
      facts.map(fact => fact.version),
      facts.map((_, index) => index + 1),
    );
    const types = facts.map(fact => (fact as unknown as { event_type: string }).event_type);
    assert.deepEqual([types[0], types.at(-1)], ["playbook.initialized", "playbook.failed"]);
  });

  it("goes on when the server was away for a moment", async () => {
    const id = await start();
    await gate.arrived(3);
    const tail = begin(there("tail", id), env);
    const watch = begin(there("status", id, "--watch"), env);
    await tail.says(/step\.enter +each/);
    await watch.says(/each 0\/3/);
    await server.kill();
    const again = begin(["start"], { ...env, NOETL_PORT: new URL(server.url).port });
    await again.says(/serves/);
    gate.open();
    const [shown, watched] = await Promise.all([tail.ended, watch.ended]);
    assert.deepEqual([shown.code, watched.code], [0, 0], shown.stderr + watched.stderr);
    assert.match(shown.stdout, /playbook\.completed/);
    assert.equal(shown.stdout.match(/playbook\.initialized/g)?.length, 1, "each fact once");
    assert.match(watched.stdout, /COMPLETED +demo\/one/);
  });

  it("Ctrl-C leaves it at once, and the run goes on", async () => {
    const id = await start();
    await gate.arrived(3);
    const tail = begin(there("tail", id), env);
    await tail.says(/step\.enter +each/);
    tail.signal("SIGINT");
    const { code, stderr } = await tail.ended;
    assert.equal(code, 130);
    assert.match(stderr, new RegExp(`noetl tail ${id}`));
    const { body } = await server.ask("GET", `/executions/${id}`);
    assert.equal(body["status"], "RUNNING");
  });

  it("refuses an execution that is not there with 2", async () => {
    const { code, stderr } = await noetl(there("tail", "12"), env);
    assert.deepEqual([code, /there is no execution 12/.test(stderr)], [2, true]);
  });
});

describe("tailing", () => {
  const answer = (version: number, ended = false): TailAnswer => ({
    ...{ events: [], version, seen: `s${version}`, ended },
    execution: { execution_id: "1", path: "p", status: ended ? "COMPLETED" : "RUNNING" },
  });

  /** A backend that answers from a list, and notes what it was asked. */
  function listed(answers: (TailAnswer | Error)[]) {
    const asked: Record<string, unknown>[] = [];
    async function call<T>(_action: string, params: Record<string, unknown>, _o?: CallOptions) {
      asked.push(params);
      const next = answers.shift();
      if (!next) return new Promise<T>(() => undefined);
      if (next instanceof Error) throw next;
      return next as T;
    }
    const nothing = () => Promise.resolve();
    return { asked, backend: { call, drain: nothing, close: nothing } };
  }

  async function all(tail: AsyncGenerator<TailAnswer>): Promise<number[]> {
    const versions: number[] = [];
    for await (const { version } of tail) versions.push(version);
    return versions;
  }

  it("asks from where it was, and stops at the end", async () => {
    const { asked, backend } = listed([answer(3), answer(5), answer(6, true)]);
    assert.deepEqual(await all(tailing(backend, "1")), [3, 5, 6]);
    assert.deepEqual(
      asked.map(({ after, seen }) => [after, seen]),
      [
        [0, undefined],
        [3, "s3"],
        [5, "s5"],
      ],
    );
  });

  it("asks again after an outage, not after a refusal, and not where nobody ever was", async () => {
    const away = new Unavailable("away");
    const { backend, asked } = listed([answer(3), away, answer(4, true)]);
    assert.deepEqual(await all(tailing(backend, "1")), [3, 4]);
    assert.deepEqual(asked[2], asked[1], "from the same place");
    await assert.rejects(all(tailing(listed([away]).backend, "1")), { type: "UNAVAILABLE" });
    const refused = listed([answer(3), new Rejected("no", 404)]).backend;
    await assert.rejects(all(tailing(refused, "1")), { type: "REJECTED" });
  });

  it("ends at once when nobody wants more, though a question is open", async () => {
    const leaving = new AbortController();
    const { backend } = listed([answer(3)]);
    const seen = all(tailing(backend, "1", { signal: leaving.signal }));
    setImmediate(() => leaving.abort());
    assert.deepEqual(await seen, [3]);
  });
});
