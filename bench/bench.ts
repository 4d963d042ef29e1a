// `npm run bench`: the workloads of design §12 side by side in one run, on an embedded Postgres
// with fsync on: all in one process, then one server and two workers over NATS.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import type { ServiceBroker } from "moleculer";
import { openStore, startRuntime } from "../cli/runtime.ts";
import { openDatabase, type Database } from "../mixins/postgres/index.ts";
import { loadSettings } from "../schemas/env.ts";
import { createIds } from "../schemas/ids.ts";
import { feltBeside } from "./fairness.ts";
import { printLatencies, stepToStep } from "./latency.ts";
import { measure, printTable, type Result } from "./measure.ts";
import { startParts, WORKERS, type Parts } from "./parts.ts";
import { startProfile } from "./profile.ts";
import { proofs } from "./proof.ts";
import { rawInserts } from "./raw.ts";
import { openRecords, type Records } from "./records.ts";
import { AT_WORK, COMMIT_P99_MS, LEAST_MS, publishToCommit, transportEnv } from "./transport.ts";
import {
  CHAIN,
  FETCH_AND_INSERT,
  loopOf,
  runMany,
  runToEnd,
  THREE_STEPS,
  WAYS,
  type Way,
} from "./workloads.ts";

/** Budgets of design §12, a second. */
const BUDGET = { frames: 12_000, commands: 2_500, records: 1_300, executions: 1_000 };
const NAMES: Record<Way, string> = {
  local: "parallel loop, frames",
  distributed: "parallel loop, one command an item",
  fanout: "fan-out, one command an item",
};
const LATENCY_MS = { p50: 5, p99: 25 };
const AT_ONCE = 32;
const WARM_UP_MS = 500;

const { values } = parseArgs({
  options: {
    executions: { type: "string", default: "4000" },
    items: { type: "string", default: "20000" },
    concurrency: { type: "string", default: "50" },
    window: { type: "string", default: "64" },
    /**
     * One of `here`, `nats`, `fairness`, `transport` and `proof` (minutes); all but the last when
     * absent.
     */
    only: { type: "string" },
    /** The largest loop of `proof`. */
    most: { type: "string", default: "1000000" },
    profile: { type: "boolean", default: false },
  },
});
const [executions, items, concurrency, window] = [
  values.executions,
  values.items,
  values.concurrency,
  values.window,
].map(Number) as [number, number, number, number];

const dataDir = await mkdtemp(join(tmpdir(), "noetl-bench-"));
const base = {
  NOETL_DATA_DIR: dataDir,
  NOETL_LOG_LEVEL: "warn",
  NOETL_WORKER_MAX_INFLIGHT_COMMANDS: String(Math.max(window, concurrency)),
  NOETL_WORKER_MAX_INFLIGHT_DB_COMMANDS: String(Math.max(1, window - 1, concurrency - 1)),
  NOETL_POSTGRES_POOL_MAX_SIZE: String(AT_ONCE),
};
await keepCommitTimes();
// Held until the end: every part joins this Postgres.
const store = await openStore(loadSettings(base));
const records = await openRecords(store.url, AT_ONCE);
const env = { ...base, NOETL_CREDENTIAL_BENCH_TARGET: targetOf(store.url) };
const { url } = store;
const database = openDatabase({ url: store.url, size: 3 });
// The runtime's own timers never keep a process alive.
const alive = setInterval(() => undefined, 60_000);

try {
  const { only } = values;
  if (only === undefined || only === "here") await here(database, records);
  if (only === undefined || only === "nats") await overNats(database);
  if (only === undefined || only === "fairness") await fairness(database);
  if (only === undefined || only === "transport") await overTransport(database);
  if (only === "proof") await prove(database);
} finally {
  clearInterval(alive);
  await records.close();
  await database.close();
  await store.close();
  await rm(dataDir, { recursive: true, force: true });
}

/** Postgres notes when each transaction was committed, from its next start on. */
async function keepCommitTimes(): Promise<void> {
  const store = await openStore(loadSettings(base));
  const database = openDatabase({ url: store.url, size: 1 });
  await database.query("alter system set track_commit_timestamp = on");
  await database.close();
  await store.close();
}

function targetOf(url: string): string {
  const { hostname, port, username, password, pathname } = new URL(url);
  const data = {
    ...{ db_host: hostname, db_port: Number(port) },
    ...{ db_user: decodeURIComponent(username), db_password: decodeURIComponent(password) },
  };
  return JSON.stringify({ type: "postgres", data: { ...data, db_name: pathname.slice(1) } });
}

async function prepare(broker: ServiceBroker): Promise<void> {
  const playbooks = [THREE_STEPS, ...WAYS.map(loopOf), CHAIN, FETCH_AND_INSERT];
  for (const content of playbooks) await broker.call("catalog.register", { content });
  await runMany(broker, "bench/three_steps", 200, concurrency);
  await runToEnd(broker, "bench/fanout_loop", { n: 500, window });
}

