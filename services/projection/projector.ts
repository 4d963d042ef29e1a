// The projector: folds events into rows and writes the changed ones, fenced by its claim on the
// shard.
import type { StoredEvent } from "../../schemas/events.ts";
import type { ExecutionRow, ShardClaim } from "../../mixins/postgres/execution.ts";
import type { Gap } from "../../mixins/postgres/follow.ts";
import { keepNewest } from "../../mixins/newest.ts";
import type { ProjectionStore } from "../../mixins/projection-store.ts";
import { emptyRow, expectedVersion, foldNext, isAwaited, newestOf, type Folded } from "./fold.ts";

/** Hinted events kept at most; of more than these only the newest of each stream. */
const QUEUE_MAX = 50_000;
/** Rows kept in memory between writes. */
const ROWS_MAX = 10_000;
/** Runs that have ended of which it is known how far their rows are: the log brings them again. */
const ENDED_MAX = 2_000;
/** Streams whose missing versions are read at once, and events of one and of all of them. */
const GAPS_MAX = 500;
const GAP_EVENTS = { page: 1_000, all: 5_000 };

const OVER = new Set(["COMPLETED", "FAILED", "CANCELLED"]);

/** Rows being folded. One caller at a time drains it. */
export class Projector {
  readonly #store: ProjectionStore;
  #queue: StoredEvent[] = [];
  /** Runs of which something that is awaited waits. */
  readonly #awaited = new Set<string>();
  #rows = new Map<string, ExecutionRow>();
  #dirty = new Set<string>();
  readonly #ended = new Map<string, Folded>();
  /** Begun by this process just now: nothing of them is folded yet, here or elsewhere. */
  readonly #begun = new Set<string>();
  /** Events that did not follow on what is folded, and those that were read to fill such gaps. */
  readonly counters = { early: 0, filled: 0 };

  constructor(store: ProjectionStore) {
    this.#store = store;
  }

  get waiting(): number {
    return this.#queue.length;
  }

  /** Among what waits is something that is awaited. */
  get isAwaited(): boolean {
    return this.#awaited.size > 0;
  }

  /** `isNews`: this process has just committed them, and folds every run from here on. */
  hint(events: StoredEvent[], isNews = false): void {
    for (const event of events) {
      const { execution_id, event_type } = event;
      this.#queue.push(event);
      if (isAwaited(event)) this.#awaited.add(execution_id);
      if (isNews && event_type === "playbook.initialized") this.#begun.add(execution_id);
    }
    if (this.#queue.length > QUEUE_MAX) this.#queue = newestOf(this.#queue).slice(-QUEUE_MAX);
    keepNewest(this.#begun, QUEUE_MAX);
  }

  /** What was hinted and is not folded yet; it is the caller's now. */
  take(): StoredEvent[] {
    this.#awaited.clear();
    return this.#queue.splice(0);
  }

  /** The same, of those runs alone of which something is awaited. */
  takeAwaited(): StoredEvent[] {
    if (!this.isAwaited) return [];
    const taken = this.#queue.filter(event => this.#awaited.has(event.execution_id));
    this.#queue = this.#queue.filter(event => !this.#awaited.has(event.execution_id));
    this.#awaited.clear();
    return taken;
  }

  /** Forgets the rows: they may not be as they were written. */
  forget(): void {
    this.#rows.clear();
    this.#dirty.clear();
    this.#ended.clear();
    this.#begun.clear();
  }

  forgetRow(executionId: string): void {
    this.#rows.delete(executionId);
    this.#dirty.delete(executionId);
    this.#ended.delete(executionId);
  }

  /**
   * Folds events, in order per stream; those already folded are passed over. What is missing before
   * one of them is read from the log: when that is much, the rest of it waits for the next time.
   */
  async fold(events: StoredEvent[]): Promise<void> {
    const early = await this.#apply(events);
    if (early.length === 0) return;
    this.counters.early += early.length;
    const found = await this.#store.gaps(this.#gapsBefore(early), GAP_EVENTS);
    this.counters.filled += found.length;
    const left = await this.#apply([...found, ...early]);
    if (left.length < found.length + early.length) this.hint(left);
  }

  /** Gives back the events before which others are missing. */
  async #apply(some: StoredEvent[]): Promise<StoredEvent[]> {
    const early: StoredEvent[] = [];
    const events = some.filter(event => !this.#isOld(event));
    await this.#loadRows(events);
    for (const event of events) {
      const row = this.#rows.get(event.execution_id);
      if (!row) continue;
      const next = foldNext(row, event);
      if (next === "gap") early.push(event);
      if (typeof next === "string") continue;
      this.#rows.set(event.execution_id, next);
      this.#dirty.add(event.execution_id);
    }
    return early;
  }

  /** A run that has ended has it in its row. */
  #isOld(event: StoredEvent): boolean {
    const ended = this.#ended.get(event.execution_id);
    return ended !== undefined && expectedVersion(ended, event) === "old";
  }

  #gapsBefore(early: StoredEvent[]): Gap[] {
    const gaps: Gap[] = [];
    for (const event of newestOf(early)) {
      const { execution_id, stream_id, version: before } = event;
      const next = expectedVersion(this.#rows.get(execution_id) as ExecutionRow, event);
      if (next !== "old") gaps.push({ execution_id, stream_id, after: next - 1, before });
    }
    return gaps.slice(0, GAPS_MAX);
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
      const isStart = event.event_type === "playbook.initialized";
      const isNew = this.#begun.delete(execution_id) && isStart;
      if (isStart) (isNew ? this.#rows : starts).set(execution_id, emptyRow(event));
      if (!isNew) missing.add(execution_id);
    }
    if (missing.size === 0) return;
    for (const row of await this.#store.read([...missing])) {
      this.#rows.set(row.execution_id, row);
      starts.delete(row.execution_id);
    }
    for (const [id, row] of starts) this.#rows.set(id, row);
  }

  /**
   * Writes changed rows and gives them. Undefined when the shard has a newer holder: all here is
   * stale.
   */
  async write(claim: ShardClaim): Promise<ExecutionRow[] | undefined> {
    const rows = [...this.#dirty].map(id => this.#rows.get(id) as ExecutionRow);
    if (rows.length === 0) return [];
    const ours = await this.#store.write(claim, rows);
    if (!ours) return undefined;
    for (const row of rows) {
      this.#dirty.delete(row.execution_id);
      if (OVER.has(row.status)) this.#letGo(row);
    }
    for (const id of this.#rows.keys()) {
      if (this.#rows.size <= ROWS_MAX) break;
      if (!this.#dirty.has(id)) this.#rows.delete(id);
    }
    return rows;
  }

  #letGo({ execution_id, version, state }: ExecutionRow): void {
    this.#rows.delete(execution_id);
    this.#ended.set(execution_id, { version, state });
    keepNewest(this.#ended, ENDED_MAX);
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
