/** The opening of a cursor loop: the limits of its slots and frames (playbook-dsl §1.11.2). */
import { isObject } from "../json.ts";
import { LoopError, mayFailOf, positive, wholeNumber } from "./loop-numbers.ts";
import type { Loop, Step } from "./model.ts";
import { renderValue } from "./render.ts";
import type { Scope } from "./template-values.ts";

/** What each slot of a cursor loop goes by. Seconds, bytes, rows. */
export interface CursorPlan {
  /** Rows of one claim: `__frame_max_rows` in the claim's SQL. */
  max_rows: number;
  /** A frame that is older, or has given more bytes of results, starts no further row. */
  max_seconds: number;
  max_bytes: number;
  /** Shown to readers of `noetl.frame`: what ends a lease is the worker's silence (design §5.5). */
  lease_seconds: number;
  /** A frame that has told nothing for so long says that it lives. */
  heartbeat_seconds: number;
  /** Rows of a frame that run at once. */
  row_concurrency: number;
  /** The step runs for each row, or once for all rows of a frame. */
  process: "row" | "frame";
  /** Claims that failed are made again, or not. */
  retry_mode: "whole_frame" | "none";
  max_attempts: number;
  /** Claims of one slot: what ends a claim that never runs dry. */
  max_iterations: number;
  /** Rows that may fail without failing the loop; absent: all (playbook-dsl §1.11.2). */
  tolerated?: { count: number; percent: number };
}

const COUNTS = { max_rows: 1, max_bytes: 67_108_864, row_concurrency: 1, max_attempts: 3 };
const SECONDS = { max_seconds: 30, lease_seconds: 120, heartbeat_seconds: 30 };
const WORDS = { process: ["row", "frame"], retry_mode: ["whole_frame", "none"] } as const;
const ITERATIONS = 100_000;
/** Neither a frame's rows nor what its slot remembers of them may grow without bound. */
const ROWS_MAX = 10_000;

/** Throws LoopError and TemplateError for what cannot be a limit. */
export function planCursor(step: Step, loop: Loop, templates: Scope): CursorPlan {
  const frame = filled(loop.frame, templates);
  const options = filled(loop.cursor?.["options"], templates);
  const field = (name: string) => `loop.spec.frame.${name}`;
  const count = (name: keyof typeof COUNTS) =>
    wholeNumber(field(name), frame[name] ?? COUNTS[name]);
  const seconds = (name: keyof typeof SECONDS) =>
    positive(field(name), frame[name] ?? SECONDS[name]);
  const max_rows = count("max_rows");
  if (max_rows > ROWS_MAX) {
    throw new LoopError(`${field("max_rows")} gave ${max_rows}, expected at most ${ROWS_MAX}`);
  }
  return {
    max_rows,
    max_seconds: seconds("max_seconds"),
    max_bytes: count("max_bytes"),
    lease_seconds: seconds("lease_seconds"),
    heartbeat_seconds: seconds("heartbeat_seconds"),
    row_concurrency: count("row_concurrency"),
    process: wordOf("process", frame["process"]),
    retry_mode: wordOf("retry_mode", frame["retry_mode"]),
    max_attempts: count("max_attempts"),
    max_iterations: wholeNumber(
      "loop.cursor.options.max_iterations",
      options["max_iterations"] ?? ITERATIONS,
    ),
    ...toleratedOf(step, loop),
  };
}

function filled(fields: unknown, templates: Scope): Record<string, unknown> {
  return isObject(fields) ? (renderValue(fields, templates, "typed") as typeof fields) : {};
}

function wordOf<Name extends keyof typeof WORDS>(
  name: Name,
  given: unknown,
): (typeof WORDS)[Name][number] {
  const words: readonly unknown[] = WORDS[name];
  const word = given ?? WORDS[name][0];
  if (words.includes(word)) return word as (typeof WORDS)[Name][number];
  throw new LoopError(
    `loop.spec.frame.${name} gave ${JSON.stringify(given)}, expected ${words.join(" or ")}`,
  );
}

function toleratedOf(step: Step, loop: Loop): Pick<CursorPlan, "tolerated"> {
  const { toleratedFailureCount: count, toleratedFailurePercent: percent } = loop;
  const isTold = count !== undefined || percent !== undefined;
  if (!isTold || step.failureMode === "best_effort") return {};
  return { tolerated: { count: count ?? 0, percent: percent ?? 0 } };
}

/** How many of so many rows may have failed. A share is known only when all rows are. */
export function mayFail({ tolerated }: CursorPlan, rows: number, isWhole: boolean): number {
  if (!tolerated) return Infinity;
  if (tolerated.percent > 0 && !isWhole) return Infinity;
  return mayFailOf(rows, tolerated);
}
