/**
 * The opening of a loop: `loop.in` evaluated once, normalised and frozen, with its window and
 * tolerance.
 */
import { Needs, type TurnContext } from "../decider.ts";
import type { OutcomeResult } from "../events.ts";
import type { FrozenScope, PlaybookPin } from "../frozen-scope.ts";
import { isObject, type Json, type JsonObject } from "../json.ts";
import type { Loop, Step } from "./model.ts";
import { renderValue } from "./render.ts";
import { createScope } from "./scope.ts";
import { commandKind, cutScope } from "./step-reads.ts";
import { fits, needPlaybook, partsOf, LostValue } from "./stored-result.ts";
import { TemplateError } from "./template-error.ts";

/** What a loop keeps of its opening besides its items. */
export interface LoopPlan {
  size: number;
  mode: "sequential" | "parallel";
  /** Iterations open at once. */
  window: number;
  iterator: string;
  /** Tool kind of the iterations' commands. */
  kind: string;
  /** Iterations that may fail without failing the loop. */
  tolerance: number;
}

export interface OpenedLoop {
  plan: LoopPlan;
  items?: Json[];
  /** The scope cut to what the step reads. */
  scope: FrozenScope;
  /** What `loop.started` carries: collection and scope, by value or by reference. */
  kept: JsonObject;
  error?: OutcomeResult["error"];
}

/** Windows of parallel loops without `max_in_flight`, and the widest one. */
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
const TOLERATE_ALL = Number.MAX_SAFE_INTEGER;

interface Opening {
  execution_id: string;
  loop_id: string;
  step: string;
  playbook: PlaybookPin;
  scope: FrozenScope;
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
    const templates = createScope(partsOf(cut, context.loaded));
    const items = counted(normalise(renderValue(loop.in, templates, "typed") as Json));
    const window = windowOf(loop, renderValue(loop.maxInFlight ?? null, templates, "typed"));
    const inline = items.length <= COLLECTION_ITEMS_MAX && fits(items, COLLECTION_BYTES_MAX);
    const collection = keep("collection", items, inline, opening, context);
    const tolerance = toleranceOf(step, loop, items.length);
    const plan = planOf(step, loop, { size: items.length, window, tolerance });
    return { plan, items, scope: cut, kept: { ...scope, ...collection } };
  } catch (error) {
    const typed = [TemplateError, LoopError, LostValue].some(type => error instanceof type);
    if (!typed) throw error;
    const plan = planOf(step, loop, { size: 0, window: 1, tolerance: 0 });
    return { plan, scope: cut, kept: scope, error: logicError(error as Error) };
  }
}

function planOf(
  step: Step,
  loop: Loop,
  sizes: Pick<LoopPlan, "size" | "window" | "tolerance">,
): LoopPlan {
  const mode = loop.mode === "parallel" ? "parallel" : "sequential";
  return { ...sizes, mode, iterator: loop.iterator, kind: commandKind(step) };
}

class LoopError extends Error {}

function logicError(error: Error): OutcomeResult["error"] {
  return { kind: "logic", retryable: false, code: "LOOP", message: error.message };
}

/** playbook-dsl §1.11 *Collection normalisation*. */
function normalise(value: Json): Json[] {
  if (Array.isArray(value)) return value;
  if (typeof value === "number" && Number.isInteger(value) && value >= 0) {
    if (value > ITEMS_MAX) throw tooMany(value);
    return Array.from({ length: value }, (_, index) => index);
  }
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

function counted(items: Json[]): Json[] {
  if (items.length > ITEMS_MAX) throw tooMany(items.length);
  return items;
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
  if (loop.mode !== "parallel") return 1;
  if (loop.maxInFlight === undefined) return WINDOW_DEFAULT;
  const isScalar = typeof rendered === "number" || typeof rendered === "string";
  const window = isScalar ? Number(rendered) : NaN;
  if (!Number.isInteger(window) || window < 1) {
    throw new LoopError(
      `loop.spec.max_in_flight gave ${JSON.stringify(rendered)}, expected a whole number ≥ 1`,
    );
  }
  return Math.min(window, WINDOW_MAX);
}

function toleranceOf(step: Step, loop: Loop, size: number): number {
  if (step.failureMode === "best_effort") return TOLERATE_ALL;
  // Multiplied first: 29 / 100 is a little less than 0.29.
  const share = Math.floor(((loop.toleratedFailurePercent ?? 0) * size) / 100);
  return Math.max(loop.toleratedFailureCount ?? 0, share);
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
