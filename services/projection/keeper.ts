// The keeper of the projection in one process: hints are written at once, the log is followed
// surely.
import type { Service } from "moleculer";
import type { Runtime } from "../../mixins/runtime.ts";
import { followLog, readExecution, type LogPosition } from "../../mixins/postgres/event.ts";
import {
  deleteExecution,
  holdShard,
  releaseShard,
  saveCheckpoint,
  writeExecutions,
  type ShardClaim,
} from "../../mixins/postgres/execution.ts";
import { Rejected, Unavailable } from "../../schemas/errors.ts";
import { EXECUTION_TERMINALS, type StoredEvent } from "../../schemas/events.ts";
import { Projector, rebuildRow } from "./projector.ts";

/** One shard: every execution. Its holder is fenced by an epoch. */
const SHARD = 0;
const LEASE_MS = 5_000;
/** How often one that does not hold the shard looks whether it is free. */
const LOOK_MS = 1_000;
/** How often the log is followed, and the longest a hint waits to be written. */
const FOLLOW_MS = 500;
const WRITE_MS = 40;
const FOLLOW_PAGE = 2_000;

const TERMINALS: ReadonlySet<string> = new Set(EXECUTION_TERMINALS);

/** Holds the shard while nobody else does, and keeps its rows true. One loop; `stop` ends it. */
export class ProjectionKeeper {
  readonly #runtime: Runtime;
  readonly #logger: Service["logger"];
  readonly #projector: Projector;
  #claim: ShardClaim | undefined;
  #position: LogPosition = { tx: "0", event_id: "0" };
  #renewAt = 0;
  #followAt = 0;
  #stopped = false;
  #wake = () => {};
  #running: Promise<void> = Promise.resolve();
  #last: Promise<unknown> = Promise.resolve();
  #unsubscribe = () => {};

  constructor(runtime: Runtime, logger: Service["logger"]) {
    this.#runtime = runtime;
    this.#logger = logger;
    this.#projector = new Projector(runtime.database);
  }

  start(): void {
    this.#unsubscribe = this.#runtime.feed.subscribe(events => this.#hint(events));
    this.#running = this.#run();
  }

  /** Writes what was hinted and gives the shard back at once. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#unsubscribe();
    this.#wake();
    await this.#running;
    await this.#last;
    if (!this.#claim) return;
    try {
      await this.#projector.foldQueue();
      if (await this.#write(this.#claim)) await releaseShard(this.#runtime.database, this.#claim);
    } catch (error) {
      this.#logger.warn({ err: error }, "projection.stop");
    }
  }

  /** Makes an execution's row anew from its events alone. Throws Rejected 404 and Unavailable. */
  rebuild(execution_id: string) {
    return this.#alone(() => this.#rebuild(execution_id));
  }

  async #rebuild(execution_id: string) {
    const { database } = this.#runtime;
    const claim = this.#claim;
    const elsewhere = () => new Unavailable("another node keeps the projection; ask there");
    if (!claim) throw elsewhere();
    const row = rebuildRow(await readExecution(database, execution_id));
    if (!row) throw new Rejected(`there is no execution ${execution_id}`, 404, { execution_id });
    this.#projector.forget();
    await database.transaction(async query => {
      await deleteExecution(query, execution_id);
      if (!(await writeExecutions(query, claim, [row]))) throw elsewhere();
    });
    return { execution_id, version: row.version, status: row.status };
  }

  /** One at a time: what is being folded or written must not be forgotten meanwhile. */
  #alone<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#last.then(work);
    this.#last = result.catch(() => undefined);
    return result;
  }

  /** Somebody waits for a run's end: that is written without delay; anything else may gather. */
  #hint(events: StoredEvent[]): void {
    if (!this.#claim) return;
    this.#projector.hint(events);
    if (events.some(event => TERMINALS.has(event.event_type))) this.#wake();
  }

  async #run(): Promise<void> {
    while (!this.#stopped) {
      try {
        await this.#alone(() => this.#turn());
      } catch (error) {
        this.#logger.warn({ err: error }, "projection.retry_later");
        // What was folded may not be what was written: start again from the rows.
        this.#projector.forget();
        await this.#runtime.clock.sleep(FOLLOW_MS);
      }
      await this.#pause();
    }
  }

  async #turn(): Promise<void> {
    const { clock } = this.#runtime;
    if (clock.now() >= this.#renewAt) await this.#renew();
    const claim = this.#claim;
    if (!claim) return;
    await this.#projector.foldQueue();
    if (clock.now() >= this.#followAt) {
      await this.#follow(claim);
      this.#followAt = clock.now() + FOLLOW_MS;
    }
    await this.#write(claim);
  }

  /** Until a run's end is hinted; at most a write's delay when something waits, else a follow's. */
  async #pause(): Promise<void> {
    if (this.#stopped) return;
    await new Promise<void>(resolve => {
      const { clock } = this.#runtime;
      const cancel = clock.after(WRITE_MS, () => {
        if (this.#projector.waiting > 0 || clock.now() >= this.#followAt) this.#wake();
        else cancelLong = clock.after(FOLLOW_MS, () => this.#wake());
      });
      let cancelLong = () => {};
      this.#wake = () => {
        cancel();
        cancelLong();
        this.#wake = () => {};
        resolve();
      };
      if (this.#projector.ending) this.#wake();
    });
  }

  async #renew(): Promise<void> {
    const { clock, database, nodeId: holder } = this.#runtime;
    const held = await holdShard(database, { shard: SHARD, holder, leaseMs: LEASE_MS });
    this.#renewAt = clock.now() + (held ? LEASE_MS / 3 : LOOK_MS);
    if (held && this.#claim?.epoch !== held.epoch) {
      this.#projector.forget();
      this.#position = held.position;
    }
    this.#claim = held;
  }

  async #follow(claim: ShardClaim): Promise<void> {
    const { database } = this.#runtime;
    while (!this.#stopped) {
      const page = await followLog(database, this.#position, FOLLOW_PAGE);
      if (page.events.length === 0) return;
      await this.#projector.fold(page.events);
      if (!(await this.#write(claim))) return;
      await saveCheckpoint(database, claim, page.position);
      this.#position = page.position;
      if (page.events.length < FOLLOW_PAGE) return;
    }
  }

  async #write(claim: ShardClaim): Promise<boolean> {
    const written = await this.#projector.write(claim);
    if (written) {
      if (written.length > 0) this.#runtime.shown.push(new Set(written));
      return true;
    }
    this.#projector.forget();
    this.#claim = undefined;
    this.#renewAt = this.#runtime.clock.now() + LEASE_MS;
    return false;
  }
}
