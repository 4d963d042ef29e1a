// What the projection and its readers ask of the store: rows, the right to write them, and the log.
import type { StoredEvent } from "../schemas/events.ts";
import { readExecution } from "./postgres/event.ts";
import {
  deleteExecution,
  holdShard,
  listOpenDescendants,
  readExecutions,
  readShardHolder,
  releaseShard,
  saveCheckpoint,
  writeExecutions,
  type ExecutionRow,
  type ShardClaim,
  type ShardWanted,
} from "./postgres/execution.ts";
import { followLog, readGaps, type Gap, type LogPosition } from "./postgres/follow.ts";
import type { Database } from "./postgres/index.ts";

/**
 * The port of the projection; a simulation has its own in memory. Every call may throw Unavailable.
 */
export interface ProjectionStore {
  /** Takes or renews a shard; undefined when another holds it. */
  hold(options: ShardWanted): Promise<(ShardClaim & { position: LogPosition }) | undefined>;
  release(claim: ShardClaim): Promise<void>;
  holder(shard: number): Promise<string | undefined>;
  /** Moves the checkpoint forward; with an old epoch nothing changes. */
  save(claim: ShardClaim, position: LogPosition): Promise<void>;
  /** Events after `position` and below the watermark, in the log's order. */
  follow(
    position: LogPosition,
    limit: number,
  ): Promise<{ events: StoredEvent[]; position: LogPosition }>;
  /** What lies between versions that are known, each stream in order. */
  gaps(gaps: Gap[], limit: { page: number; all: number }): Promise<StoredEvent[]>;
  read(executionIds: string[]): Promise<ExecutionRow[]>;
  /** false when a newer epoch has the shard: nothing is written then. */
  write(claim: ShardClaim, rows: ExecutionRow[]): Promise<boolean>;
  /** All events of an execution, every stream, each in version order. */
  log(executionId: string): Promise<StoredEvent[]>;
  /** A row made anew, whatever the old one said; false as `write`. */
  replace(claim: ShardClaim, row: ExecutionRow): Promise<boolean>;
  /** Descendants of an execution that have not ended: the first `limit` ids after `after`. */
  openDescendants(executionId: string, limit: number, after?: string): Promise<string[]>;
}

/** The projection's rows in Postgres. */
export function createProjectionStore(database: Database): ProjectionStore {
  return {
    hold: options => holdShard(database, options),
    release: claim => releaseShard(database, claim),
    holder: shard => readShardHolder(database, shard),
    save: (claim, position) => saveCheckpoint(database, claim, position),
    follow: (position, limit) => followLog(database, position, limit),
    gaps: (gaps, limit) => readGaps(database, gaps, limit),
    read: ids => readExecutions(database, ids),
    write: (claim, rows) => writeExecutions(database, claim, rows),
    log: executionId => readExecution(database, executionId),
    async replace(claim, row) {
      let isOurs = false;
      await database
        .transaction(async query => {
          await deleteExecution(query, row.execution_id);
          isOurs = await writeExecutions(query, claim, [row]);
          if (!isOurs) throw new NotOurs();
        })
        .catch((error: unknown) => {
          if (!(error instanceof NotOurs)) throw error;
        });
      return isOurs;
    },
    openDescendants: (executionId, limit, after) =>
      listOpenDescendants(database, executionId, limit, after),
  };
}

/** Rolls back what a newer holder must not find deleted. */
class NotOurs extends Error {}
