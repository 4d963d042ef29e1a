// What a workload costs: seconds, rows and WAL bytes, read from the database around it.
import type { Database } from "../mixins/postgres/index.ts";

export interface Cost {
  seconds: number;
  rows: number;
  walBytes: number;
  /** CPU seconds of this process, all threads. */
  cpuSeconds: number;
}

export interface Result {
  name: string;
  items: number;
  unit: string;
  /** Items a second that design §12 asks for, or that must not be undercut. */
  budget?: number;
  cost: Cost;
}

interface Point {
  rows: number;
  wal: number;
}

async function point(database: Database): Promise<Point> {
  const { rows } = await database.query<{ rows: string; wal: string }>(
    `select (select count(*) from noetl.event) as rows,
            pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0') as wal`,
  );
  return { rows: Number(rows[0]?.rows), wal: Number(rows[0]?.wal) };
}

/**
 * Runs `work` between two looks at the database. A checkpoint before makes WAL figures comparable.
 */
export async function measure(database: Database, work: () => Promise<unknown>): Promise<Cost> {
  await database.query("checkpoint");
  const before = await point(database);
  const cpu = process.cpuUsage();
  const started = performance.now();
  await work();
  const seconds = (performance.now() - started) / 1_000;
  const { user, system } = process.cpuUsage(cpu);
  const after = await point(database);
  return {
    seconds,
    rows: after.rows - before.rows,
    walBytes: after.wal - before.wal,
    cpuSeconds: (user + system) / 1e6,
  };
}

/**
 * One line a workload: rate, budget, rows and WAL an item, CPU share, and the ratio to raw inserts.
 */
export function printTable(results: Result[], rawItemsPerSecond?: number): void {
  const head = [
    "workload",
    "items",
    "per s",
    "budget",
    "rows/item",
    "WAL B/item",
    "node CPU",
    "vs raw",
  ];
  const lines = results.map(({ name, items, unit, budget, cost }) => {
    const rate = items / cost.seconds;
    return [
      name,
      `${items} ${unit}`,
      rate.toFixed(0),
      budget === undefined ? "–" : `${budget}${rate >= budget ? "" : " (missed)"}`,
      (cost.rows / items).toFixed(2),
      (cost.walBytes / items).toFixed(0),
      `${((cost.cpuSeconds / cost.seconds) * 100).toFixed(0)}%`,
      rawItemsPerSecond === undefined ? "–" : (rate / rawItemsPerSecond).toFixed(2),
    ];
  });
  const widths = head.map((word, column) =>
    Math.max(word.length, ...lines.map(line => line[column]?.length ?? 0)),
  );
  for (const line of [head, ...lines]) {
    console.log(line.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join("  "));
  }
}
