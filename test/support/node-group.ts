// Several nodes in this process over one NATS and one database, and a stranger who calls them.
import { randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ServiceBroker } from "moleculer";
import type { Role } from "../../cli/runtime.ts";
import { until } from "./actors.ts";
import { startNats, type TestNats } from "./nats.ts";
import { startNode, type TestNode } from "./node.ts";
import { testDatabase, type TestDatabase } from "./postgres.ts";

export interface NodeGroup {
  readonly database: TestDatabase;
  readonly nats: TestNats;
  readonly namespace: string;
  /** Subject of the rings. */
  readonly subject: string;
  readonly nodes: TestNode[];
  /** Calls an action on the node with this place in `nodes`, as a far-away node does. */
  on<T = never>(node: number, action: string, params?: object): Promise<T>;
  stop(): Promise<void>;
}

export interface GroupOptions {
  /** The nats-server to use. */
  binary: string;
  /** One node for each list of roles. */
  roles: Role[][];
  env?: Record<string, string>;
}

/** Starts the nodes; resolves when the stranger knows all of them. */
export async function startGroup({ binary, roles, env }: GroupOptions): Promise<NodeGroup> {
  const nats = await startNats(binary);
  const database = await testDatabase({ migrated: true });
  const mark = randomBytes(4).toString("hex");
  const [namespace, subject] = [`t${mark}`, `rings.${mark}`];
  const shared = {
    NATS_URL: nats.url,
    NATS_STREAM: `S${mark}`,
    NATS_SUBJECT: subject,
    NOETL_NAMESPACE: namespace,
    NOETL_ENCRYPTION_KEY: randomBytes(32).toString("base64"),
    ...env,
  };
  // Results are files of a folder that all of them see.
  const dataDir = await mkdtemp(join(tmpdir(), "noetl-group-"));
  const nodes = await Promise.all(
    roles.map(one => startNode({ url: database.url, dataDir, roles: one, env: shared })),
  );
  const stranger = new ServiceBroker({
    namespace,
    nodeID: `stranger-${mark}`,
    transporter: { type: "NATS", options: { servers: [nats.url] } },
    logger: false,
    registry: { stopDelay: 0 },
    skipProcessEventRegistration: true,
  });
  await stranger.start();
  await Promise.all([stranger, ...nodes.map(node => node.broker)].map(each => knows(each, nodes)));
  return {
    database,
    nats,
    namespace,
    subject,
    nodes,
    on: (node, action, params = {}) => {
      const nodeID = nodes[node]?.broker.nodeID;
      return stranger.call(action, params, { nodeID, timeout: 60_000 });
    },
    async stop() {
      await stranger.stop();
      await Promise.all(nodes.map(node => node.stop()));
      await nats.stop();
      await database.drop();
      await rm(dataDir, { recursive: true, force: true, maxRetries: 5 });
    },
  };
}

/** Waits until a broker has heard of the services of every node. */
async function knows(broker: ServiceBroker, nodes: TestNode[]): Promise<void> {
  await until(() => {
    const list = broker.registry.getServiceList({ onlyAvailable: true }) as { nodeID: string }[];
    const heard = new Set(list.map(({ nodeID }) => nodeID));
    return nodes.every(node => heard.has(node.broker.nodeID));
  }, 10_000);
}
