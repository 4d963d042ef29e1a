// Three ways to report an outcome, one log: what the stream of events may lose, repeat or refuse.
import { strict as assert } from "node:assert";
import { connect, createInbox, headers, type JetStreamManager, type NatsConnection } from "nats";
import { EventSender } from "../../mixins/event-sender.ts";
import {
  ANSWER_TO,
  EVENT_CONSUMER,
  EVENTS_BYTES_MAX,
  eventSubject,
  reconcileEventStream,
} from "../../mixins/event-stream.ts";
import { openDatabase } from "../../mixins/postgres/index.ts";
import { openResultStore } from "../../mixins/result-store/open.ts";
import type { NatsPort } from "../../mixins/jetstream.ts";
import type { OutcomeRequest } from "../../mixins/actor-service.ts";
import { eventOf, type Granted } from "../../mixins/worker-events.ts";
import { loadSettings } from "../../schemas/env.ts";
import { ask, until } from "../support/actors.ts";
import { ended, type TestNode } from "../support/node.ts";
import { testNodes, type TestNodes } from "../support/nodes.ts";
import { HEAD } from "../support/playbook-samples.ts";

/** Steps of every kind of report: plain, failed and handled, with variables, large, in frames. */
const STORY = `${HEAD}workload: {text: "${"x".repeat(200)}"}
workflow:
  - step: first
    tool: {kind: noop}
    set: {ctx.seen: "{{ workload.text }}"}
    next: {arcs: [{step: fails}]}
  - step: fails
    tool: {kind: http, url: "http://127.0.0.1:1/nobody"}
    next: {arcs: [{step: frames, when: "{{ event.name == 'call.error' }}"}]}
  - step: frames
    loop: {in: 100, iterator: i, spec: {mode: parallel, max_in_flight: 2, frame: {max_rows: 4}}}
    tool: {kind: noop}
    next: {arcs: [{step: each}]}
  - step: each
    loop: {in: [a, b, c], iterator: one, spec: {mode: sequential}}
    tool: {kind: noop}
`;

const ONE = `${HEAD}workflow:
  - {step: one, tool: {kind: noop}}
`;

/** What is the same in every run of one story: frames take what they take. */
const ROWS = `
  select event_type, node_name,
         meta - array['worker_id','incarnation','claim_id','loop_id','command_id','hash',
                      'digest','first','count','ok','failed','request_id','version'] as meta,
         result #- '{error,message}' #- '{reference,ref}' as result
  from noetl.event
  where execution_id = $1 and not (node_name = 'frames' and event_type ~ '^(command|frame)')
  order by event_id`;

const settings = loadSettings({});
const STREAM = settings.events.stream;

type Way = "call" | "nats" | "http";

