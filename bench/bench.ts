// `npm run bench`: the workloads side by side in one run, on an embedded Postgres with fsync on.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { startRuntime } from "../cli/runtime.ts";
import { openDatabase } from "../mixins/postgres/index.ts";
import { loadSettings } from "../schemas/env.ts";
import { createIds } from "../schemas/ids.ts";
import { measure, printTable, type Result } from "./measure.ts";
import { startProfile } from "./profile.ts";
import { rawInserts } from "./raw.ts";
import { PARALLEL_LOOP, runMany, runToEnd, THREE_STEPS } from "./workloads.ts";

/** Not to be undercut by any build. */
const THREE_STEPS_FLOOR = 200;
const ITEMS_FLOOR = 800;

const { values } = parseArgs({
  options: {
    executions: { type: "string", default: "4000" },
    items: { type: "string", default: "20000" },
    concurrency: { type: "string", default: "50" },
    window: { type: "string", default: "64" },
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
const settings = loadSettings({
  NOETL_DATA_DIR: dataDir,
  NOETL_LOG_LEVEL: "warn",
  NOETL_WORKER_MAX_INFLIGHT_COMMANDS: String(Math.max(window, concurrency)),
  NOETL_WORKER_NATS_MAX_ACK_PENDING: "1000",
});
const runtime = await startRuntime({ settings, roles: ["server", "worker"], scope: "all" });
const database = openDatabase({ url: runtime.databaseUrl, size: 3 });
const { broker } = runtime;
const ids = createIds(1023, Date.now);
const results: Result[] = [];
// The runtime's own timers never keep a process alive.
const alive = setInterval(() => undefined, 60_000);

try {
  for (const content of [THREE_STEPS, PARALLEL_LOOP]) {
    await broker.call("catalog.register", { content });
  }
  await runMany(broker, "bench/three_steps", 200, concurrency);
  await runToEnd(broker, "bench/parallel_loop", { n: 500, window });
  const stopProfile = values.profile ? await startProfile() : undefined;

  const raw = await measure(database, () => rawInserts(database, ids, items));
  results.push({ name: "raw inserts, 3 rows an item", items, unit: "items", cost: raw });

  const three = await measure(database, () =>
    runMany(broker, "bench/three_steps", executions, concurrency),
  );
  const name = `three-step execution, ${concurrency} at a time`;
  results.push({ name, items: executions, unit: "runs", budget: THREE_STEPS_FLOOR, cost: three });

  for (const n of [items / 10, items]) {
    const cost = await measure(database, () =>
      runToEnd(broker, "bench/parallel_loop", { n, window }),
    );
    const loop = "parallel loop, one command an item";
    results.push({ name: loop, items: n, unit: "items", budget: ITEMS_FLOOR, cost });
  }
  printTable(results, items / raw.seconds);
  await stopProfile?.();
} finally {
  await database.close();
  await runtime.stop();
  clearInterval(alive);
  await rm(dataDir, { recursive: true, force: true });
}
