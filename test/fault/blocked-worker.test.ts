// A worker that is blocked is killed: what waited still waits in the stream, and none of it was in
// the worker's memory.
import { strict as assert } from "node:assert";
import { connect, type ConsumerInfo, type NatsConnection } from "nats";
import { ownLaneOf } from "../../mixins/jetstream-config.ts";
import { loadSettings } from "../../schemas/env.ts";
import { until } from "../support/actors.ts";
import { block, BLOCKED, stands, type Block } from "../support/blocked.ts";
import { needsNats, SHORT_LEASES, startCluster, type Cluster } from "../support/cluster.ts";
import { assertSound } from "../support/log-checker.ts";
import { endAll } from "../support/process.ts";
import { ended, inFlight, submit } from "../support/submitted.ts";

const ITEMS = 40;
/** Of the database class: as many as the worker may have. */
const RUNNING = 4;

describe("a blocked worker", function () {
  this.timeout(120_000);
  let cluster: Cluster;
  let connection: NatsConnection;
  let gate: Block;

  before(needsNats);
  afterEach(endAll);
  afterEach(() => gate?.open().catch(() => undefined));
  afterEach(() => connection?.close());
  afterEach(() => cluster?.close());

  const rings = async (consumer = "noetl_worker_pool_db"): Promise<ConsumerInfo> =>
    (await connection.jetstreamManager()).consumers.info("NOETL_COMMANDS", consumer);
  const taken = async (consumer?: string) => (await rings(consumer)).num_ack_pending;

  it("that is killed leaves every waiting ring pending, and another does all of it", async () => {
    const env = { ...SHORT_LEASES, NOETL_RERING_SECONDS: "60" };
    cluster = await startCluster({ servers: 1, workers: 1, env });
    connection = await connect({ servers: cluster.nats.url });
    gate = await block(cluster.target.direct);
    const [server] = cluster.servers;
    const [worker] = cluster.workers;
    const id = await submit(server!, BLOCKED, { n: ITEMS });
    await stands(gate, RUNNING);
    // What named the worker is for all after a while, and may have been claimed since.
    await until(async () => (await rings()).num_pending >= ITEMS - RUNNING);
    const { num_pending: waiting } = await rings();
    const { consumer } = ownLaneOf(loadSettings({}), "database", worker!.name);
    assert.deepEqual([await taken(), await taken(consumer)], [0, 0]);
    assert.equal((await inFlight(cluster.store.direct, id)).length, RUNNING);

    await worker!.kill();
    assert.ok((await rings()).num_pending >= waiting);
    assert.deepEqual([await taken(), await taken(consumer)], [0, 0]);

    await gate.open();
    await cluster.quiet(worker!);
    await cluster.addWorker();
    const { status, tookMs } = await ended(cluster.store.direct, id, 90_000);
    process.stdout.write(`      ${status} ${tookMs} ms after another worker began\n`);
    assert.equal(status, "COMPLETED");
    assert.equal(await gate.rows(), ITEMS);
    await assertSound(cluster.store.direct, id);
  });
});