describe("the transport of events", function () {
  this.timeout(90_000);
  let nodes: TestNodes | undefined;
  let server: TestNode;
  let url: string;
  let connection: NatsConnection;
  let manager: JetStreamManager;
  before(async function () {
    nodes = await testNodes();
    if (!nodes) return this.skip();
    const env = { NOETL_LOG_LEVEL: "fatal" };
    server = await nodes.start({ roles: ["server", "api"], env });
    ({ url } = await server.call<{ url: string }>("api.address"));
    connection = await connect({ servers: nodes.nats.url });
    manager = await connection.jetstreamManager();
    await until(() => manager.streams.info(STREAM).catch(() => false), 10_000);
  });
  after(async () => {
    await connection?.close();
    await nodes?.close();
  });

  function environment(way: Way): Record<string, string> {
    const http: Record<string, string> =
      way === "http" ? { NATS_URL: "", NOETL_SERVER_URL: url } : {};
    return { NOETL_EVENT_TRANSPORT: way, NOETL_WORKER_MAX_INFLIGHT_COMMANDS: "1", ...http };
  }

  const messages = async () => (await manager.streams.info(STREAM)).state.last_seq;

  /** Everything in the stream is settled. */
  async function settled(): Promise<void> {
    await until(async () => {
      const { num_pending, num_ack_pending } = await manager.consumers.info(STREAM, EVENT_CONSUMER);
      return num_pending + num_ack_pending === 0;
    }, 10_000);
  }

  /** A run whose one command a worker of somebody else has claimed. */
  async function claimed() {
    const { execution_id } = await server.call<{ execution_id: string }>("executions.start", {
      playbook: ONE,
    });
    const command_id = `${execution_id}:one:1:1`;
    const claim = { command_id, worker_id: "stranger", incarnation: "i1" };
    const { delivery } = await server.call<{ delivery: number }>("commands.claim", claim);
    const ids = { command_id, delivery, worker_id: "stranger", stream_id: execution_id };
    return { execution_id, ids };
  }

  /** Publishes, and gives what its owner says about it. */
  async function told(executionId: string, body: object, msgID: string): Promise<Granted[]> {
    const inbox = createInbox();
    const answers = connection.subscribe(inbox, { max: 1, timeout: 10_000 });
    const header = headers();
    header.set(ANSWER_TO, inbox);
    const subject = eventSubject(settings, executionId);
    await connection.jetstream().publish(subject, JSON.stringify(body), { msgID, headers: header });
    for await (const { data } of answers) {
      return (JSON.parse(Buffer.from(data).toString()) as { results: Granted[] }).results;
    }
    throw new Error("nobody answers");
  }

  it("leaves the same rows, whichever it is", async () => {
    const logs: Record<string, unknown[]> = {};
    for (const way of ["call", "nats", "http"] as const) {
      const worker = await nodes!.start({ roles: ["worker"], env: environment(way) });
      const before = await messages();
      const view = await server.run(STORY);
      assert.equal(view.status, "FAILED", "a handled failure fails the run");
      const count = (await messages()) - before;
      assert.equal(count > 10, way === "nats", `${count} messages over ${way}`);
      logs[way] = await ask(nodes!.database.url, ROWS, [view.execution_id]);
      await worker.stop();
    }
    assert.ok(logs["call"]!.length > 10);
    assert.deepEqual(logs["nats"], logs["call"]);
    assert.deepEqual(logs["http"], logs["call"]);
  });

  it("takes what a worker of others says, and the same again changes nothing", async () => {
    const { execution_id, ids } = await claimed();
    const body = { events: [{ event_type: "command.completed", ...ids }] };
    const [first] = await told(execution_id, body, `${execution_id}:1`);
    assert.equal(first?.status, "ok");
    const [again] = await told(execution_id, body, `${execution_id}:2`);
    assert.deepEqual(
      [again?.status, (again as { reason?: string }).reason],
      ["refused", "settled"],
    );
    const terminals = `select count(*)::integer as n from noetl.event
                       where execution_id = $1 and event_type = 'command.completed'`;
    assert.deepEqual(await ask(nodes!.database.url, terminals, [execution_id]), [{ n: 1 }]);
    await settled();
  });

  it("says which entry it cannot take, and drops what is no message", async () => {
    const { execution_id, ids } = await claimed();
    const events = [
      { event_type: "playbook.completed" },
      { event_type: "command.completed", ...ids },
    ];
    const [bad, good] = await told(execution_id, { events }, `${execution_id}:1`);
    assert.deepEqual([bad?.status, good?.status], ["refused", "ok"]);
    const subject = eventSubject(settings, execution_id);
    for (const trash of [
      "{",
      "[]",
      '{"events":5}',
      '{"reference":{"ref":"noetl://execution/1/x"}}',
    ]) {
      await connection.jetstream().publish(subject, trash);
    }
    await settled();
  });

  it("holds back what no owner can take now, and takes it when one can", async () => {
    const { execution_id, ids } = await claimed();
    // Its owner can decide nothing meanwhile.
    await ask(nodes!.database.url, "alter table noetl.event rename to event_away");
    const body = { events: [{ event_type: "command.completed", ...ids }] };
    const answer = told(execution_id, body, `${execution_id}:1`);
    await until(async () => {
      const { num_ack_pending } = await manager.consumers.info(STREAM, EVENT_CONSUMER);
      return num_ack_pending === 1;
    });
    await ask(nodes!.database.url, "alter table noetl.event_away rename to event");
    const [reply] = await answer;
    assert.notEqual(reply?.status, "refused");
    const view = await ended(server.broker, execution_id);
    assert.equal(view.status, "COMPLETED");
    await settled();
  });

  describe("when NATS takes a message and is emptied before a server has read it", () => {
    const env = { NOETL_EVENT_NATS_STREAM: "UNREAD", NOETL_EVENT_NATS_SUBJECT_PREFIX: "unread" };
    const unread = loadSettings(env);
    const nats: NatsPort = {
      line: () => ({ connection, client: connection.jetstream() }),
      lost: () => new AbortController().signal,
    };
    const results = { put: () => assert.fail("it is small") } as never;

    async function outcome(): Promise<OutcomeRequest> {
      await reconcileEventStream(manager, unread);
      const { execution_id, ids } = await claimed();
      return { execution_id, ...ids, result: { status: "ok" } };
    }

    /** The way by calls. */
    const called = async (outcomes: OutcomeRequest[]) =>
      (
        await server.call<{ results: Granted[] }>("commands.report", {
          events: outcomes.map(eventOf),
        })
      ).results;

    async function statusAfter(report: () => Promise<Granted[]>, one: OutcomeRequest) {
      const replies = report();
      await until(async () => (await manager.streams.info("UNREAD")).state.messages === 1, 5_000);
      await manager.streams.purge("UNREAD");
      const [reply] = await replies;
      const { execution_id } = one;
      const params = { execution_id, timeout_ms: 1_000 };
      const view = await server.call<{ status: string }>("executions.wait", params);
      return [reply?.status, view.status];
    }

    it("the worker keeps the outcome, and tells its owner by another way", async () => {
      const one = await outcome();
      const sender = new EventSender({ nats, settings: unread, results });
      const ends = await statusAfter(() => sender.report([one], called), one);
      assert.deepEqual(ends, ["ok", "COMPLETED"]);
      assert.deepEqual(sender.counters, { settled: 0, unsettled: 1 });
      // The same once more is no second message: it is asked for at once.
      assert.equal((await sender.report([one], called))[0]?.status, "refused");
      assert.equal((await manager.streams.info("UNREAD")).state.messages, 0);
    });

    it("one that trusts the stream's own acknowledgement would lose it", async () => {
      const one = await outcome();
      const trusting = async () => {
        const subject = eventSubject(unread, one.execution_id);
        await connection.jetstream().publish(subject, JSON.stringify({ events: [eventOf(one)] }));
        return [{ command_id: one.command_id, status: "ok" as const }];
      };
      assert.deepEqual(await statusAfter(trusting, one), ["ok", "RUNNING"]);
    });
  });

  it("carries what does not fit into 64 KB by reference", async () => {
    const { execution_id, ids } = await claimed();
    const { url: store } = nodes!.database;
    const database = openDatabase({ url: store, size: 1 });
    const results = openResultStore(loadSettings({ DATABASE_URL: store }), database);
    const port: NatsPort = {
      line: () => ({ connection, client: connection.jetstream() }),
      lost: () => new AbortController().signal,
    };
    const context = "y".repeat(EVENTS_BYTES_MAX);
    const large = { execution_id, ...ids, result: { status: "ok" as const, context } };
    const sender = new EventSender({ nats: port, settings, results });
    const [reply] = await sender.report([large], () => assert.fail("its owner was not heard of"));
    await database.close();
    assert.equal(reply?.status, "ok");
    const { state } = await manager.streams.info(STREAM);
    const message = await manager.streams.getMessage(STREAM, { seq: state.last_seq });
    assert.deepEqual(Object.keys(message.json<object>()), ["reference"]);
    assert.equal((await ended(server.broker, execution_id)).status, "COMPLETED");
    const told = await server.call<{ value: string }>("executions.result", { execution_id });
    assert.ok(told.value === context, "another value came");
  });
});
