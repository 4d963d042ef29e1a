/**
 * What a person sees while an execution runs: one line redrawn in place, or plain lines in a file.
 */
import { isObject } from "../schemas/json.ts";
import { counted, formatDuration, painter } from "./terminal.ts";
import type { Screen } from "./terminal.ts";
import type { ExecutionView, LoopProgress } from "./execution-view.ts";

/** Redrawing faster than the eye reads only costs. */
export const REDRAW_MS = 100;
/** Where lines stay (a file, CI), the same loop is mentioned this often. */
const PLAIN_LINE_MS = 5_000;
const FRAMES = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];
const CLEAR_LINE = "\r\u001b[2K";

export interface Progress {
  /** Shows what is new in the view; called at most every REDRAW_MS. */
  show(view: ExecutionView, nowMs: number): void;
  /** Removes the live line, so that other words can be printed. */
  clear(): void;
}

export function openProgress(screen: Screen, startMs: number): Progress {
  return screen.live ? liveProgress(screen, startMs) : plainProgress(screen, startMs);
}

function liveProgress(screen: Screen, startMs: number): Progress {
  const paint = painter(screen.colored);
  const rates = new Rates();
  let frame = 0;
  return {
    show(view, nowMs) {
      const mark = FRAMES[frame++ % FRAMES.length] ?? "";
      const words = describeProgress(view, rates, nowMs);
      const line = `${mark} ${words}  ${formatDuration(nowMs - startMs)}`;
      const room = Math.max(10, screen.columns - 1);
      const cut = line.length > room ? `${line.slice(0, room - 1)}…` : line;
      screen.write(CLEAR_LINE + paint(cut, "cyan"));
    },
    clear: () => screen.write(CLEAR_LINE),
  };
}

function plainProgress(screen: Screen, startMs: number): Progress {
  const rates = new Rates();
  let lastStep = "";
  let lastLineMs = 0;
  return {
    show(view, nowMs) {
      const step = view.last_node_name ?? "";
      const isNews = step !== lastStep;
      const isDue = nowMs - lastLineMs >= PLAIN_LINE_MS;
      if (step === "" || (!isNews && !isDue)) return;
      lastStep = step;
      lastLineMs = nowMs;
      screen.write(`${formatDuration(nowMs - startMs)}  ${describeProgress(view, rates, nowMs)}\n`);
    },
    clear: () => undefined,
  };
}

/** `load_orders · fetch_details 37/120, 1 failed, 8 running, 42/s`. */
export function describeProgress(view: ExecutionView, rates: Rates, nowMs: number): string {
  const running = Object.entries(view.loop_progress ?? {}).filter(([, loop]) => !loop.completed);
  const loops = running.map(([step, loop]) => describeLoop(step, loop, rates, nowMs));
  const step = stepName(view.last_node_name);
  const named = running.some(([name]) => name === step);
  const first = view.status === "RUNNING" ? step || "starting" : view.status.toLowerCase();
  return [...(named ? [] : [first]), ...loops].join(" · ");
}

/** Pipelines appear as `step:task_sequence` in the events of NoETL. */
function stepName(node: string | null | undefined): string {
  return (node ?? "").replace(/:task_sequence$/, "");
}

function describeLoop(step: string, loop: LoopProgress, rates: Rates, nowMs: number): string {
  const ended = loop.done + loop.failed;
  const rate = rates.of(loop.loop_id ?? step, ended, nowMs);
  const total = loop.mode === "cursor" ? " rows" : `/${loop.total.toLocaleString("en-US")}`;
  const parts = [`${step} ${ended.toLocaleString("en-US")}${total}`];
  if (loop.failed > 0) parts.push(`${loop.failed} failed`);
  if (loop.in_flight) parts.push(`${loop.in_flight} running`);
  if (rate !== undefined) parts.push(`${rate}/s`);
  return parts.join(", ");
}

