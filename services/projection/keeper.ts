// The keeper of the projection in one process: hints are written at once, the log is followed
// surely. While another node keeps it, this one's commits are hinted to that node.
import type { Service } from "moleculer";
import type { Runtime } from "../../mixins/runtime.ts";
import type { ShardClaim } from "../../mixins/postgres/execution.ts";
import type { LogPosition } from "../../mixins/postgres/follow.ts";
import { Rejected, Unavailable } from "../../schemas/errors.ts";
import type { StoredEvent } from "../../schemas/events.ts";
import type { HintSender, Taken } from "./hints.ts";
import { Projector, rebuildRow } from "./projector.ts";

/** One shard: every execution. Its holder is fenced by an epoch. */
export const SHARD = 0;
const LEASE_MS = 5_000;
/** How often one that does not hold the shard looks whether it is free. */
const LOOK_MS = 1_000;
/** How often the log is followed. */
const FOLLOW_MS = 500;
/** The longest a hint waits for others, to be written with them. */
const WRITE_MS = 100;
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
  /** When the oldest hint is due; Infinity without one. */
  #writeAt = Infinity;
  #stopped = false;
  #wake = () => {};
  /** Something is due that was not when the pause began. */
  #shorten = () => {};
  #running: Promise<void> = Promise.resolve();
  #last: Promise<unknown> = Promise.resolve();
  #unsubscribe = () => {};
  /** The last page of the log was full. */
  #isBehind = false;
  /** A page of the log that is on its way; hints are kept meanwhile. */
  #following: Promise<void> | undefined;
  /** Told whether what is awaited of the hints at present was written. */
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
    this.#unsubscribe = this.#runtime.feed.subscribe(events => this.#hint(events, true));
    this.#running = this.#run();
  }

  /** Writes what was hinted and gives the shard back at once. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#unsubscribe();
    this.#wake();
    await this.#running;
    await this.#following;
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
   * Hints of another node; answers when what is awaited of them is written, or at once that they
   * are not kept here.
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

  /** What is awaited is written without delay; anything else may gather. */
  #hint(events: StoredEvent[], isNews = false): void {
    if (!this.#claim) return this.#others.push(events);
    this.#projector.hint(events, isNews);
    if (this.#projector.isAwaited) this.#wake();
    else this.#schedule();
  }

  #schedule(): void {
    if (this.#projector.waiting === 0) {
      this.#writeAt = Infinity;
    } else if (this.#writeAt === Infinity) {
      this.#writeAt = this.#runtime.clock.now() + WRITE_MS;
      this.#shorten();
    }
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
    if (this.#following || clock.now() < this.#followAt) return;
    this.#following = this.#follow(claim)
      .catch((err: unknown) => {
        this.#logger.warn({ err }, "projection.follow_later");
        this.#isBehind = false;
        this.#followAt = clock.now() + FOLLOW_MS;
      })
      .finally(() => {
        this.#following = undefined;
        this.#shorten();
      });
  }

  /**
   * Folds and writes what was hinted: all that is due, or else of those runs of which something is
   * awaited. What could not be written waits for the next time.
   */
  async #keepHints(claim: ShardClaim): Promise<boolean> {
    const told = this.#told;
    this.#told = Promise.withResolvers();
    const isDue = this.#runtime.clock.now() >= this.#writeAt || this.#stopped;
    if (isDue) this.#writeAt = Infinity;
    const events = isDue ? this.#projector.take() : this.#projector.takeAwaited();
    let isKept = false;
    try {
      isKept = await this.#keep(claim, events);
    } finally {
      told.resolve(isKept);
      if (!isKept) this.#hint(events);
    }
    this.#schedule();
    return isKept;
  }

  /** Until something awaited is hinted, or anything is due. */
  async #pause(): Promise<void> {
    if (this.#stopped) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    const { clock } = this.#runtime;
    let cancel = () => {};
    this.#wake = () => {
      cancel();
      resolve();
    };
    this.#shorten = () => {
      cancel();
      cancel = clock.after(this.#idleMs(), this.#wake);
    };
    if (this.#projector.isAwaited) this.#wake();
    else this.#shorten();
    await promise;
    this.#wake = this.#shorten = () => {};
  }

  /** Whoever does not hold the shard follows nothing, and only looks whether it is free. */
  #idleMs(): number {
    const dues = [this.#renewAt];
    if (this.#claim) dues.push(this.#writeAt);
    if (this.#claim && !this.#following) dues.push(this.#isBehind ? 0 : this.#followAt);
    return Math.min(FOLLOW_MS, Math.max(0, Math.min(...dues) - this.#runtime.clock.now()));
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

  /** One page: a later turn goes on when there is more. */
  async #follow(claim: ShardClaim): Promise<void> {
    const { clock, rows } = this.#runtime;
    const { events, position } = await rows.follow(this.#position, FOLLOW_PAGE);
    const isOurs = () => this.#claim?.epoch === claim.epoch;
    const isKept = await this.#alone(async () => isOurs() && this.#keep(claim, events));
    if (!isKept) return;
    if (events.length > 0) await rows.save(claim, position);
    if (!isOurs()) return;
    this.#position = position;
    this.#isBehind = events.length === FOLLOW_PAGE;
    if (!this.#isBehind) this.#followAt = clock.now() + FOLLOW_MS;
  }

  /** Folds events and writes the rows; false when the shard is another's by now. */
  async #keep(claim: ShardClaim, events: StoredEvent[]): Promise<boolean> {
    try {
      await this.#projector.fold(events);
      const written = await this.#projector.write(claim);
      if (!written) this.#lose();
      else if (written.length > 0) {
        this.#runtime.shown.push(new Map(written.map(row => [row.execution_id, row])));
      }
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
