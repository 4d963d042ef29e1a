// The projection's port over tables in memory.
import type { ProjectionStore } from "../../mixins/projection-store.ts";
import type { ExecutionRow, ShardClaim, ShardWanted } from "../../mixins/postgres/execution.ts";
import { EVENT_TYPES, type StoredEvent } from "../../schemas/events.ts";
import { foldable } from "../../services/projection/fold.ts";
import type { Link } from "./memory-store.ts";
import type { LogEntry, MemoryTables } from "./memory-tables.ts";

/** The rows of executions, seen from one process. */
export function memoryRows(tables: MemoryTables, link: Link): ProjectionStore {
  return {
    hold: options => link.run("hold", () => hold(tables, options)),
    release: claim =>
      link.run("releaseShard", () => {
        const one = tables.checkpoints.get(claim.shard);
        if (one?.epoch === claim.epoch) one.holder = null;
      }),
    holder: shard =>
      link.run("holder", () => {
        const one = tables.checkpoints.get(shard);
        return one && one.lease_until > tables.now() ? (one.holder ?? undefined) : undefined;
      }),
    save: (claim, position) =>
      link.run("save", () => {
        const one = tables.checkpoints.get(claim.shard);
        if (one?.epoch === claim.epoch) Object.assign(one, position);
      }),
    follow: (position, limit) => link.run("follow", () => follow(tables, position, limit)),
    gaps: (gaps, limit) =>
      link.run("gaps", () =>
        gaps
          .flatMap(({ stream_id, after, before }) =>
            (tables.events.get(stream_id) ?? []).slice(after, before - 1).slice(0, limit.page),
          )
          .slice(0, limit.all)
          .filter(event => EVENT_TYPES.has(event.event_type))
          .map(foldable),
      ),
    read: ids =>
      link.run("readRows", () => ids.flatMap(id => copyOf(tables.executions.get(id)) ?? [])),
    write: (claim, rows) => {
      const sent = rows.map(row => copyOf(row) as ExecutionRow);
      return link.run("writeRows", () => write(tables, claim, sent));
    },
    log: executionId => link.run("readLog", () => logOf(tables, executionId)),
    replace: (claim, row) =>
      link.run("replaceRow", () => {
        if (tables.checkpoints.get(claim.shard)?.epoch !== claim.epoch) return false;
        tables.executions.delete(row.execution_id);
        return write(tables, claim, [copyOf(row) as ExecutionRow]);
      }),
    openDescendants: (id, limit, after = "0") =>
      link.run("openDescendants", () =>
        openDescendants(tables, id)
          .filter(one => BigInt(one) > BigInt(after))
          .sort((one, other) => Number(BigInt(one) - BigInt(other)))
          .slice(0, limit),
      ),
  };
}

const copyOf = (row: ExecutionRow | undefined): ExecutionRow | undefined =>
  row && (JSON.parse(JSON.stringify(row)) as ExecutionRow);

function hold(tables: MemoryTables, { shard, holder, leaseMs, epoch: renewed }: ShardWanted) {
  const now = tables.now();
  const known = tables.checkpoints.get(shard);
  const mayHold = !known || known.holder === holder || !known.holder || known.lease_until < now;
  if (!mayHold) return undefined;
  const isRenewed = known?.holder === holder && known.epoch === renewed;
  const next = known
    ? { ...known, epoch: isRenewed ? known.epoch : known.epoch + 1 }
    : { tx: "0", event_id: "0", epoch: 1 };
  const { epoch, tx, event_id } = next;
  tables.checkpoints.set(shard, { ...next, holder, lease_until: now + leaseMs });
  return { shard, epoch, position: { tx, event_id } };
}

/** Ids are decimal: the longer is the greater. */
function isAfter({ tx, event }: LogEntry, position: { tx: string; event_id: string }): boolean {
  if (tx !== Number(position.tx)) return tx > Number(position.tx);
  return BigInt(event.event_id) > BigInt(position.event_id);
}

function follow(
  tables: MemoryTables,
  position: { tx: string; event_id: string },
  limit: number,
): { events: StoredEvent[]; position: { tx: string; event_id: string } } {
  const below = tables.watermark();
  const entries = tables.log
    .filter(entry => entry.tx < below && isAfter(entry, position))
    .sort(inLogOrder)
    .slice(0, limit);
  const last = entries.at(-1);
  return {
    events: entries.map(({ event }) => foldable(event)),
    position: last ? { tx: String(last.tx), event_id: last.event.event_id } : position,
  };
}

function inLogOrder(one: LogEntry, other: LogEntry): number {
  return one.tx - other.tx || Number(BigInt(one.event.event_id) - BigInt(other.event.event_id));
}

function write(tables: MemoryTables, claim: ShardClaim, rows: ExecutionRow[]): boolean {
  if (tables.checkpoints.get(claim.shard)?.epoch !== claim.epoch) return false;
  for (const row of rows) {
    const known = tables.executions.get(row.execution_id);
    if (known && known.version > row.version) continue;
    if (known && isBehind(row, known)) tables.setBack.add(row.execution_id);
    tables.executions.set(row.execution_id, row);
  }
  return true;
}

type Shown = Record<string, { loop_id: string; version: number }>;

/** A loop of the row is at an older version than it was shown at. */
function isBehind(row: ExecutionRow, known: ExecutionRow): boolean {
  const loops = (row.state["loop"] ?? {}) as Shown;
  return Object.entries((known.state["loop"] ?? {}) as Shown).some(([step, shown]) => {
    const now = loops[step];
    return !now || (now.loop_id === shown.loop_id && now.version < shown.version);
  });
}

function logOf(tables: MemoryTables, executionId: string): StoredEvent[] {
  return [...tables.events.values()].filter(([one]) => one?.execution_id === executionId).flat();
}

function openDescendants(tables: MemoryTables, executionId: string): string[] {
  const children = [...tables.executions.values()].filter(
    row => row.parent_execution_id === executionId,
  );
  return children.flatMap(({ execution_id }) => [
    ...(tables.streams.get(execution_id)?.status === "open" ? [execution_id] : []),
    ...openDescendants(tables, execution_id),
  ]);
}
