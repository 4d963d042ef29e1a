/**
 * The opening of a loop: `loop.in` evaluated once, normalised and frozen, with its window and
 * tolerance.
 */
import { Needs, type TurnContext } from "../decider.ts";
import type { OutcomeResult } from "../events.ts";
import type { FrozenScope, PlaybookPin } from "../frozen-scope.ts";
import type { Bitmap } from "../bitmap.ts";
import type { Redrive } from "../redrive.ts";
import { chunksOf, type ChunkIndex } from "./collection.ts";
import { reopen } from "./loop-origin.ts";
import { fits, isObject, type Json, type JsonObject } from "../json.ts";
import { partsOf } from "./kept-roots.ts";
import { planCursor, type CursorPlan } from "./cursor-plan.ts";
import { NO_SHARDS, planFanout, type FanoutPlan } from "./fanout-plan.ts";
import { needing, needsOf } from "../needs.ts";
import { LoopError, mayFailOf, wholeNumber } from "./loop-numbers.ts";
import type { Loop, Step } from "./model.ts";
import { renderValue } from "./render.ts";
import { createScope, type Scope } from "./scope.ts";
import type { CommandLimits } from "../time-limits.ts";
import { commandKind, cutScope } from "./step-reads.ts";
import { needPlaybook, LostValue } from "./stored-result.ts";
import { TemplateError } from "./template-error.ts";

/** What a loop keeps of its opening besides its items. */
export interface LoopPlan {
  /** Items; 0 of a cursor loop, whose rows are counted when they are accepted. */
  size: number;
  mode: "sequential" | "parallel" | "cursor";
  /** Iterations open at once; of a cursor loop, its slots. */
  window: number;
  iterator: string;
  /** Tool kind of the iterations' commands. */
  kind: string;
  /** What their workers must offer. */
  requires?: string[];
  /** Iterations that may fail without failing the loop. */
  tolerance: number;
  /** Items one command may carry; absent: each is a command of its own. */
  frame_max?: number;
  /** The items are 0 … size-1 themselves: nothing is kept. */
  counted?: boolean;
  /** Failures that may pass and that do not fail their items (`schemas/retry-budget.ts`). */
  retry_budget?: number;
  limits?: CommandLimits;
  /** Only of a cursor loop. */
  cursor?: CursorPlan;
  /** Only of a fan-out. */
  fanout?: FanoutPlan;
}

export interface OpenedLoop {
  plan: LoopPlan;
  items?: Json[];
  /** The scope cut to what the step reads. */
  scope: FrozenScope;
  /** What `loop.started` carries: collection and scope, by value or by reference. */
  kept: JsonObject;
  error?: OutcomeResult["error"];
  /** Items that another loop has settled for this one. */
  inherited?: { ok: Bitmap; failed: Bitmap };
}

/** Windows of parallel and cursor loops without `max_in_flight`, and the widest one. */
export const WINDOW_DEFAULT = 10;
export const WINDOW_MAX = 10_000;
/** Above these a collection is frozen by reference (design §9). */
const COLLECTION_ITEMS_MAX = 1_000;
const COLLECTION_BYTES_MAX = 65_536;
const SCOPE_BYTES_MAX = 16_384;
/**
 * Iterations of one loop at most; what a loop remembers of them is bounded by it (design §4.11).
 */
export const ITEMS_MAX = 1_000_000;
/** Items of a frame when `spec.frame.max_rows` does not say, and the most it may say. */
const FRAME_ITEMS_DEFAULT = 50;
const FRAME_ITEMS_MAX = 1_000;
/** Where a claim may run: playbook-dsl §1.11.2 knows only cursors of Postgres. */
const CLAIM_KIND = "postgres";
const TOLERATE_ALL = Number.MAX_SAFE_INTEGER;

export interface Opening {
  execution_id: string;
  loop_id: string;
  step: string;
  playbook: PlaybookPin;
  scope: FrozenScope;
  redrive?: Redrive;
}

