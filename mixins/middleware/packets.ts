// What other nodes send, before Moleculer believes it: what is no packet is dropped and counted.
import type { Middleware, ServiceBroker } from "moleculer";
import { isObject } from "../../schemas/json.ts";
import type { Metrics } from "../metrics.ts";

/** One line for so many dropped packets: a flood of them must not become a flood of logs. */
const DROPS_A_LINE = 100;
const TEXT_CHARS_MAX = 4_096;

type Check = (value: unknown) => boolean;
type Receive = (cmd: string, packet: { payload?: unknown }) => Promise<unknown>;
type ReceiveBytes = (cmd: string, data: Uint8Array) => unknown;

const isText: Check = value => typeof value === "string" && value.length <= TEXT_CHARS_MAX;
const isNumber: Check = value => typeof value === "number";
const maybe =
  (check: Check): Check =>
  value =>
    value === undefined || value === null || check(value);
const isTextList: Check = value => Array.isArray(value) && value.every(isText);
const isNamed: Check = value => isObject(value) && isText(value["name"]);
const isNamedMap: Check = value => isObject(value) && Object.values(value).every(isNamed);
const isService: Check = value =>
  isObject(value) &&
  isText(value["name"]) &&
  maybe(isText)(value["fullName"]) &&
  maybe(isNamedMap)(value["actions"]) &&
  maybe(isNamedMap)(value["events"]);
const isServiceList: Check = value => Array.isArray(value) && value.every(isService);
/** It becomes part of subjects, where spaces and line ends break the connection of the sender. */
const isNodeId: Check = value => typeof value === "string" && /^[^\s*>]{1,255}$/.test(value);

const traced = { meta: maybe(isObject), headers: maybe(isObject), requestID: maybe(isText) };

/** Fields that Moleculer uses without looking, by packet; there are no other packets. */
const FIELDS = new Map<string, Record<string, Check>>([
  ["REQ", { id: isText, action: isText, seq: maybe(isNumber), ...traced }],
  ["RES", { id: isText, seq: maybe(isNumber), error: maybe(isObject), ...traced }],
  ["EVENT", { event: isText, groups: maybe(isTextList), ...traced }],
  ["INFO", { instanceID: isText, services: isServiceList, seq: maybe(isNumber) }],
  ["HEARTBEAT", { cpu: maybe(isNumber), seq: maybe(isNumber), instanceID: maybe(isText) }],
  ["DISCOVER", {}],
  ["DISCONNECT", {}],
  ["PING", { time: isNumber, id: maybe(isText) }],
  ["PONG", { time: isNumber, arrived: isNumber, id: maybe(isText) }],
]);

/** Packets that a node never sends to itself. */
const TARGETED: ReadonlySet<string> = new Set(["REQ", "RES", "EVENT", "PONG"]);

/** The braces of an object in JSON. */
const OPEN = 0x7b;
const CLOSE = 0x7d;

/** What is wrong with a packet; undefined when it may pass. */
function faultOf(cmd: string, payload: unknown): string | undefined {
  const fields = FIELDS.get(cmd);
  if (!fields || !isObject(payload)) return "packet";
  if (!isNodeId(payload["sender"])) return "sender";
  for (const name in fields) if (!fields[name]?.(payload[name])) return name;
  return undefined;
}

/** Packets of one broker that were dropped since it was made. */
interface PacketCounters {
  malformed: number;
  /** Packets that another node sent under this node's name. */
  impostor: number;
  /** Packets that could not be worked off: the answer could not be sent, for example. */
  failed: number;
}

const counted = new WeakMap<ServiceBroker, PacketCounters>();

/** Says how many packets a guarded broker has dropped, and why. */
export function countPackets(metrics: Metrics, broker: ServiceBroker): void {
  const counters = counted.get(broker);
  if (!counters) return;
  metrics.counter(
    { name: "noetl_packets_dropped_total", help: "Messages of nodes that were not believed" },
    () => Object.entries(counters).map(([why, value]) => ({ labels: { why }, value })),
  );
}

/**
 * Drops packets that are not of Moleculer's protocol, which it would believe, and those that come
 * under this node's own name: to these it answers by ending the process.
 */
export function packetGuard(): Middleware {
  const counters: PacketCounters = { malformed: 0, impostor: 0, failed: 0 };
  let broker: ServiceBroker;

  function drop(why: keyof PacketCounters, fields: object): Promise<boolean> {
    counters[why] += 1;
    if (counters[why] % DROPS_A_LINE === 1) {
      const count = counters[why];
      broker.getLogger("packets").warn({ why, count, ...fields }, "packet.dropped");
    }
    return Promise.resolve(false);
  }

  /** Moleculer has a line for each message that it cannot parse: what is no object stays away. */
  function receiveBytes(next: ReceiveBytes): ReceiveBytes {
    return (cmd, data) => {
      if (data[0] === OPEN && data.at(-1) === CLOSE) return next(cmd, data);
      return drop("malformed", { cmd, bytes: data.length });
    };
  }

  function receive(next: Receive): Receive {
    return async (cmd, packet) => {
      const { payload } = packet;
      const field = faultOf(cmd, payload);
      if (field !== undefined) return drop("malformed", { cmd, field });
      const { sender, instanceID } = payload as { sender: string; instanceID?: string };
      if (sender === broker.nodeID) {
        // What it broadcasts comes back to it.
        const isEcho = cmd === "INFO" ? instanceID === broker.instanceID : !TARGETED.has(cmd);
        return isEcho || drop("impostor", { cmd, sender, instanceID });
      }
      try {
        return await next(cmd, packet);
      } catch (error) {
        return drop("failed", { cmd, sender, err: error });
      }
    };
  }

  return {
    name: "packets",
    created(made) {
      broker = made;
      counted.set(broker, counters);
    },
    // Their declared types are those of the results.
    transporterReceive: receiveBytes as never,
    transitMessageHandler: receive as never,
  };
}
