// The ports of the store over tables in memory. How long a statement takes, and whether it or its
// answer is lost, is the link's to say.
import type { EventStore } from "../../mixins/event-store.ts";
import type { Clock } from "../../mixins/clock.ts";
import type { WorkerRows } from "../../mixins/worker-rows.ts";
import type { StreamAppend } from "../../mixins/postgres/event.ts";
import type { StreamOwner } from "../../mixins/postgres/stream.ts";
import { COMMAND_TERMINALS } from "../../schemas/events.ts";
import type { Json } from "../../schemas/json.ts";
import type { MemoryTables, StreamRow } from "./memory-tables.ts";

/** The way of one process to the database. */
export interface Link {
  /** Runs one statement there. Throws Unavailable before it, or after it. */
  run<T>(kind: string, work: () => T): Promise<T>;
  /** The same for one that writes the log: it begins, and is committed later. */
  write<T>(kind: string, begin: () => number, commit: (tx: number, at: number) => T): Promise<T>;
  /** Milliseconds since a statement last met a database that was away. */
  sinceAwayMs(): number;
}

const COMMAND_ENDS: ReadonlySet<string> = new Set(COMMAND_TERMINALS);

/** The event store of one process. */
export function memoryStore(
  tables: MemoryTables,
  link: Link,
  clock: Pick<Clock, "observe">,
): EventStore {
  const head = (id: string) => tables.streams.get(id);
  return {
    async append(append: StreamAppend) {
      const sent = JSON.parse(JSON.stringify(append)) as StreamAppend;
      const { outcome, now } = await link.write(
        "append",
        () => tables.begin(),
        (tx, at) => ({ outcome: tables.append(sent, tx, at), now: tables.now() }),
      );
      clock.observe(now);
      return outcome;
    },
    async readHead(streamId) {
      const read = await link.run("readHead", () => {
        return { head: headOf(head(streamId)), now: tables.now() };
      });
      clock.observe(read.now);
      return read.head;
    },
    readSnapshot: id => link.run("readSnapshot", () => structuredClone(tables.snapshots.get(id))),
    readEvents: ({ execution_id, stream_id }, after, limit) =>
      link.run("readEvents", () => {
        const events = tables.events.get(stream_id) ?? [];
        const own = events.length > 0 && events[0]?.execution_id === execution_id;
        return own ? events.slice(after, after + limit) : [];
      }),
    writeSnapshot(id, version, state) {
      const kept = JSON.parse(JSON.stringify(state)) as Json;
      return link.run("writeSnapshot", () => {
        if (version > (tables.snapshots.get(id)?.version ?? 0)) {
          tables.snapshots.set(id, { version, state: kept });
        }
      });
    },
    setWake: (id, version, wakeAt) =>
      link.run("setWake", () => {
        const row = head(id);
        if (row?.version !== version || row.status !== "open" || row.wake_at === null) return;
        if (row.wake_at > tables.now()) row.wake_at = wakeAt;
      }),
    end: (id, version) =>
      link.run("end", () => {
        const row = head(id);
        if (row?.version !== version) return false;
        Object.assign(row, { status: "ended", wake_at: null });
        return true;
      }),
    park: (id, message) => link.run("park", () => park(tables, head(id), message)),
    sinceAwayMs: () => link.sinceAwayMs(),
    readSeen: holders => link.run("readSeen", () => seenOf(tables, holders)),
    pickDue: options => link.run("pickDue", () => pickDue(tables, options)),
    findOver: ids => link.run("findOver", () => findOver(tables, ids)),
    readOwners: id => link.run("readOwners", () => ownersOf(tables, id)),
    giveBack: (owners, from) => link.run("giveBack", () => giveBack(tables, owners, from)),
    findStart: key => link.run("findStart", () => structuredClone(tables.starts.get(key))),
    keepHouse: () => Promise.resolve(),
  };
}

function headOf(row: StreamRow | undefined) {
  if (!row) return undefined;
  const { stream_id, execution_id, kind, version, status, owner } = row;
  return { stream_id, execution_id, kind, version, status, owner };
}

function park(tables: MemoryTables, row: StreamRow | undefined, message: string): void {
  if (row?.status !== "open") return;
  row.failures += 1;
  row.last_error = message.slice(0, 2_000);
  const seconds = Math.min(3_600, 2 ** Math.min(row.failures, 12));
  row.wake_at = tables.now() + seconds * 1_000;
}

