// Which node owns a stream: rendezvous hashing over the nodes that host its service. Ownership is
// only an optimisation: two nodes may believe they own one stream, and the database decides.
import type { ServiceBroker } from "moleculer";
import { errorType } from "../schemas/errors.ts";
import type { IdSource } from "../schemas/ids.ts";

/** A node that does not answer within this is passed over (design §5). */
const OWNER_PATIENCE_MS = 1_000;
/** A request that NATS loses is never answered: a node is given this long, then asked again. */
const REMOTE_MS = 5_000;
/** How long a list of hosts is used before it is looked up again. */
const HOSTS_KEPT_MS = 250;

/**
 * The node with the highest hash for a key; undefined when there is none. A new one moves only its
 * share.
 */
export function rendezvous(key: string, nodes: readonly string[]): string | undefined {
  if (nodes.length < 2) return nodes[0];
  let best: string | undefined;
  let highest = -1;
  for (const node of nodes) {
    const weight = hash(`${key}|${node}`);
    if (weight > highest || (weight === highest && node < (best ?? ""))) {
      highest = weight;
      best = node;
    }
  }
  return best;
}

/** FNV-1a with a final avalanche: keys that differ in one digit land far apart. */
function hash(text: string): number {
  let value = 0x811c9dc5;
  for (let index = 0; index < text.length; index += 1) {
    value = Math.imul(value ^ text.charCodeAt(index), 0x01000193);
  }
  value = Math.imul(value ^ (value >>> 16), 0x85ebca6b);
  value = Math.imul(value ^ (value >>> 13), 0xc2b2ae35);
  return (value ^ (value >>> 16)) >>> 0;
}

/** What one broker knows of the others. */
interface Directory {
  lists: Map<string, { nodes: string[]; until: number }>;
  /** Nodes that lately did not answer in time, until when they are passed over. */
  suspects: Map<string, number>;
}

const directories = new WeakMap<ServiceBroker, Directory>();
const SUSPECT_MS = 5_000;

function directoryOf(broker: ServiceBroker): Directory {
  let directory = directories.get(broker);
  if (!directory) {
    directory = { lists: new Map(), suspects: new Map() };
    directories.set(broker, directory);
  }
  return directory;
}

function suspect(broker: ServiceBroker, node: string): void {
  const { lists, suspects } = directoryOf(broker);
  suspects.set(node, performance.now() + SUSPECT_MS);
  lists.clear();
}

/** Nodes that host a service and are thought to be up. */
export function hostsOf(broker: ServiceBroker, service: string): string[] {
  const { lists, suspects } = directoryOf(broker);
  const list = lists.get(service);
  const now = performance.now();
  if (list && list.until > now) return list.nodes;
  const entries = broker.registry.getServiceList({ onlyAvailable: true, skipInternal: true }) as {
    name: string;
    nodeID: string;
  }[];
  const all = entries.filter(entry => entry.name === service).map(entry => entry.nodeID);
  const trusted = all.filter(node => (suspects.get(node) ?? 0) < now);
  const nodes = trusted.length > 0 ? trusted : all;
  lists.set(service, { nodes, until: now + HOSTS_KEPT_MS });
  return nodes;
}

/** Whether a node is up, as far as is known here, and offers this action. */
export function isOffered(broker: ServiceBroker, action: string, node: string): boolean {
  const registry = broker.registry as unknown as {
    getActionEndpointByNodeId(action: string, node: string): object | null | undefined;
  };
  return Boolean(registry.getActionEndpointByNodeId(action, node));
}

/** Nodes that are up, as far as is known here, and hear this event: one name a start of each. */
export function listenersOf(broker: ServiceBroker, event: string): string[] {
  const { events } = broker.registry as unknown as {
    events: { getAllEndpoints(event: string): { id: string; node: { instanceID?: string } }[] };
  };
  return events.getAllEndpoints(event).map(({ id, node }) => `${id} ${node.instanceID}`);
}

/** What Moleculer says of a node that is gone, stalled, or cut off. */
const UNREACHABLE = new Set([
  "REQUEST_TIMEOUT",
  "REQUEST_REJECTED",
  "SERVICE_NOT_FOUND",
  "SERVICE_NOT_AVAILABLE",
]);

/** No node answered: nothing is said about what was asked. */
export function isUnreachable(error: unknown): boolean {
  return UNREACHABLE.has(errorType(error));
}

/** NATS refused to take a message of this size: nobody has seen it. */
export function isTooLarge(error: unknown): boolean {
  return (error as { code?: unknown } | null)?.code === "MAX_PAYLOAD_EXCEEDED";
}

export interface OwnedCall<Params extends object> {
  service: string;
  action: string;
  params: Params;
  /** Milliseconds the work itself may take at a node that answers. */
  timeoutMs: number;
}

/**
 * Calls `service.action` at the owner of `key`. An owner that cannot be reached in time is passed
 * over for this node, when it hosts the service, else for any host: whoever decides, the database
 * has the last word. The call may then happen twice, so its action must be idempotent.
 */
export async function callOwner<Result, Params extends object>(
  broker: ServiceBroker,
  key: string,
  call: OwnedCall<Params>,
): Promise<Result> {
  const name = `${call.service}.${call.action}`;
  const hosts = hostsOf(broker, call.service);
  const owner = rendezvous(key, hosts);
  if (owner === undefined || owner === broker.nodeID) return at(undefined, call.timeoutMs);
  try {
    return await at(owner, Math.min(OWNER_PATIENCE_MS, call.timeoutMs));
  } catch (error) {
    const here = hosts.includes(broker.nodeID);
    // What fits into no message is decided by who has it, if that can decide at all.
    if (here && isTooLarge(error)) return at(broker.nodeID, call.timeoutMs);
    if (!isUnreachable(error)) throw error;
    suspect(broker, owner);
    const others = () => hostsOf(broker, call.service).filter(node => node !== owner);
    const other = here ? broker.nodeID : rendezvous(key, others());
    // Asking the same node again would only wait longer: who asks tries again, and finds who came.
    if (other === undefined) throw error;
    return at(other, call.timeoutMs);
  }

  function at(nodeID: string | undefined, timeoutMs: number): Promise<Result> {
    const here = hosts.length === 0 || nodeID === broker.nodeID || owner === broker.nodeID;
    const timeout = here ? timeoutMs : Math.min(timeoutMs, REMOTE_MS);
    return broker.call<Result, Params>(name, call.params, { timeout, ...(nodeID && { nodeID }) });
  }
}

/** Items of a batch by the key that names the owner of all of them: one call each. */
export function byOwner<Item extends { stream_id: string }>(
  broker: ServiceBroker,
  service: string,
  items: Item[],
): Item[][] {
  const hosts = hostsOf(broker, service);
  if (hosts.length < 2) return [items];
  return [...Map.groupBy(items, item => rendezvous(item.stream_id, hosts)).values()];
}

/** Ids tried for one that this node owns: with many nodes the last one must do. */
const OWNED_TRIES = 64;

/** A fresh stream id whose owner is this node: who starts a stream goes on with it. */
export function ownedId(ids: IdSource, broker: ServiceBroker, service: string): string {
  const hosts = hostsOf(broker, service);
  let id = ids.next();
  if (!hosts.includes(broker.nodeID)) return id;
  for (let tries = 0; tries < OWNED_TRIES; tries += 1) {
    if (rendezvous(id, hosts) === broker.nodeID) return id;
    id = ids.next();
  }
  return id;
}
