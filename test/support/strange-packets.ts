// Packets that no Moleculer node sends: for a raw NATS connection, by what is wrong with them.
import { randomBytes } from "node:crypto";

export interface Strange {
  what: string;
  bodies: Uint8Array[];
}

const VER = "5";
const text = (value: string): Uint8Array => new TextEncoder().encode(value);
const json = (value: unknown): Uint8Array => text(JSON.stringify(value));
/** A list in a list in a list …, as text: nobody can write it. */
export const nested = (levels: number): string => "[".repeat(levels) + "]".repeat(levels);

/** Subjects of the protocol: those of one node, and those that all nodes hear. */
export function subjectsOf(namespace: string, node: string): string[] {
  const own = ["REQ", "RES", "EVENT", "INFO", "DISCOVER", "PING", "PONG"];
  const common = ["INFO", "HEARTBEAT", "DISCOVER", "DISCONNECT", "PING"];
  const prefix = `MOL-${namespace}`;
  return [
    ...own.map(type => `${prefix}.${type}.${node}`),
    ...common.map(type => `${prefix}.${type}`),
    `${prefix}.REQB.executions.claim`,
    `${prefix}.EVENTB.executions.execution.completed`,
  ];
}

const SENDERS: unknown[] = [
  "",
  null,
  5,
  {},
  [],
  "a b",
  "x\r\nPUB other 1\r\nx",
  "*",
  ">",
  "a".repeat(5_000),
];

/** Everything wrong at once and one after the other; sent to every subject. */
export function strangePackets(): Strange[] {
  const from = (fields: object) => json({ ver: VER, sender: "stranger", ...fields });
  return [
    {
      what: "bytes that are no JSON",
      bodies: ["", "{", "nul", "\0\0", '{"ver":"5",'].map(text).concat([randomBytes(300)]),
    },
    {
      what: "JSON that is no packet",
      bodies: ["null", "1", '"x"', "[]", "{}", "[[]]", "true", nested(100_000)].map(text),
    },
    {
      what: "another protocol",
      bodies: [{ sender: "s" }, { ver: "4", sender: "s" }, { ver: 5, sender: "s" }].map(json),
    },
    {
      what: "senders that are none",
      bodies: SENDERS.map(sender =>
        from({ sender, id: "1", action: "executions.list", event: "a", services: [], time: 1 }),
      ),
    },
    { what: "requests that are none", bodies: strangeRequests(from) },
    {
      what: "events that are none",
      bodies: [
        { event: null },
        { event: {}, groups: 5 },
        { event: "execution.completed", groups: "x", data: 5 },
        { event: "a.b", groups: [null, {}], broadcast: true },
        { event: "$node.disconnected", data: null, broadcast: true },
        { event: "worker.capacity", data: { worker_id: "w", slots: "x" }, broadcast: true },
        { event: "command.cancelled", data: "x", broadcast: true },
        { event: "projection.shown", data: { execution_ids: 5 }, broadcast: true },
      ].map(from),
    },
    {
      what: "answers to nobody's questions",
      bodies: [{ id: null }, { id: {}, error: 5 }, { id: "x", success: true, stream: true, seq: 3 }]
        .map(fields => ({ success: false, ...fields }))
        .map(from),
    },
    {
      what: "signs of life that are none",
      bodies: [
        { cpu: "x", seq: {}, instanceID: 5, time: {} },
        { seq: 1e300, instanceID: {}, time: "x", arrived: [] },
      ].map(from),
    },
    { what: "nodes that are none", bodies: strangeNodes(from) },
  ];
}

function strangeRequests(from: (fields: object) => Uint8Array): Uint8Array[] {
  const deep = nested(50_000);
  return [
    { id: null, action: null },
    { id: {}, action: {}, params: 5 },
    { id: "1", action: "nobody.knows" },
    { id: "2", action: "__proto__" },
    { id: "__proto__", action: "constructor", meta: 5 },
    { id: "3", action: "executions.claim", params: null, meta: 5, level: "x", timeout: "z" },
    { id: "4", action: "executions.claim", params: {}, stream: true, seq: 7 },
    { id: "5", action: "executions.claim", params: {}, seq: -5, headers: 5 },
    { id: "6", action: "executions.report", params: { outcomes: [5, null, {}] } },
  ]
    .map(from)
    .concat(
      text(
        `{"ver":"5","sender":"stranger","id":"7","action":"executions.report",` +
          `"params":{"outcomes":[{"result":${deep}}]},"event":"a.b","data":${deep}}`,
      ),
    );
}

function strangeNodes(from: (fields: object) => Uint8Array): Uint8Array[] {
  return [
    { services: null },
    { services: 5, seq: 2 },
    { services: [null], seq: 3 },
    { services: [{ name: null, actions: 5 }], seq: 4 },
    { services: [{ name: "executions", actions: [null] }], seq: 5, instanceID: "a" },
    { services: [{ name: "x", actions: { a: null }, events: { b: null } }], instanceID: "b" },
    { services: [{ name: "x", actions: { a: { name: {} } } }], seq: 8, instanceID: 5 },
    { services: [{ name: "x", events: "x" }], seq: "x", instanceID: null },
  ].map(from);
}

/** What is said under the name of a node that is there. */
export function impostures(node: string): Uint8Array[] {
  return [
    { services: [], seq: 1e300, instanceID: "another" },
    { services: null, seq: 99 },
    { services: [null], instanceID: {} },
    { id: "1", action: "executions.list", params: {}, event: "a.b", time: 1, arrived: 1 },
  ].map(fields => json({ ver: VER, sender: node, ...fields }));
}

/** Messages on the subject of the rings that are no rings, or rings of nothing. */
export function strangeRings(): Uint8Array[] {
  const ring = {
    execution_id: "1",
    stream_id: "1",
    actor: "executions",
    command_id: "1:a:1:1",
    step: "a",
    kind: "noop",
    delivery: 0,
  };
  const changes: object[] = [
    {},
    { execution_id: "99999999999999999999", stream_id: "abc" },
    { stream_id: {} },
    { actor: "reaper" },
    { actor: "loops", command_id: "x" },
    { command_id: ["1"] },
    { command_id: "" },
    { step: null },
    { kind: 5, delivery: "many" },
    { kind: "nothing", delivery: -1, more: nested(500) },
  ];
  return [
    ...changes.map(change => json({ ...ring, ...change })),
    ...["", "null", "5", "[]", "{", "\0"].map(text),
    randomBytes(200),
    json({ ...ring, step: "x".repeat(3_500) }),
    json({ ...ring, step: "x".repeat(20_000) }),
  ];
}

/** A request for an action, and the subject on which its answer comes. */
export function request(namespace: string, node: string, action: string) {
  const sender = `asker-${randomBytes(4).toString("hex")}`;
  const fields = { id: "1", action, params: {}, meta: {}, level: 1, tracing: null };
  return {
    subject: `MOL-${namespace}.REQ.${node}`,
    answers: `MOL-${namespace}.RES.${sender}`,
    body: json({ ver: VER, sender, ...fields }),
  };
}
