// Looks at a running load again and again: connections, memory, messages in the stream.
import { readFile } from "node:fs/promises";
import { connect } from "nats";
import { ask } from "./actors.ts";

export interface LoadSight {
  /** Milliseconds since the watch began. */
  atMs: number;
  /** Resident memory of each process, MB. */
  memoryMb: number[];
  /** Connections of clients to each database. */
  connections: number[];
  /** Messages that wait in the stream, and those that workers hold. */
  pending: number;
  unacknowledged: number;
}

export interface Watched {
  pids: number[];
  /** Direct URLs of databases; those of the watch itself are not counted. */
  databases: string[];
  nats: { url: string; stream: string; consumer: string };
}

const EVERY_MS = 250;

/** Watches until it is told to stop, which gives all that it saw. */
export function watchLoad(watched: Watched): () => Promise<LoadSight[]> {
  const sights: LoadSight[] = [];
  const begunMs = performance.now();
  const stopping = new AbortController();
  const done = (async () => {
    const nats = await connect({ servers: watched.nats.url });
    const { consumers } = await nats.jetstreamManager();
    const { stream, consumer } = watched.nats;
    while (!stopping.signal.aborted) {
      const [memoryMb, connections, info] = await Promise.all([
        Promise.all(watched.pids.map(residentMb)),
        Promise.all(watched.databases.map(countClients)),
        consumers.info(stream, consumer),
      ]);
      const atMs = Math.round(performance.now() - begunMs);
      const { num_pending: pending, num_ack_pending: unacknowledged } = info;
      sights.push({ atMs, memoryMb, connections, pending, unacknowledged });
      await new Promise(resolve => setTimeout(resolve, EVERY_MS));
    }
    await nats.close();
  })();
  return async () => {
    stopping.abort();
    await done;
    return sights;
  };
}

async function residentMb(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, "utf8").catch(() => "");
  return Math.round(Number(/VmRSS:\s+(\d+)/.exec(status)?.[1] ?? NaN) / 1_024);
}

async function countClients(url: string): Promise<number> {
  const [row] = await ask<{ n: number }>(
    url,
    `select count(*)::integer as n from pg_stat_activity
     where datname = current_database() and backend_type = 'client backend'
       and pid <> pg_backend_pid()`,
  );
  return row?.n ?? NaN;
}
