// A round of a cursor's slot at its worker: rows that the user's SQL claims, run and told as they
// are done. What a frame has claimed and cannot run, it leaves to the slot's next one.
import type { FrameReport, OutcomeInput } from "../../schemas/command.ts";
import { INLINE_RESULT_BYTES_MAX } from "../../schemas/events.ts";
import type { ClaimedRow, GrantedCursor } from "../../schemas/frozen-scope.ts";
import { partsOf } from "../../schemas/playbook/kept-roots.ts";
import type { ScopeParts } from "../../schemas/playbook/scope.ts";
import { fits, type Json, type JsonObject } from "../../schemas/json.ts";
import { fromRanges, toRanges } from "../../schemas/ranges.ts";
import {
  emptyBatch,
  isDue,
  keptOf,
  record,
  reportOf,
  withinBounds,
  type ToldFrame,
} from "./batch.ts";
import { claimRows, factsOf } from "./cursor-claim.ts";
import type { PipelineOutcome } from "./pipeline.ts";
import { cutError, runTasks, writesOf, type OpenCommand } from "./run.ts";
import { SharedSlot } from "./shared-slot.ts";

/** Tells the owner; false when the frame is no longer this worker's. */
type Flush = (report: Omit<ToldFrame, "frame"> & Pick<OutcomeInput, "frame">) => Promise<boolean>;

/**
 * Claims rows, or takes those that the slot's last frame left, and runs them. An abort and a world
 * that is away leave what is not done to the slot's next frame, and throw.
 */
export async function runCursorFrame(command: OpenCommand, flush: Flush): Promise<void> {
  const cursor = command.grant.cursor as GrantedCursor;
  const frame = new CursorFrame({ command, cursor, flush });
  const stopBeats = frame.beat();
  try {
    const started = performance.now();
    const claimed = await claimRows(command, cursor);
    const stats = { task_runs: 1, retries: 0, duration_ms: msSince(started) };
    if ("error" in claimed) await flush({ result: { status: "error", ...claimed }, stats });
    else await frame.run(claimed.rows);
  } finally {
    stopBeats();
  }
}

/** A frame says that it lives neither all the time nor later than a timer can wait. */
const BEAT_MS_MIN = 100;
const BEAT_MS_MAX = 86_400_000;

function msSince(moment: number): number {
  return Math.round(performance.now() - moment);
}

interface Row extends ClaimedRow {
  number: number;
}

/** A frame from its claim to its last report. */
class CursorFrame {
  readonly #command: OpenCommand;
  readonly #cursor: GrantedCursor;
  readonly #flush: Flush;
  readonly #slot: SharedSlot;
  readonly #started = performance.now();
  #rows: Row[] = [];
  #values: Json[] = [];
  #batch = emptyBatch();
  /** Numbers of rows whose outcome is in a batch. */
  readonly #done = new Set<number>();
  #seen: JsonObject = {};
  #failures = 0;
  #bytes = 0;
  #flushes = 0;
  #toldAt = performance.now();
  /** It is no longer this worker's, or one of its rows could not be run. */
  #isLost = false;
  /** Its last report is told. */
  #isOver = false;

  constructor(of: { command: OpenCommand; cursor: GrantedCursor; flush: Flush }) {
    this.#cursor = of.cursor;
    this.#flush = of.flush;
    this.#slot = new SharedSlot(wait => of.command.options.suspended(wait));
    const { suspended } = this.#slot;
    const options = { ...of.command.options, suspended, waiting: suspended };
    this.#command = { ...of.command, options };
  }

