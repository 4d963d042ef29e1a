// The projector: folds events into rows and writes the changed ones, fenced by its claim on the shard.
import type { StoredEvent } from "../../schemas/events.ts";
import type { Database } from "../../mixins/postgres/index.ts";
import {
  readExecutions,
  writeExecutions,
  type ExecutionRow,
  type ShardClaim,
} from "../../mixins/postgres/execution.ts";
import { emptyRow, expectedVersion, foldEvent } from "./fold.ts";

/** Hinted events kept at most; what is dropped comes again with the log. */
const QUEUE_MAX = 50_000;
/** Rows kept in memory between writes. */
const ROWS_MAX = 10_000;

const OVER = new Set(["COMPLETED", "FAILED", "CANCELLED"]);

/** Rows being folded. One caller at a time drains it. */
export class Projector {
  readonly #database: Database;
  #queue: StoredEvent[] = [];
  #rows = new Map<string, ExecutionRow>();
  #dirty = new Set<string>();
  /** Events that did not follow on what is folded: the log brings what is missing. */
  gaps = 0;

  constructor(database: Database) {
    this.#database = database;
  }

  get waiting(): number {
    return this.#queue.length;
  }

  hint(events: StoredEvent[]): void {
    if (this.#queue.length + events.length <= QUEUE_MAX) this.#queue.push(...events);
  }

  forget(): void {
    this.#queue = [];
    this.#rows.clear();
    this.#dirty.clear();
  }

  /** Folds what was hinted. */
  async foldQueue(): Promise<void> {
    await this.fold(this.#queue.splice(0));
  }

  /** Folds events, in order per stream; those already folded are passed over. */
  async fold(events: StoredEvent[]): Promise<void> {
    await this.#loadRows(events);
    for (const event of events) {
      const row = this.#rows.get(event.execution_id);
      if (!row) continue;
      const expected = expectedVersion(row, event);
      if (expected === event.version) {
        this.#rows.set(event.execution_id, foldEvent(row, event));
        this.#dirty.add(event.execution_id);
      } else if (expected !== "old") {
        this.gaps += 1;
      }
    }
  }

  async #loadRows(events: StoredEvent[]): Promise<void> {
    const missing = new Set<string>();
    for (const event of events) {
      if (this.#rows.has(event.execution_id)) continue;
      // The start's own append made this row: nothing in it is not in the event.
      if (event.event_type === "playbook.initialized") this.#rows.set(event.execution_id, emptyRow(event));
      else missing.add(event.execution_id);
    }
    const wanted = [...missing].filter(id => !this.#rows.has(id));
    if (wanted.length === 0) return;
    for (const row of await readExecutions(this.#database, wanted)) {
      this.#rows.set(row.execution_id, row);
    }
  }

  /** Writes changed rows and names them. Undefined when the shard has a newer holder: all here is stale. */
  async write(claim: ShardClaim): Promise<string[] | undefined> {
    const ids = [...this.#dirty];
    if (ids.length === 0) return [];
    const rows = ids.map(id => this.#rows.get(id) as ExecutionRow);
    const ours = await writeExecutions(this.#database, claim, rows);
    if (!ours) return undefined;
    for (const id of ids) {
      this.#dirty.delete(id);
      if (OVER.has(this.#rows.get(id)?.status ?? "")) this.#rows.delete(id);
    }
    for (const id of this.#rows.keys()) {
      if (this.#rows.size <= ROWS_MAX) break;
      if (!this.#dirty.has(id)) this.#rows.delete(id);
    }
    return ids;
  }
}

/** The row of an execution folded from nothing but its events. */
export function rebuildRow(events: StoredEvent[]): ExecutionRow | undefined {
  const first = events.find(event => event.event_type === "playbook.initialized");
  if (first?.event_type !== "playbook.initialized") return undefined;
  const own = events.filter(event => event.stream_id === event.execution_id);
  const others = events.filter(event => event.stream_id !== event.execution_id);
  let row = emptyRow(first);
  for (const event of [...own, ...others]) {
    if (expectedVersion(row, event) === event.version) row = foldEvent(row, event);
  }
  return row;
}
