// The keeper of the projection in one process: hints are written at once, the log is followed
// surely. While another node keeps it, this one's commits are hinted to that node.
import type { Service } from "moleculer";
import type { Runtime } from "../../mixins/runtime.ts";
import type { ShardClaim } from "../../mixins/postgres/execution.ts";
import type { LogPosition } from "../../mixins/postgres/follow.ts";
import { Rejected, Unavailable } from "../../schemas/errors.ts";
import type { StoredEvent } from "../../schemas/events.ts";
import { endsRun } from "./fold.ts";
import type { HintSender, Taken } from "./hints.ts";
import { Projector, rebuildRow } from "./projector.ts";

/** One shard: every execution. Its holder is fenced by an epoch. */
export const SHARD = 0;
const LEASE_MS = 5_000;
/** How often one that does not hold the shard looks whether it is free. */
const LOOK_MS = 1_000;
/** How often the log is followed, and the longest a hint waits to be written. */
const FOLLOW_MS = 500;
const WRITE_MS = 40;
const FOLLOW_PAGE = 2_000;

/** Holds the shard while nobody else does, and keeps its rows true. One loop; `stop` ends it. */
export class ProjectionKeeper {
  readonly #runtime: Runtime;
  readonly #logger: Service["logger"];
  readonly #others: Pick<HintSender, "push" | "take">;
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
  /** The last page of the log was full. */
  #isBehind = false;
  /** Told whether the rows of what is hinted at present were written. */
  #told = Promise.withResolvers<boolean>();

  /** `others`: where commits go while another node holds the shard. */
  constructor(
    runtime: Runtime,
    logger: Service["logger"],
    others: Pick<HintSender, "push" | "take">,
  ) {
    this.#runtime = runtime;
    this.#logger = logger;
    this.#others = others;
    this.#projector = new Projector(runtime.rows);
  }

  get holds(): boolean {
    return this.#claim !== undefined;
  }

  get counters() {
    return this.#projector.counters;
  }

  /** Events that are not folded yet. */
  get waiting(): number {
    return this.#projector.waiting;
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
    const claim = this.#claim;
    if (!claim) return;
    try {
      await this.#keepHints(claim);
      await this.#runtime.rows.release(claim);
    } catch (error) {
      this.#logger.warn({ err: error }, "projection.stop");
    }
    this.#claim = undefined;
    this.#told.resolve(false);
  }

  /**
   * Hints of another node; answers when their rows are written, or at once that they are not kept
   * here.
   */
  async take(events: StoredEvent[]): Promise<Taken> {
    if (!this.#claim || this.#stopped) return { taken: false };
    this.#hint(events);
    return { taken: await this.#told.promise };
  }

  /** Makes an execution's row anew from its events alone. Throws Rejected 404 and Unavailable. */
  rebuild(execution_id: string) {
    return this.#alone(() => this.#rebuild(execution_id));
  }

  async #rebuild(execution_id: string) {
    const { rows } = this.#runtime;
    const claim = this.#claim;
    const elsewhere = () => new Unavailable("another node keeps the projection; ask there");
    if (!claim) throw elsewhere();
    const row = rebuildRow(await rows.log(execution_id));
    if (!row) throw new Rejected(`there is no execution ${execution_id}`, 404, { execution_id });
    this.#projector.forgetRow(execution_id);
    if (!(await rows.replace(claim, row))) throw elsewhere();
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
    if (!this.#claim) return this.#others.push(events);
    this.#projector.hint(events);
    if (events.some(endsRun)) this.#wake();
  }

  async #run(): Promise<void> {
    while (!this.#stopped) {
      try {
        await this.#alone(() => this.#turn());
      } catch (error) {
        this.#logger.warn({ err: error }, "projection.retry_later");
        await this.#runtime.clock.sleep(FOLLOW_MS);
      }
      await this.#pause();
    }
  }

  /** Hints first: however much of the log is to be followed, what happens now is shown now. */
  async #turn(): Promise<void> {
    const { clock } = this.#runtime;
    if (clock.now() >= this.#renewAt) await this.#renew();
    const claim = this.#claim;
    if (!claim) return;
    if (!(await this.#keepHints(claim))) return;
    if (clock.now() >= this.#followAt) await this.#follow(claim);
  }

  /** Folds and writes what was hinted. What could not be written waits for the next time. */
  async #keepHints(claim: ShardClaim): Promise<boolean> {
    const told = this.#told;
    this.#told = Promise.withResolvers();
    const events = this.#projector.take();
    let isKept = false;
    try {
      isKept = await this.#keep(claim, events);
    } finally {
      told.resolve(isKept);
      if (!isKept) this.#hint(events);
    }
    return isKept;
  }

  /** Until a run's end is hinted; at most a write's delay when something waits, else a follow's. */
  async #pause(): Promise<void> {
    if (this.#stopped) return;
    await new Promise<void>(resolve => {
      const { clock } = this.#runtime;
      const cancel = clock.after(WRITE_MS, () => {
        // Whoever does not hold the shard follows nothing, and only looks whether it is free.
        const dueIn = (this.#claim ? this.#followAt : this.#renewAt) - clock.now();
        if (this.#projector.waiting > 0 || dueIn <= 0) this.#wake();
        else cancelLong = clock.after(Math.min(dueIn, FOLLOW_MS), () => this.#wake());
      });
      let cancelLong = () => {};
      this.#wake = () => {
        cancel();
        cancelLong();
        this.#wake = () => {};
        resolve();
      };
      if (this.#projector.ending || this.#isBehind) this.#wake();
    });
  }

  async #renew(): Promise<void> {
    const { clock, rows, nodeId: holder } = this.#runtime;
    const epoch = this.#claim?.epoch;
    const held = await rows.hold({ shard: SHARD, holder, leaseMs: LEASE_MS, epoch });
    this.#renewAt = clock.now() + (held ? LEASE_MS / 3 : LOOK_MS);
    if (held && this.#claim?.epoch !== held.epoch) {
      this.#projector.forget();
      this.#position = held.position;
      // What was meant for the holder is for this node now.
      this.#projector.hint(this.#others.take());
    }
    if (!held) this.#lose();
    else this.#claim = held;
  }

  /** One page: the next turn goes on when there is more. */
  async #follow(claim: ShardClaim): Promise<void> {
    const { clock, rows } = this.#runtime;
    const page = await rows.follow(this.#position, FOLLOW_PAGE);
    this.#isBehind = page.events.length === FOLLOW_PAGE;
    if (!this.#isBehind) this.#followAt = clock.now() + FOLLOW_MS;
    if (page.events.length === 0) return;
    if (!(await this.#keep(claim, page.events))) return;
    await rows.save(claim, page.position);
    this.#position = page.position;
  }

  /** Folds events and writes the rows; false when the shard is another's by now. */
  async #keep(claim: ShardClaim, events: StoredEvent[]): Promise<boolean> {
    try {
      await this.#projector.fold(events);
      const written = await this.#projector.write(claim);
      if (!written) this.#lose();
      else if (written.length > 0) this.#runtime.shown.push(new Set(written));
      return written !== undefined;
    } catch (error) {
      // What was folded may not be what was written: start again from the rows.
      this.#projector.forget();
      throw error;
    }
  }

  /** Another node keeps the shard: what is not written here is for that one. */
  #lose(): void {
    if (!this.#claim) return;
    this.#claim = undefined;
    this.#renewAt = this.#runtime.clock.now() + LOOK_MS;
    this.#isBehind = false;
    this.#projector.forget();
    this.#others.push(this.#projector.take());
    this.#told.resolve(false);
    this.#told = Promise.withResolvers();
  }
}
