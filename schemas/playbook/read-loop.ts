/** The `loop` of a step: over a collection or over a cursor, local or fanned out. */
import { checkTemplates } from "./check-templates.ts";
import { readMap, refuse, warn } from "./findings.ts";
import {
  cursorGrammar,
  cursorOptionsGrammar,
  fanoutGrammar,
  frameGrammar,
  loopGrammar,
  loopPolicyGrammar,
  loopSpecGrammar,
} from "./grammar.ts";
import type { Loop } from "./model.ts";
import type { Reading } from "./reading.ts";
import type { Path } from "./source.ts";

/** What `step.spec` says about the loop. */
export interface StepLoopSpec {
  loopMode?: "local" | "fanout" | undefined;
  fanout?: Record<string, unknown> | undefined;
}

/** A step's loop; undefined when the step has none. `step` is where the step is written. */
export function readLoop(
  reading: Reading,
  step: Path,
  raw: Record<string, unknown> | undefined,
  { loopMode, fanout }: StepLoopSpec,
): Loop | undefined {
  const fanoutPath = [...step, "spec", "fanout"];
  readMap(reading, fanoutPath, fanoutGrammar, fanout);
  checkTemplates(reading, fanoutPath, fanout);
  if (!raw) {
    if (loopMode !== "fanout") return undefined;
    const message = "loop_mode: fanout needs a loop on the same step";
    refuse(reading, [...step, "spec", "loop_mode"], { message });
    return undefined;
  }
  const path = [...step, "loop"];
  const fields = readMap(reading, path, loopGrammar, raw, { words: "loop" });
  const mayFanOut = (loopMode ?? reading.loopMode) === "fanout";
  const spec = readLoopSpec(reading, [...path, "spec"], fields.spec, mayFanOut);
  const mode = spec.mode ?? "sequential";
  checkSource(reading, path, raw, mode);
  checkTemplates(reading, [...path, "in"], fields.in);
  readCursor(reading, [...path, "cursor"], fields.cursor);
  const isOrdered = spec.mode === "sequential";
  if (loopMode === "fanout" && (fields.cursor || isOrdered)) {
    const message = `a ${fields.cursor ? "cursor" : "sequential"} loop cannot be fanned out`;
    const expected = fields.cursor ? "a loop over 'in'" : "a loop without mode: sequential";
    refuse(reading, [...step, "spec", "loop_mode"], { message, expected });
  }
  // What the executor asks for all of its loops is not for those that are no matter of shards.
  const isFanout = mayFanOut && !fields.cursor && !isOrdered;
  return {
    ...(fields.in !== undefined && { in: fields.in }),
    ...(fields.cursor && { cursor: fields.cursor }),
    iterator: fields.iterator ?? "",
    ...spec,
    mode,
    ...(isFanout && { fanout: { ...withOneName(reading.fanout), ...withOneName(fanout ?? {}) } }),
  };
}

/** `max_job_retries` is an older name of `max_shard_retries`. */
function withOneName({ max_job_retries, ...fanout }: Record<string, unknown>) {
  const retries = fanout["max_shard_retries"] ?? max_job_retries;
  return { ...fanout, ...(retries !== undefined && { max_shard_retries: retries }) };
}

/** Exactly one of `in` and `cursor`; a cursor goes with `mode: cursor` and only with it. */
function checkSource(
  reading: Reading,
  path: Path,
  raw: Record<string, unknown>,
  mode: Loop["mode"],
): void {
  const hasIn = (raw["in"] ?? null) !== null;
  const hasCursor = (raw["cursor"] ?? null) !== null;
  const expected = "exactly one of 'in' and 'cursor'";
  if (hasIn && hasCursor) {
    refuse(
      reading,
      [...path, "cursor"],
      { message: "'in' and 'cursor' are both given", expected },
      "key",
    );
  } else if (!hasIn && !hasCursor) {
    const message = Object.hasOwn(raw, "in") ? "'in' is empty" : "a loop needs 'in'";
    refuse(reading, [...path, "in"], { message, expected });
  } else if (hasCursor && mode !== "cursor") {
    const message = "a cursor needs spec.mode: cursor";
    refuse(reading, [...path, "cursor"], { message, hint: "write spec: {mode: cursor}" }, "key");
  } else if (hasIn && mode === "cursor") {
    const message = "mode: cursor needs 'cursor', not 'in'";
    refuse(reading, [...path, "spec", "mode"], { message, expected: "sequential | parallel" });
  }
}

type LoopSpec = Partial<Loop> & Pick<Loop, "exec">;

function readLoopSpec(
  reading: Reading,
  path: Path,
  raw: Record<string, unknown> | undefined,
  mayFanOut: boolean,
): LoopSpec {
  refuseFanoutMode(reading, path, raw);
  const known = raw?.["mode"] === "fanout" ? { ...raw, mode: undefined } : raw;
  const spec = readMap(reading, path, loopSpecGrammar, known, { words: "loopSpec" });
  const policy = readMap(reading, [...path, "policy"], loopPolicyGrammar, spec.policy);
  readMap(reading, [...path, "frame"], frameGrammar, spec.frame);
  checkTemplates(reading, [...path, "frame"], spec.frame);
  checkTemplates(reading, [...path, "max_in_flight"], spec.max_in_flight);
  checkTemplates(reading, [...path, "retry_budget"], spec.retry_budget);
  checkTemplates(reading, [...path, "policy", "retry_budget"], policy.retry_budget);
  const isOrdered = spec.mode === "sequential" || (spec.mode === undefined && !mayFanOut);
  if (isOrdered && spec.max_in_flight !== undefined) {
    const message = "'max_in_flight' has no effect on a sequential loop";
    if (spec.max_in_flight !== 1) warn(reading, [...path, "max_in_flight"], { message }, "key");
  }
  const percent = spec.tolerated_failure_percent ?? spec.tolerated_failure_percentage;
  const count = spec.tolerated_failure_count;
  const budget = spec.retry_budget ?? policy.retry_budget;
  if (budget && spec.mode === "cursor") {
    const message = "a loop over a cursor has no retry budget";
    const hint = "rows that fail are the table's to offer again; a failed claim is repeated anyway";
    refuse(reading, [...path, "retry_budget"], { message, hint }, "key");
  }
  return {
    ...(spec.mode && { mode: spec.mode }),
    ...(spec.max_in_flight && { maxInFlight: spec.max_in_flight }),
    exec: policy.exec ?? "local",
    ...(spec.frame && { frame: spec.frame }),
    ...(budget && { retryBudget: budget }),
    ...(typeof count === "number" && { toleratedFailureCount: count }),
    ...(typeof percent === "number" && { toleratedFailurePercent: percent }),
  };
}

/** Nearly a mode word, so the hint says where it belongs. */
function refuseFanoutMode(
  reading: Reading,
  path: Path,
  raw: Record<string, unknown> | undefined,
): void {
  if (raw?.["mode"] !== "fanout") return;
  refuse(reading, [...path, "mode"], {
    message: "unknown value 'fanout'",
    expected: "sequential | parallel | cursor",
    hint: "fan-out is asked for on the step: spec: {loop_mode: fanout}",
  });
}

function readCursor(reading: Reading, path: Path, raw: Record<string, unknown> | null | undefined) {
  if (!raw) return;
  const { options } = readMap(reading, path, cursorGrammar, raw);
  readMap(reading, [...path, "options"], cursorOptionsGrammar, options, { extra: "keep" });
  checkTemplates(reading, path, raw);
}
