// Routing: what a finished step writes and where its token goes. Pure; guards are evaluated here.
import type { TurnContext } from "../../schemas/decider.ts";
import type { OutcomeResult } from "../../schemas/events.ts";
import type { JsonObject } from "../../schemas/json.ts";
import type { Arc, Playbook, Step } from "../../schemas/playbook/model.ts";
import { keepRoots, partsOf, viewOfRoots } from "../../schemas/playbook/kept-roots.ts";
import { readPaths, renderSet } from "../../schemas/playbook/render.ts";
import { createScope, type ScopeParts } from "../../schemas/playbook/scope.ts";
import { dataOf, envelopeOf, faninOf, LostValue } from "../../schemas/playbook/stored-result.ts";
import { guardSource, isTrue, TemplateError } from "../../schemas/playbook/template.ts";
import { wholeScope, type Failure, type Running } from "./state.ts";

/** A step that has just finished, before its exit is decided. */
export interface Finished {
  step: string;
  activation: number;
  result: OutcomeResult;
  /** Boundary name its arc guards see. */
  event: "call.done" | "call.error" | "loop.done";
  /** Ctx writes that came with the outcome, each root whole. */
  ctx: JsonObject;
}

export interface Exit {
  next: string[];
  /** All ctx writes of this exit, each root whole. */
  ctx: JsonObject;
  step_status: "ok" | "failed";
  handled?: "arc" | "best_effort";
  failure?: Failure;
}

/**
 * Decides a step's exit. Throws Needs when a guard or a `set` asks for a value that is not loaded.
 */
export function routeExit(
  finished: Finished,
  state: Running,
  playbook: Playbook,
  context: TurnContext,
): Exit {
  const step = playbook.steps[finished.step] as Step;
  const failed = finished.result.status === "error";
  const tolerated = failed && step.failureMode === "best_effort";
  const failure = failed ? failureOf(finished) : undefined;
  try {
    const routing = new Routing(finished, state, context);
    if (!failed) routing.apply(step.set);
    const arcs =
      failed && !tolerated ? step.next.arcs.filter(arc => namesFailure(arc)) : step.next.arcs;
    const taken = takeArcs(finished, step, arcs, routing);
    for (const arc of taken) routing.apply(arc.set);
    const next = [...new Set(taken.map(arc => arc.to))];
    if (failed) return failedExit(next, routing.ctx, tolerated, failure as Failure);
    if (next.length === 0 && isDeadEnd(step, playbook)) return deadEnd(finished, routing.ctx);
    return { next, ctx: routing.ctx, step_status: "ok" };
  } catch (error) {
    // A guard or a `set` that throws fails its step with a typed error (playbook-dsl §8.6).
    const failure = { step: finished.step, error: evaluationError(error) };
    return { next: [], ctx: finished.ctx, step_status: "failed", failure };
  }
}

/** The evaluation of one exit: a `set` or a guard sees the writes before it. */
class Routing {
  ctx: JsonObject;
  readonly #parts: ScopeParts;
  readonly #context: TurnContext;
  /** Under which the large values written here are kept. */
  readonly #name: string;
  #writes = 0;