/** Opens a loop. A collection that cannot be had is an error of the step, never an invented one. */
export function openLoop(opening: Opening, context: TurnContext): OpenedLoop {
  const playbook = needPlaybook(opening.playbook, context);
  const step = playbook.steps[opening.step] as Step;
  const loop = step.loop as Loop;
  const { steps, ...rest } = opening.scope;
  const results = new Map(Object.entries(steps));
  const cut = cutScope(playbook, opening.step, { ...rest, results });
  const scope = keep("scope", cut, fits(cut, SCOPE_BYTES_MAX), opening, context);
  try {
    // What a cursor's rows came to is in the user's table: the claim says what is left to do.
    const again = loop.cursor ? undefined : reopen(opening, context);
    if (again) return { ...again, scope: cut, kept: { ...scope, ...again.kept } };
    const templates = createScope(partsOf(cut, context.loaded));
    if (loop.cursor) return { plan: cursorOf(step, loop, templates), scope: cut, kept: scope };
    const items = normalise(renderValue(loop.in, templates, "typed") as Json);
    const size = counted(typeof items === "number" ? items : items.length);
    const plan = loop.fanout
      ? fannedOut(step, loop, size, templates)
      : collected(step, loop, size, templates);
    if (typeof items === "number")
      return { plan: { ...plan, counted: true }, scope: cut, kept: scope };
    const inline = size <= COLLECTION_ITEMS_MAX && fits(items, COLLECTION_BYTES_MAX);
    const collection = inline ? { collection: items } : keepChunks(items, opening, context);
    return { plan, ...(inline && { items }), scope: cut, kept: { ...scope, ...collection } };
  } catch (error) {
    const typed = [TemplateError, LoopError, LostValue].some(type => error instanceof type);
    if (!typed) throw error;
    const fanout = loop.fanout && { fanout: NO_SHARDS };
    const plan = { ...planOf(step, loop, { size: 0, window: 1, tolerance: 0 }), ...fanout };
    return { plan, scope: cut, kept: scope, error: logicError(error as Error) };
  }
}

function planOf(
  step: Step,
  loop: Loop,
  sizes: Pick<LoopPlan, "size" | "window" | "tolerance">,
): LoopPlan {
  const { mode, iterator } = loop;
  const kind = mode === "cursor" ? CLAIM_KIND : commandKind(step);
  return { ...sizes, mode, iterator, kind, ...needing(needsOf(step)) };
}

function collected(step: Step, loop: Loop, size: number, templates: Scope): LoopPlan {
  const window = windowOf(loop, renderValue(loop.maxInFlight ?? null, templates, "typed"));
  const sizes = { size, window, tolerance: toleranceOf(step, loop, size) };
  return {
    ...planOf(step, loop, sizes),
    ...frameOf(step, loop, { size, window, templates }),
    ...budgetOf(loop, templates),
    ...limitsOf(step),
  };
}

/** Shards know no order, and their own rules say how many of them may fail. */
function fannedOut(step: Step, loop: Loop, size: number, templates: Scope): LoopPlan {
  const { window, fanout, queue_ms } = planFanout(loop, templates, { size, windowMax: WINDOW_MAX });
  const sizes = { size, window, tolerance: TOLERATE_ALL };
  const own = limitsOf(step);
  const limits = queue_ms === undefined ? own : { limits: { ...own.limits, queue_ms } };
  const budget = budgetOf(loop, templates);
  if (budget.retry_budget !== undefined && fanout.batch > 1) {
    throw new LoopError(
      "loop.spec.retry_budget is of shards of one item: spec.fanout.batch is more",
    );
  }
  return { ...planOf(step, loop, sizes), ...budget, ...limits, mode: "parallel", fanout };
}

/** Slots of a loop over a cursor; its commands begin with the claim. */
function cursorOf(step: Step, loop: Loop, templates: Scope): LoopPlan {
  const window = windowOf(loop, renderValue(loop.maxInFlight ?? null, templates, "typed"));
  const sizes = { size: 0, window, tolerance: TOLERATE_ALL };
  return { ...planOf(step, loop, sizes), cursor: planCursor(step, loop, templates) };
}

function logicError(error: Error): OutcomeResult["error"] {
  const kind = error instanceof LostValue ? error.kind : "logic";
  return { kind, retryable: false, code: "LOOP", message: error.message };
}

/**
 * Many quick items travel in one command (design §9). A loop whose items all fit into two windows
 * is never framed: nothing would be gained.
 */
