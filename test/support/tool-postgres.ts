// The postgres tool on a broker of its own, with a fresh database for it to work in.
import { strict as assert } from "node:assert";
import { ServiceBroker } from "moleculer";
import pg from "pg";
import { TargetPools } from "../../mixins/postgres/target.ts";
import { callTool } from "../../mixins/tool.ts";
import type { JsonObject } from "../../schemas/json.ts";
import type { ToolEnvelope } from "../../schemas/tool.ts";
import { postgresTool } from "../../services/tool.postgres/tool.postgres.service.ts";
import { testDatabase } from "./postgres.ts";

const command = {
  execution_id: "1",
  command_id: "2",
  step: "s",
  activation: 1,
  task: "t",
  idempotency_key: "1:s:1:t:1",
  attempt: 1,
  delivery: 1,
};

export interface PostgresToolUnderTest {
  url: string;
  /** Past PgBouncer, for what is about sessions and log-ins: those of PgBouncer serve anybody. */
  direct: string;
  broker: ServiceBroker;
  pools: TargetPools;
  /** A session beside the tool's, to look at the server. */
  admin: pg.Client;
  run(config: object, url?: string, signal?: AbortSignal): Promise<ToolEnvelope>;
  /** The last statement's rows; fails the test on an error envelope. */
  rowsOf(query: string, params?: unknown[]): Promise<JsonObject[]>;
  stop(): Promise<void>;
}

export async function startPostgresTool(): Promise<PostgresToolUnderTest> {
  const database = await testDatabase();
  const pools = new TargetPools({ poolMax: 5, maxPools: 3, directMax: 2 });
  const broker = new ServiceBroker({ logger: false, registry: { stopDelay: 0 } });
  broker.createService(postgresTool({ pools, resultMaxRows: 1000, resultMaxBytes: 1_000_000 }));
  await broker.start();
  const admin = new pg.Client(database.url);
  await admin.connect();
  const run: PostgresToolUnderTest["run"] = (config, url = database.url, signal) => {
    const auth = { type: "postgres", connection_string: url };
    const request = { config: { ...config }, input: {}, auth, command };
    return callTool(broker, "postgres", request, signal);
  };
  return {
    url: database.url,
    direct: database.direct,
    broker,
    pools,
    admin,
    run,
    async rowsOf(query, params) {
      const answer = await run({ query, params });
      assert.equal(answer.error, null);
      return dataOf(answer).rows as JsonObject[];
    },
    async stop() {
      await admin.end();
      await broker.stop();
      await pools.close();
      await database.drop();
    },
  };
}

export function dataOf(envelope: ToolEnvelope): JsonObject {
  return envelope.data as JsonObject;
}