  constructor(finished: Finished, state: Running, context: TurnContext) {
    const { loaded } = context;
    const whole = wholeScope(state);
    const steps = Object.fromEntries(whole.results);
    const parts = partsOf(
      { ...whole, steps: { ...steps, [finished.step]: finished.result } },
      loaded,
    );
    const { step, activation } = finished;
    this.#context = context;
    this.#name = `${state.execution_id}/ctx/${encodeURIComponent(step)}/${activation}/exit`;
    this.ctx = finished.ctx;
    this.#parts = {
      ...parts,
      output: envelopeOf(finished.result, loaded),
      result: dataOf(finished.result, loaded),
      event: eventView(finished),
      fanin: faninOf(finished.result, loaded),
      error: finished.result.error ?? null,
    };
  }

  scope() {
    const written = viewOfRoots(this.ctx, this.#context.loaded);
    return createScope({ ...this.#parts, ctx: { ...this.#parts.ctx, ...written } });
  }

  apply(set: Record<string, unknown>): void {
    if (Object.keys(set).length === 0) return;
    const writes = renderSet(set, this.scope());
    const name = `${this.#name}-${(this.#writes += 1)}`;
    const kept = keepRoots({ ...writes.ctx, ...writes.local }, name, this.#context);
    this.ctx = { ...this.ctx, ...kept };
  }
}

function eventView(finished: Finished) {
  const { step, result, event } = finished;
  return { name: event, step, status: result.status === "ok" ? "ok" : "failed" };
}

/** `step.done` and `step.failed` are older names of the boundary that the step has just passed. */
function canonicalGuard(when: Arc["when"], { event, result }: Finished): Arc["when"] {
  if (typeof when !== "string" || !when.includes("step.")) return when;
  const alias = result.status === "ok" ? "step.done" : "step.failed";
  return when.replaceAll(`'${alias}'`, `'${event}'`).replaceAll(`"${alias}"`, `"${event}"`);
}

function takeArcs(finished: Finished, step: Step, arcs: Arc[], routing: Routing): Arc[] {
  const taken: Arc[] = [];
  for (const arc of arcs) {
    const when = canonicalGuard(arc.when, finished);
    if (when !== undefined && !isTrue(when, routing.scope())) continue;
    taken.push(arc);
    if (step.next.mode === "exclusive") break;
  }
  return taken;
}

function failedExit(next: string[], ctx: JsonObject, tolerated: boolean, failure: Failure): Exit {
  if (tolerated) return { next, ctx, step_status: "failed", handled: "best_effort" };
  if (next.length > 0) return { next, ctx, step_status: "failed", handled: "arc", failure };
  return { next, ctx, step_status: "failed", failure };
}

function isDeadEnd(step: Step, playbook: Playbook): boolean {
  return step.next.arcs.length > 0 && playbook.noNextIsError && step.next.onNoMatch !== "quiet";
}

function deadEnd(finished: Finished, ctx: JsonObject): Exit {
  const { step } = finished;
  const message = `no arc of step '${step}' is true, and executor.spec.no_next_is_error is set`;
  return {
    next: [],
    ctx,
    step_status: "failed",
    failure: { step: finished.step, error: { ...logicError(message), code: "NO_NEXT" } },
  };
}

/**
 * Only an arc whose guard asks how the step ended may fire on a failed one: an unconditional arc
 * there would swallow every failure.
 */
function namesFailure(arc: Arc): boolean {
  if (typeof arc.when !== "string") return false;
  return readPaths(guardSource(arc.when)).some(
    ([root, member]) =>
      (root === "event" && (member === "name" || member === "status")) ||
      (root === "output" && (member === "status" || member === "error")) ||
      (root === "fanin" && (member === "status" || member === "failed")) ||
      root === "error",
  );
}

function failureOf(finished: Finished): Failure {
  const error = finished.result.error ?? logicError("the step failed without saying why");
  return { step: finished.step, error };
}

/** What a template's failure is called; anything but a failure of a template is thrown. */
export function evaluationError(error: unknown): Failure["error"] {
  if (error instanceof TemplateError) return logicError(error.describe());
  if (error instanceof LostValue) return { ...logicError(error.message), kind: error.kind };
  throw error;
}

export function logicError(message: string): Failure["error"] {
  return { kind: "logic", retryable: false, code: "EVALUATION", message };
}

/** Admission: the first rule that matches decides, none allows. Throws what a guard throws. */
export function admits(step: Step, state: Running, context: TurnContext): boolean {
  if (step.admit.length === 0) return true;
  const whole = wholeScope(state);
  const parts = partsOf({ ...whole, steps: Object.fromEntries(whole.results) }, context.loaded);
  const scope = createScope(parts);
  const rule = step.admit.find(one => one.when === undefined || isTrue(one.when, scope));
  return rule?.allow ?? true;
}