  async run(claimed: ClaimedRow[]): Promise<void> {
    const { left, told, limits } = this.#cursor;
    const known = new Set(fromRanges(told, 0, claimed.length));
    const rows = claimed.map((row, number) => ({ ...row, number }));
    this.#rows = rows.filter(({ number }) => !known.has(number));
    this.#values = this.#rows.map(({ row }) => row);
    if (rows.length === 0 && !left) return void (await this.#tell({ final: true, drained: true }));
    try {
      if (limits.process === "frame") await this.#runWhole();
      else await this.#runRows();
    } catch (error) {
      await this.#end().catch(() => false);
      throw error;
    }
    await this.#end();
  }

  /** While rows take long, says that the frame goes on. Gives what ends it. */
  beat(): () => void {
    const { clock } = this.#command.runtime;
    const asked = this.#cursor.limits.heartbeat_seconds * 1_000;
    const ms = Math.min(BEAT_MS_MAX, Math.max(BEAT_MS_MIN, asked));
    let cancel = clock.after(ms, () => void again());
    const again = async () => {
      if (performance.now() - this.#toldAt >= ms) {
        // Only an abort fails it, and that the rows meet too.
        await this.#tell({ final: false }).catch(() => undefined);
      }
      if (!this.#isLost) cancel = clock.after(ms, () => void again());
    };
    return () => {
      this.#isLost = true;
      cancel();
    };
  }

  /** So many rows at once, each of them begun only while the frame may go on. */
  async #runRows(): Promise<void> {
    const queue = this.#rows.values();
    const lane = async () => {
      for (const row of queue) {
        if (this.#mustEnd()) return;
        await this.#slot.run(() => this.#runRow(row));
        if (isDue(this.#batch)) await this.#tell({ final: false });
      }
    };
    const width = Math.min(this.#cursor.limits.row_concurrency, this.#rows.length);
    const lanes = Array.from({ length: width }, () =>
      lane().catch((error: unknown) => {
        this.#isLost = true;
        throw error;
      }),
    );
    const ended = await Promise.allSettled(lanes);
    for (const one of ended) if (one.status === "rejected") throw one.reason;
  }

  #mustEnd(): boolean {
    const { limits, tolerance = Infinity } = this.#cursor;
    this.#command.options.signal.throwIfAborted();
    if (this.#isLost || this.#failures > tolerance) return true;
    if (this.#done.size === 0) return false;
    const seconds = (performance.now() - this.#started) / 1_000;
    return seconds > limits.max_seconds || this.#bytes > limits.max_bytes;
  }

  async #runRow({ key, row, number }: Row): Promise<void> {
    const parts = this.#partsOf(row, number, {});
    const outcome = withinBounds(await runTasks(this.#command, this.#command.step, parts, key));
    const { ctx = {} } = await writesOf(this.#command, outcome, key);
    this.#take([number], outcome, ctx);
    this.#bytes += record(this.#batch, number, outcome, ctx);
    if (outcome.status === "error" && fits(row, INLINE_RESULT_BYTES_MAX)) {
      this.#batch.items[number] = row;
    }
  }

  /** The step once, for all rows (`process: frame`). */
  async #runWhole(): Promise<void> {
    const numbers = this.#rows.map(({ number }) => number);
    const [first] = this.#rows;
    if (!first) return;
    const rows = this.#values;
    const parts = this.#partsOf(rows, 0, { [`${this.#cursor.iterator}_rows`]: rows });
    const outcome = await this.#slot.run(() =>
      runTasks(this.#command, this.#command.step, parts, first.key),
    );
    const { ctx = {} } = await writesOf(this.#command, outcome, first.key);
    const { status, task_runs, retries } = outcome;
    const error = outcome.error && cutError(outcome.error);
    const data: Json = {
      frame: status === "ok" ? outcome.result : null,
      ...(error && { errors: { [first.number]: { ...error } } }),
    };
    const kept = await keptOf(this.#command, data, this.#place());
    const duration_ms = msSince(this.#started);
    this.#take(numbers, outcome, ctx);
    const [ok, failed] = status === "ok" ? [toRanges(numbers), ""] : ["", toRanges(numbers)];
    await this.#send({
      result: { status: "ok", ...kept, ...(error && { error }) },
      frame: { ok, failed, final: true, ...(outcome.broke && { broke: numbers.length }) },
      ...(Object.keys(ctx).length > 0 && { ctx }),
      stats: { task_runs, retries, duration_ms },
    });
  }

  #take(numbers: number[], outcome: PipelineOutcome, ctx: JsonObject): void {
    for (const number of numbers) this.#done.add(number);
    if (outcome.status === "error") this.#failures += numbers.length;
    if (this.#cursor.sequential) this.#seen = { ...this.#seen, ...ctx };
  }

  #partsOf(value: Json, index: number, vars: JsonObject): ScopeParts {
    const { scope, loaded } = this.#command;
    const { iterator } = this.#cursor;
    return {
      ...partsOf({ ...scope, ctx: { ...scope.ctx, ...this.#seen } }, loaded),
      iteration: { iterator, value, index, vars },
      frame: { ...factsOf(this.#cursor), rows: this.#values, row_count: this.#values.length },
    };
  }

  #place(): string {
    this.#flushes += 1;
    const { slot, round } = this.#cursor;
    return `c${slot}-${round}-${this.#flushes}`;
  }

  async #tell(more: Pick<FrameReport, "final" | "drained" | "left">): Promise<void> {
    const batch = this.#batch;
    this.#batch = emptyBatch();
    const { broke, ok, failed } = batch;
    const { numbers, ...report } = await reportOf(this.#command, batch, this.#place()).catch(
      (error: unknown) => {
        // Nobody will hear of them: they are done again.
        for (const number of [...ok.keys(), ...failed]) this.#done.delete(number);
        throw error;
      },
    );
    await this.#send({ ...report, frame: { ...numbers, ...more, ...(broke && { broke }) } });
  }

  async #send(report: Parameters<Flush>[0]): Promise<void> {
    this.#toldAt = performance.now();
    const accepted = await this.#flush(report);
    if (!accepted) this.#isLost = true;
    if (report.frame?.final) this.#isOver = true;
  }

  /** The last report, with the rows that are not done: claimed again they would not be. */
  async #end(): Promise<void> {
    if (this.#isOver) return;
    const { tolerance = Infinity } = this.#cursor;
    const rows = this.#rows.filter(({ number }) => !this.#done.has(number));
    if (rows.length === 0 || this.#failures > tolerance) return this.#tell({ final: true });
    const list = rows.map(({ key, row }) => ({ key, row }));
    const { context, reference } = await keptOf(this.#command, list, this.#place());
    const left = reference ? { reference } : { rows: context as Json[] };
    await this.#tell({ final: true, left });
  }
}