function frameOf(
  step: Step,
  loop: Loop,
  { size, window, templates }: { size: number; window: number; templates: Scope },
) {
  if (loop.exec !== "local" || size <= 2 * window) return {};
  // What limits one item must not end the others.
  if (limitsOf(step).limits) return {};
  const asked =
    renderValue(loop.frame?.["max_rows"] ?? null, templates, "typed") ?? FRAME_ITEMS_DEFAULT;
  const most = wholeNumber("loop.spec.frame.max_rows", asked);
  return most > 1 ? { frame_max: Math.min(most, FRAME_ITEMS_MAX) } : {};
}

/** Limits of its commands. */
export function limitsOf(step: Step | undefined): { limits?: CommandLimits } {
  const { queueTimeoutMs: queue_ms, attemptTimeoutMs: attempt_ms } = step ?? {};
  if (queue_ms === undefined && attempt_ms === undefined) return {};
  const queue = queue_ms === undefined ? {} : { queue_ms };
  return { limits: { ...queue, ...(attempt_ms !== undefined && { attempt_ms }) } };
}

function budgetOf({ retryBudget }: Loop, templates: Scope): Pick<LoopPlan, "retry_budget"> {
  if (retryBudget === undefined) return {};
  const given = renderValue(retryBudget, templates, "typed");
  return { retry_budget: wholeNumber("loop.spec.retry_budget", given) };
}

/** playbook-dsl §1.11 *Collection normalisation*; a count stays one. */
function normalise(value: Json): Json[] | number {
  if (Array.isArray(value)) return value;
  if (typeof value === "number" && Number.isInteger(value) && value >= 0) return value;
  if (typeof value === "string") return fromText(value);
  if (isObject(value)) {
    return Object.entries(value).map(([key, member]) => ({ key, value: member }));
  }
  const gave = JSON.stringify(value);
  throw new LoopError(
    `loop.in did not evaluate to an iterable: it gave ${gave}, ` +
      "expected a list, a map, text or a count",
  );
}

function counted(size: number): number {
  if (size > ITEMS_MAX) throw tooMany(size);
  return size;
}

function tooMany(count: number): LoopError {
  return new LoopError(`loop.in gave ${count} items, expected at most ${ITEMS_MAX}`);
}

function fromText(text: string): Json[] {
  try {
    const parsed: unknown = JSON.parse(text);
    if (Array.isArray(parsed)) return parsed as Json[];
  } catch {
    // Not JSON: a list written with commas or lines.
  }
  return text
    .split(/[,\n]/)
    .map(part => part.trim())
    .filter(part => part !== "");
}

function windowOf(loop: Loop, rendered: unknown): number {
  if (loop.mode === "sequential") return 1;
  if (loop.maxInFlight === undefined) return WINDOW_DEFAULT;
  return Math.min(wholeNumber("loop.spec.max_in_flight", rendered), WINDOW_MAX);
}

function toleranceOf(step: Step, loop: Loop, size: number): number {
  if (step.failureMode === "best_effort") return TOLERATE_ALL;
  const { toleratedFailureCount: count, toleratedFailurePercent: percent } = loop;
  return mayFailOf(size, { count, percent });
}

/** The collection in chunks, and the index that names them, all stored before the loop starts. */
function keepChunks(items: Json[], opening: Opening, context: TurnContext): JsonObject {
  const name = `${opening.execution_id}/loop/${opening.loop_id}/collection`;
  const index: ChunkIndex = { size: items.length, chunks: [] };
  const store: Needs["store"] = [];
  for (const { first, items: part } of chunksOf(items)) {
    const key = `${name}/${first}`;
    const reference = context.stored.get(key);
    if (reference) index.chunks.push({ first, count: part.length, reference });
    else store.push({ name: key, value: part });
  }
  if (store.length > 0) throw new Needs({ store });
  return keep("collection", index, false, opening, context);
}

/** By value when it fits, else stored under the loop's name and kept by reference. */
function keep(
  name: "scope" | "collection",
  value: unknown,
  inline: boolean,
  opening: Opening,
  context: TurnContext,
): JsonObject {
  if (inline) return { [name]: value as Json };
  const key = `${opening.execution_id}/loop/${opening.loop_id}/${name}`;
  const stored = context.stored.get(key);
  if (!stored) throw new Needs({ store: [{ name: key, value: value as Json }] });
  return { [`${name}_ref`]: stored };
}
