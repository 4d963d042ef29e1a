/**
 * What a person sees while an execution runs: one line redrawn in place, or plain lines in a file.
 */
import { isObject } from "../schemas/json.ts";
import { counted, formatDuration, painter } from "./terminal.ts";
import type { Screen } from "./terminal.ts";
import { progressOf } from "./execution-view.ts";
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
  let frame = 0;
  return {
    show(view, nowMs) {
      const mark = FRAMES[frame++ % FRAMES.length] ?? "";
      const words = describeProgress(view);
      const line = `${mark} ${words}  ${formatDuration(nowMs - startMs)}`;
      const room = Math.max(10, screen.columns - 1);
      const cut = line.length > room ? `${line.slice(0, room - 1)}…` : line;
      screen.write(CLEAR_LINE + paint(cut, "cyan"));
    },
    clear: () => screen.write(CLEAR_LINE),
  };
}

function plainProgress(screen: Screen, startMs: number): Progress {
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
      screen.write(`${formatDuration(nowMs - startMs)}  ${describeProgress(view)}\n`);
    },
    clear: () => undefined,
  };
}

/** `load_orders · fetch_details 37/120 31%, 1 failed, 8 running, 42/s, 2 s left`. */
export function describeProgress(view: ExecutionView): string {
  const running = progressOf(view).filter(([, loop]) => !loop.completed);
  const loops = running.map(([step, loop]) => describeLoop(step, loop));
  const step = stepName(view.last_node_name);
  const named = running.some(([name]) => name === step);
  const first = view.status === "RUNNING" ? step || "starting" : view.status.toLowerCase();
  const isFirst = !named || view.status !== "RUNNING";
  return [...(isFirst ? [first] : []), ...loops].join(" · ");
}

/** Pipelines appear as `step:task_sequence` in the events of NoETL. */
function stepName(node: string | null | undefined): string {
  return (node ?? "").replace(/:task_sequence$/, "");
}

function describeLoop(step: string, loop: LoopProgress): string {
  const ended = loop.done + loop.failed;
  const { total, mode } = loop;
  // Rounded down: 100% is said at the end only. Of a few items nobody needs it.
  const percent = total >= 100 ? ` ${Math.floor((ended * 100) / total)}%` : "";
  const of = mode === "cursor" ? " rows" : `/${total.toLocaleString("en-US")}${percent}`;
  return [`${step} ${ended.toLocaleString("en-US")}${of}`, ...goingOn(loop)].join(", ");
}

/** What is wrong, what runs, how fast it goes and how long it will take. */
function goingOn(loop: LoopProgress): string[] {
  const { failed, in_flight, rate_per_second, eta_seconds, parked } = loop;
  const parts: string[] = [];
  if (failed > 0) parts.push(`${failed.toLocaleString("en-US")} failed`);
  if (loop.not_run) parts.push(`${loop.not_run.toLocaleString("en-US")} not run`);
  if (in_flight) parts.push(`${in_flight} running`);
  if (loop.retries_spent) parts.push(`${loop.retries_spent} of ${loop.retry_budget} retries spent`);
  if (parked) return [...parts, `parked after ${parked.code}, next try at ${timeOf(parked)}`];
  if (typeof rate_per_second === "number") parts.push(`${rateText(rate_per_second)}/s`);
  if (typeof eta_seconds === "number") parts.push(`${timeLeft(eta_seconds)} left`);
  return parts;
}

/** The time of day, as a clock on the wall here shows it. */
function timeOf({ next_try_at }: { next_try_at: number }): string {
  return new Date(next_try_at).toLocaleTimeString("en-GB");
}

function rateText(rate: number): string {
  return rate >= 10 ? Math.round(rate).toLocaleString("en-US") : rate.toFixed(rate < 1 ? 2 : 1);
}

/** In whole seconds: a guess has no tenths. */
function timeLeft(seconds: number): string {
  return seconds < 60 ? `${seconds} s` : formatDuration(seconds * 1_000);
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
  for (const [step, loop] of progressOf(view)) {
    const said = `${loop.done.toLocaleString("en-US")} of ${itemsOf(loop)}`;
    const gathered = loop.mode === "fanout" && loop.completed ? [loop.status ?? ""] : [];
    const parts = [...gathered, ...goingOn(loop)].map(part =>
      part.endsWith("failed") ? paint(part, "red") : part,
    );
    lines.push(`  ${[`${step}: ${said}`, ...parts].join(", ")}`);
  }
  lines.push(...errorOf(view).map(line => paint(`  ${line}`, "red")));
  const result = shownResult(view);
  if (result !== undefined) lines.push(`  result ${result}`);
  return lines;
}

/** Entries into steps, and attempts after the first, as the projection counted them. */
function countLine(view: ExecutionView): string | undefined {
  const counts = view.state?.["counts"];
  if (!isObject(counts)) return undefined;
  const steps = Number(counts["steps"] ?? 0);
  const inLoops = progressOf(view).reduce((sum, [, loop]) => sum + (loop.retries ?? 0), 0);
  const retries = Number(counts["retries"] ?? 0) + inLoops;
  const again = retries === 1 ? "1 retry" : `${retries.toLocaleString("en-US")} retries`;
  return retries > 0 ? `${counted(steps, "step")}, ${again}` : counted(steps, "step");
}

function itemsOf({ mode, total }: LoopProgress): string {
  const one = { cursor: "row", fanout: "shard" };
  return counted(total, mode ? one[mode] : "iteration");
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
