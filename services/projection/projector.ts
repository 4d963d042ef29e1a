// The projector: folds events into rows and writes the changed ones, fenced by its claim on the
// shard.
import { EXECUTION_TERMINALS, type StoredEvent } from "../../schemas/events.ts";
import type { Database } from "../../mixins/postgres/index.ts";
import {
  readExecutions,
  writeExecutions,
  type ExecutionRow,
  type ShardClaim,
} from "../../mixins/postgres/execution.ts";
import { emptyRow, foldNext } from "./fold.ts";

/** Hinted events kept at most; what is dropped comes again with the log. */
const QUEUE_MAX = 50_000;
/** Rows kept in memory between writes. */
const ROWS_MAX = 10_000;

const TERMINALS: ReadonlySet<string> = new Set(EXECUTION_TERMINALS);
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

  /** Among what waits is the end of a run. */
  get ending(): boolean {
    return this.#queue.some(event => TERMINALS.has(event.event_type));
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
      const next = foldNext(row, event);
      if (next === "gap") this.gaps += 1;
      if (typeof next === "string") continue;
      this.#rows.set(event.execution_id, next);
      this.#dirty.add(event.execution_id);
    }
  }

  /**
   * Rows as they were last written: what was folded before must not be folded again from the start.
   */
  async #loadRows(events: StoredEvent[]): Promise<void> {
    const missing = new Set<string>();
    const starts = new Map<string, ExecutionRow>();
    for (const event of events) {
      const { execution_id } = event;
      if (this.#rows.has(execution_id)) continue;
      missing.add(execution_id);
      if (event.event_type === "playbook.initialized") starts.set(execution_id, emptyRow(event));
    }
    if (missing.size === 0) return;
    for (const row of await readExecutions(this.#database, [...missing])) {
      this.#rows.set(row.execution_id, row);
      starts.delete(row.execution_id);
    }
    for (const [id, row] of starts) this.#rows.set(id, row);
  }

  /**
   * Writes changed rows and names them. Undefined when the shard has a newer holder: all here is
   * stale.
   */
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
    const next = foldNext(row, event);
    if (typeof next !== "string") row = next;
  }
  return row;
}
