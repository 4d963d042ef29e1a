// Outcomes over JetStream (S-200): a thousand iterations at work at a time, each a command of its
// own, and how long it takes from the stream's having an outcome to the commit of its row.
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import type { ServiceBroker } from "moleculer";
import { connect, type NatsConnection } from "nats";
import type { Database } from "../mixins/postgres/index.ts";
import { loadSettings } from "../schemas/env.ts";
import { runToEnd, WAITING } from "./workloads.ts";
import type { Latency } from "./latency.ts";

export const AT_WORK = 1_000;
/** Of design S-200. */
export const COMMIT_P99_MS = 50;
/** An item waits as long as this up to three times as long: 500 outcomes a second, and 250. */
export const LEAST_MS = [1_000, 2_000] as const;
/** Spreads neighbours: a prime to the spread. */
const STRIDE = 7_919;

/** What workers need that all of `AT_WORK` can be at work, in `workers` processes. */
export function transportEnv(workers: number): Record<string, string> {
  const each = String(AT_WORK / workers);
  return {
    NOETL_EVENT_TRANSPORT: "nats",
    NOETL_WORKER_MAX_INFLIGHT_COMMANDS: each,
    NOETL_WORKER_MAX_INFLIGHT_DB_COMMANDS: "8",
    NOETL_HTTP_CONCURRENCY: each,
    NOETL_HTTP_MAX_CONNECTIONS: each,
  };
}

/** Runs the loop, each item of which waits so long, and reads both ends of each outcome's way. */
export async function publishToCommit(
  { broker, natsUrl }: { broker: ServiceBroker; natsUrl: string },
  database: Database,
  { items, leastMs }: { items: number; leastMs: number },
): Promise<Latency & { most: number }> {
  const slow = createServer((request, response) => {
    const ms = leastMs + ((Number(request.url?.slice(1)) * STRIDE) % (2 * leastMs));
    setTimeout(() => response.end("{}"), ms);
  });
  await new Promise<void>(resolve => slow.listen(0, "127.0.0.1", resolve));
  const connection = await connect({ servers: natsUrl });
  try {
    const api = `http://127.0.0.1:${(slow.address() as AddressInfo).port}`;
    await broker.call("catalog.register", { content: WAITING });
    const watch = watchAtWork(slow);
    const id = await runToEnd(broker, "bench/waiting", { api, n: items, window: AT_WORK });
    const told = await outcomesOf(connection, id);
    return { ...(await delays(database, id, told)), most: watch() };
  } finally {
    await connection.close();
    slow.closeAllConnections();
    slow.close();
  }
}

/** Requests that were waited for at once, at most. */
function watchAtWork(server: ReturnType<typeof createServer>): () => number {
  let [open, most] = [0, 0];
  server.on("request", (_request, response) => {
    most = Math.max(most, (open += 1));
    response.once("close", () => (open -= 1));
  });
  return () => most;
}

/** When the stream got each command's outcome, milliseconds since 1970. */
async function outcomesOf(
  connection: NatsConnection,
  executionId: string,
): Promise<Map<string, number>> {
  const { stream } = loadSettings({}).events;
  const manager = await connection.jetstreamManager();
  const { state } = await manager.streams.info(stream);
  const told = new Map<string, number>();
  for (let seq = state.first_seq; seq <= state.last_seq; seq += 1) {
    const message = await manager.streams.getMessage(stream, { seq });
    if (!message.subject.endsWith(`.${executionId}`)) continue;
    const { events } = message.json<{ events: { command_id: string }[] }>();
    for (const { command_id } of events) {
      if (!told.has(command_id)) told.set(command_id, message.time.getTime());
    }
  }
  return told;
}

async function delays(
  database: Database,
  executionId: string,
  told: Map<string, number>,
): Promise<Latency> {
  const { rows } = await database.query<{ p50: number; p99: number; samples: number }>(
    `with told as (select * from unnest($2::text[], $3::float8[]) as t (command_id, ms)),
     delay as (
       select extract(epoch from pg_xact_commit_timestamp(e.tx::text::xid)) * 1000 - t.ms as ms
       from told t join noetl.event e on e.meta->>'command_id' = t.command_id
       where e.execution_id = $1 and e.event_type = 'command.completed')
     select percentile_cont(0.5) within group (order by ms)::double precision as p50,
            percentile_cont(0.99) within group (order by ms)::double precision as p99,
            count(*)::integer as samples from delay`,
    [executionId, [...told.keys()], [...told.values()]],
  );
  const name = "outcome in its stream to its commit";
  return { name, ...(rows[0] ?? { p50: NaN, p99: NaN, samples: 0 }) };
}