/** Everything in this process. */
async function here(store: Database, ends: Records): Promise<void> {
  const runtime = await startRuntime({
    settings: loadSettings(env),
    roles: ["server", "worker"],
    scope: "all",
  });
  const { broker } = runtime;
  const results: Result[] = [];
  await prepare(broker);
  const stopProfile = values.profile ? await startProfile() : undefined;
  const raw = await measure(store, () => rawInserts(store, createIds(1023, Date.now), items));
  results.push({ name: "raw inserts, 3 rows an item", items, unit: "items", cost: raw });
  results.push(await threeSteps(broker, store));
  for (const n of [items / 10, items, items * 5]) {
    results.push(await loop(broker, store, "local", n));
  }
  for (const n of [items / 10, items]) {
    results.push(await loop(broker, store, "fanout", n));
  }
  results.push(await loop(broker, store, "distributed", items));
  results.push(...(await fetchAndInsert(broker, store, ends)));
  console.log("in one process");
  printTable(results, items / raw.seconds);
  await stopProfile?.();
  await runtime.stop();
}

/** Large loops, in this process: what it holds can be seen from inside only. */
async function prove(store: Database): Promise<void> {
  const settings = loadSettings(env);
  const runtime = await startRuntime({ settings, roles: ["server", "worker"], scope: "all" });
  await prepare(runtime.broker);
  const stopProfile = values.profile ? await startProfile() : undefined;
  await proofs(runtime.broker, store, { window, most: Number(values.most) });
  await stopProfile?.();
  await runtime.stop();
}

/** One server and two workers, processes of their own, warmed up. */
async function withParts(
  more: Record<string, string>,
  work: (parts: Parts) => Promise<void>,
): Promise<void> {
  const parts = await startParts({ ...env, DATABASE_URL: url, ...more });
  if (!parts) return;
  try {
    await prepare(parts.broker);
    await work(parts);
  } finally {
    await parts.close();
  }
}

async function overNats(store: Database): Promise<void> {
  await withParts({}, async ({ broker }) => {
    const latencies = await stepToStep(broker, store, 40);
    const results = [
      await threeSteps(broker, store),
      await loop(broker, store, "fanout", items),
      await loop(broker, store, "distributed", items),
      await loop(broker, store, "local", items),
    ];
    console.log("\none server and two workers over NATS");
    printTable(results);
    printLatencies(latencies, LATENCY_MS);
  });
}

/** As `overNats`, a small run beside a large one. */
async function fairness(store: Database): Promise<void> {
  await withParts({}, ({ broker }) => feltBeside(broker, store, window));
}

/** As `overNats`, with outcomes over JetStream and a thousand items at work. */
async function overTransport(store: Database): Promise<void> {
  await withParts(transportEnv(WORKERS), async parts => {
    // What a process runs for the first time it has to compile: that is not what is asked here.
    await publishToCommit(parts, store, { items: 2 * AT_WORK, leastMs: WARM_UP_MS });
    for (const leastMs of LEAST_MS) {
      const found = await publishToCommit(parts, store, { items: 5 * AT_WORK, leastMs });
      const pace = AT_WORK / ((2 * leastMs) / 1_000);
      console.log(
        `\noutcomes over JetStream, ${found.most} items at work, ${pace} outcomes a second`,
      );
      printLatencies([found], { p50: COMMIT_P99_MS, p99: COMMIT_P99_MS });
    }
  });
}

async function threeSteps(broker: ServiceBroker, store: Database): Promise<Result> {
  const run = () => runMany(broker, "bench/three_steps", executions, concurrency);
  return {
    name: `three-step execution, ${concurrency} at a time`,
    ...{ items: executions, unit: "runs", budget: BUDGET.executions },
    cost: await measure(store, run),
  };
}

async function loop(broker: ServiceBroker, store: Database, way: Way, n: number): Promise<Result> {
  const framed = way === "local";
  return {
    name: NAMES[way],
    ...{ items: n, unit: "items", budget: framed ? BUDGET.frames : BUDGET.commands },
    cost: await measure(store, () => runToEnd(broker, `bench/${way}_loop`, { n, window })),
  };
}

/** The main job beside the bare work, on the same table. */
async function fetchAndInsert(
  broker: ServiceBroker,
  store: Database,
  ends: Records,
): Promise<Result[]> {
  const n = Math.ceil(items / 4);
  const payload = { api: ends.api, n, window: AT_ONCE };
  await ends.bare(n / 10, AT_ONCE);
  await ends.reset();
  const bare = await measure(store, () => ends.bare(n, AT_ONCE));
  await ends.reset();
  const ours = await measure(store, () => runToEnd(broker, "bench/fetch_and_insert", payload));
  const rows = await ends.count();
  if (rows !== n) throw new Error(`${rows} records were inserted, expected ${n}`);
  return [
    { name: `bare HTTP GET → INSERT, ${AT_ONCE} at a time`, items: n, unit: "items", cost: bare },
    {
      name: `HTTP GET → INSERT, ${AT_ONCE} at a time`,
      ...{ items: n, unit: "items", budget: BUDGET.records, cost: ours },
    },
  ];
}