/** How fast each loop goes: over the last seconds, not since the start. */
export class Rates {
  readonly #seen = new Map<string, { atMs: number; ended: number }[]>();
  static readonly windowMs = 5_000;

  of(loop: string, ended: number, nowMs: number): string | undefined {
    const samples = this.#seen.get(loop) ?? [];
    this.#seen.set(loop, samples);
    samples.push({ atMs: nowMs, ended });
    while (samples.length > 2 && nowMs - (samples[0]?.atMs ?? 0) > Rates.windowMs) samples.shift();
    const first = samples[0];
    if (!first || nowMs - first.atMs < 500) return undefined;
    const rate = ((ended - first.ended) * 1_000) / (nowMs - first.atMs);
    return rate >= 10 ? Math.round(rate).toLocaleString("en-US") : rate.toFixed(1);
  }
}

const MARKS: Record<string, [string, "green" | "red" | "yellow"]> = {
  COMPLETED: ["✔", "green"],
  FAILED: ["✘", "red"],
  CANCELLED: ["■", "yellow"],
};
/** A result beyond this is for `noetl status --json`, not for a summary. */
const RESULT_MAX_CHARS = 300;

/** The last words of a run, line by line. */
export function summaryLines(view: ExecutionView, colored: boolean): string[] {
  const paint = painter(colored);
  const [mark, color] = MARKS[view.status] ?? ["●", "yellow" as const];
  const duration = formatDuration(view.duration_ms ?? 0);
  const word = paint(`${mark} ${view.status}`, color);
  const head = `${word}  ${paint(view.path, "bold")}  ${duration}`;
  const lines = [head, paint(`  execution ${view.execution_id}`, "dim")];
  const counts = countLine(view);
  if (counts !== undefined) lines.push(`  ${counts}`);
  for (const [step, loop] of Object.entries(view.loop_progress ?? {})) {
    const failed = loop.failed > 0 ? paint(`, ${loop.failed} failed`, "red") : "";
    lines.push(`  ${step}: ${loop.done.toLocaleString("en-US")} of ${itemsOf(loop)}${failed}`);
  }
  lines.push(...errorOf(view).map(line => paint(`  ${line}`, "red")));
  const result = shownResult(view);
  if (result !== undefined) lines.push(`  result ${result}`);
  return lines;
}

/** Entries into steps, and attempts after the first, as the projection counted them. */
function countLine({ state, loop_progress: loops = {} }: ExecutionView): string | undefined {
  const counts = state?.["counts"];
  if (!isObject(counts)) return undefined;
  const steps = Number(counts["steps"] ?? 0);
  const inLoops = Object.values(loops).reduce((sum, loop) => sum + (loop.retries ?? 0), 0);
  const retries = Number(counts["retries"] ?? 0) + inLoops;
  const again = retries === 1 ? "1 retry" : `${retries.toLocaleString("en-US")} retries`;
  return retries > 0 ? `${counted(steps, "step")}, ${again}` : counted(steps, "step");
}

function itemsOf({ mode, total }: LoopProgress): string {
  return counted(total, mode === "cursor" ? "row" : "iteration");
}

function errorOf({ error }: ExecutionView): string[] {
  if (error === undefined || error === null) return [];
  if (typeof error !== "object" || Array.isArray(error)) return [`error: ${String(error)}`];
  const { step, message } = error as { step?: unknown; message?: unknown };
  const text = typeof message === "string" ? message : JSON.stringify(error);
  return [typeof step === "string" ? `step '${step}': ${text}` : `error: ${text}`];
}

function shownResult({ status, result }: ExecutionView): string | undefined {
  if (status !== "COMPLETED" || result === undefined || result === null) return undefined;
  // Of a large result the reference carries the small fields of its top level.
  const reference = isObject(result) ? result["reference"] : undefined;
  const text = JSON.stringify(isObject(reference) ? (reference["extract"] ?? {}) : result);
  if (text === "{}" || text === "[]") return undefined;
  return text.length <= RESULT_MAX_CHARS ? text : undefined;
}