function seenOf(tables: MemoryTables, holders: Parameters<EventStore["readSeen"]>[0]) {
  const seen = new Map<string, number | "gone">();
  for (const { worker_id, incarnation } of holders) {
    const row = tables.workers.get(worker_id);
    if (!row) continue;
    const lives = row.incarnation === incarnation && row.status !== "gone";
    seen.set(incarnation, lives ? row.seen_at : "gone");
  }
  return seen;
}

function pickDue(tables: MemoryTables, options: Parameters<EventStore["pickDue"]>[0]) {
  const { limit, backoffMs, owner } = options;
  const now = tables.now();
  const due = [...tables.streams.values()]
    .filter(row => row.status === "open" && row.wake_at !== null && row.wake_at <= now)
    .filter(row => owner === undefined || row.owner === owner)
    .sort((one, other) => (one.wake_at ?? 0) - (other.wake_at ?? 0))
    .slice(0, limit);
  for (const row of due) row.wake_at = now + backoffMs;
  return due.map(({ stream_id, execution_id, kind }) => ({ stream_id, execution_id, kind }));
}

function ownersOf(tables: MemoryTables, executionId: string): StreamOwner[] {
  if (!tables.executions.has(executionId)) return [];
  const own = [...tables.streams.values()]
    .filter(row => row.status === "open" && row.execution_id === executionId)
    .map(({ stream_id, owner }) => ({ stream_id, owner }));
  const children = [...tables.executions.values()].filter(
    row => row.parent_execution_id === executionId,
  );
  return [...own, ...children.flatMap(child => ownersOf(tables, child.execution_id))];
}

function giveBack(tables: MemoryTables, owners: StreamOwner[], from: string): void {
  for (const { stream_id, owner } of owners) {
    const row = tables.streams.get(stream_id);
    if (row?.status !== "open" || row.owner !== from) continue;
    Object.assign(row, { owner, wake_at: tables.now() });
  }
}

function findOver(tables: MemoryTables, commandIds: string[]): string[] {
  const asked = new Set(commandIds);
  const over = new Set<string>();
  for (const { event } of tables.log) {
    const { command_id } = event.meta as { command_id?: string };
    if (command_id === undefined || !asked.has(command_id)) continue;
    const isFinal = event.event_type === "frame.committed" && event.meta.final;
    if (isFinal || COMMAND_ENDS.has(event.event_type)) over.add(command_id);
  }
  return [...over];
}

/** The rows of workers, seen from one process. */
export function memoryWorkers(tables: MemoryTables, link: Link): WorkerRows {
  return {
    beat: ({ worker_id, incarnation, machine, pid }, status) =>
      link.run("beat", () => {
        const row = { worker_id, incarnation, machine, pid, status, seen_at: tables.now() };
        tables.workers.set(worker_id, row);
      }),
    leave: incarnation => link.run("leave", () => markGone(tables, [incarnation])),
    onMachine: machine =>
      link.run("onMachine", () =>
        [...tables.workers.values()]
          .filter(row => row.machine === machine && row.status !== "gone")
          .map(({ worker_id, incarnation, pid }) => ({ worker_id, incarnation, pid })),
      ),
    countReady: silentMs =>
      link.run("countReady", () => {
        const since = tables.now() - silentMs;
        const rows = [...tables.workers.values()];
        return rows.filter(row => row.status === "ready" && row.seen_at > since).length;
      }),
    bury: dead => link.run("bury", () => bury(tables, dead)),
  };
}

/** Marks workers as gone, wakes the streams they decided last, and frees their shards. */
export function bury(
  tables: MemoryTables,
  dead: { worker_id: string; incarnation: string }[],
): void {
  markGone(
    tables,
    dead.map(one => one.incarnation),
  );
  const names = new Set(dead.map(one => one.worker_id));
  for (const row of tables.streams.values()) {
    if (row.status === "open" && names.has(row.owner ?? "")) row.wake_at = tables.now();
  }
  for (const one of tables.checkpoints.values()) {
    if (names.has(one.holder ?? "")) one.holder = null;
  }
}

function markGone(tables: MemoryTables, incarnations: string[]): void {
  for (const row of tables.workers.values()) {
    if (incarnations.includes(row.incarnation)) row.status = "gone";
  }
}
