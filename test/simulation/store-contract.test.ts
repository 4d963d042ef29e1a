// One contract, two stores: what holds in a simulation holds over Postgres.
import { createProjectionStore } from "../../mixins/projection-store.ts";
import { createWorkerRows } from "../../mixins/worker-rows.ts";
import { createIds } from "../../schemas/ids.ts";
import { ask, startProcess, type TestProcess } from "../support/actors.ts";
import { testDatabase, type TestDatabase } from "../support/postgres.ts";
import { memoryRows } from "./memory-rows.ts";
import { memoryStore, memoryWorkers, type Link } from "./memory-store.ts";
import { MemoryTables } from "./memory-tables.ts";
import { OF_ROWS } from "./store-contract-rows.ts";
import { Contract, OF_STREAMS, type Subject } from "./store-contract.ts";

const CONTRACT = { ...OF_STREAMS, ...OF_ROWS };

/** A database that answers at once. */
function inMemory(): Subject {
  const tables = new MemoryTables(() => Date.now());
  const link: Link = {
    run: (_kind, work) => Promise.resolve().then(work),
    async write(_kind, begin, commit) {
      const tx = begin();
      await Promise.resolve();
      const value = commit(tx, Date.now());
      tables.end(tx);
      return value;
    },
    sinceAwayMs: () => Infinity,
  };
  const ids = createIds(1, () => Date.now());
  return {
    store: memoryStore(tables, link, { observe: () => undefined }),
    rows: memoryRows(tables, link),
    workers: memoryWorkers(tables, link),
    newId: () => ids.next(),
    now: () => Date.now(),
    wakeOf: id => Promise.resolve(tables.streams.get(id)?.wake_at),
    failuresOf: id => Promise.resolve(tables.streams.get(id)?.failures ?? 0),
  };
}

function overPostgres(url: string, { store, database, ids, clock }: TestProcess): Subject {
  return {
    store,
    rows: createProjectionStore(database),
    workers: createWorkerRows(database),
    newId: () => ids.next(),
    now: () => clock.now(),
    async wakeOf(id) {
      const [row] = await ask<{ at: string | null }>(
        url,
        "select extract(epoch from wake_at) * 1000 as at from noetl.stream where stream_id = $1",
        [id],
      );
      return row && (row.at === null ? null : Number(row.at));
    },
    async failuresOf(id) {
      const rows = await ask<{ failures: number }>(
        url,
        "select failures from noetl.stream where stream_id = $1",
        [id],
      );
      return rows[0]?.failures ?? 0;
    },
  };
}

describe("the store in memory", () => {
  const contract = new Contract(inMemory());
  for (const [name, holds] of Object.entries(CONTRACT)) it(name, () => holds(contract));
});

describe("the store over Postgres", function () {
  this.timeout(60_000);
  let database: TestDatabase;
  let process: TestProcess;
  let contract: Contract;
  before(async () => {
    database = await testDatabase({ migrated: true });
    process = await startProcess(database.url);
    contract = new Contract(overPostgres(database.url, process));
  });
  after(async () => {
    await process.stop();
    await database.drop();
  });
  for (const [name, holds] of Object.entries(CONTRACT)) it(name, () => holds(contract));
});
