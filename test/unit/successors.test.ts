// A node that comes back under its name: what its predecessor was asked is answered by nobody.
import { strict as assert } from "node:assert";
import { ServiceBroker, type BrokerOptions } from "moleculer";
import { packetGuard } from "../../mixins/middleware/packets.ts";
import { successorWatch } from "../../mixins/middleware/successors.ts";

const PLAIN = {
  logger: false,
  transporter: "Fake",
  registry: { stopDelay: 0 },
} satisfies BrokerOptions;

describe("a question to a node that is replaced by another process of its name", () => {
  const brokers: ServiceBroker[] = [];
  const namespace = crypto.randomUUID();

  async function start(nodeID: string, options: BrokerOptions = {}): Promise<ServiceBroker> {
    const broker = new ServiceBroker({ ...PLAIN, nodeID, namespace, ...options });
    brokers.push(broker);
    if (nodeID === "server") {
      const never = () => new Promise(() => undefined);
      broker.createService({ name: "store", actions: { ask: never, hello: () => "here" } });
    }
    await broker.start();
    return broker;
  }
  afterEach(async () => {
    for (const broker of brokers.splice(0).reverse()) await broker.stop();
  });

  it("is lost at once, and the successor can be asked", async () => {
    const worker = await start("worker", { middlewares: [successorWatch()] });
    // A process that is killed says no farewell; this one does not end itself for its double.
    await start("server", { middlewares: [packetGuard()] });
    await worker.waitForServices("store");
    const answer = worker.call("store.ask", {}, { timeout: 10_000 });
    const lost = assert.rejects(answer, { type: "REQUEST_REJECTED" });
    await start("server", { middlewares: [packetGuard()] });
    await lost;
    assert.equal(await worker.call("store.hello"), "here");
  });
});
