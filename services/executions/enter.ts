// Entering steps: which waiting tokens may go in, and the end of an execution when none is left.
import type { TurnContext } from "../../schemas/decider.ts";
import type { NewEvent } from "../../schemas/events.ts";
import { commandId } from "../../schemas/ids.ts";
import type { JsonObject } from "../../schemas/json.ts";
import { needing, needsOf } from "../../schemas/needs.ts";
import { stepGraph } from "../../schemas/playbook/graph.ts";
import type { Playbook, Step } from "../../schemas/playbook/model.ts";
import { commandKind } from "../../schemas/playbook/step-reads.ts";
import { evolve } from "./evolve.ts";
import { admits, evaluationError } from "./route.ts";
import { isLive, type ExecutionState, type Failure, type Running } from "./state.ts";

/**
 * Enters every step whose tokens need not wait, and ends the execution when nothing is left to do.
 * `state` is the caller's own copy and is folded on the way. A paused one stays as it is.
 */
export function enterAll(state: Running, playbook: Playbook, context: TurnContext): NewEvent[] {
  if (state.pause) return [];
  const events: NewEvent[] = [];
  let current: ExecutionState = state;
  function record(event: NewEvent): void {
    events.push(event);
    current = evolve(current, event, context.now);
  }
  while (isLive(current)) {
    const step = nextStep(current, playbook);
    if (step !== undefined) record(enter(step, current, playbook, context));
    else if (current.tokens.size > 0) break;
    else if (owesFinalStep(current, playbook))
      current.waiting.set(playbook.finalStep as string, current.last);
    else record(end(current));
  }
  return events;
}

/**
 * A waiting token goes in when no other live token can still come to its step: waiting tokens of
 * one step merge. Loop-backs do not count, so with one token in the system nothing ever waits.
 */
function nextStep(state: Running, playbook: Playbook): string | undefined {
  const graph = stepGraph(playbook);
  for (const target of state.waiting.keys()) {
    const running = [...state.tokens.values()].some(token => graph.reaches(token.step, target));
    if (running) continue;
    const waiting = [...state.waiting.keys()].some(
      other => other !== target && graph.reaches(other, target),
    );
    if (!waiting) return target;
  }
  return undefined;
}

function enter(name: string, state: Running, playbook: Playbook, context: TurnContext): NewEvent {
  const step = playbook.steps[name] as Step;
  const activation = (state.activations.get(name) ?? 0) + 1;
  const meta = { step: name, activation };
  try {
    if (!admits(step, state, context)) {
      return {
        event_type: "step.skipped",
        node_name: name,
        meta: { ...meta, reason: "not admitted" },
      };
    }
  } catch (error) {
    const failure = { step: name, error: evaluationError(error) };
    return {
      event_type: "step.failed",
      node_name: name,
      meta: { ...meta, next: [], step_status: "failed" },
      context: { failure: failure as unknown as JsonObject },
    };
  }
  if (step.loop) {
    return {
      event_type: "step.enter",
      node_name: name,
      meta: {
        ...{ ...meta, loop_id: context.newId() },
        ...(step.loop.fanout && { loop_mode: "fanout" as const }),
      },
    };
  }
  const needs = needing(needsOf(step));
  const command_id = commandId({ execution_id: state.execution_id, ...meta, attempt: 1 });
  return {
    event_type: "command.issued",
    node_name: name,
    meta: { command_id, ...meta, attempt: 1, ...needs, kind: commandKind(step), enter: true },
  };
}

function owesFinalStep(state: Running, playbook: Playbook): boolean {
  const { finalStep } = playbook;
  if (finalStep === undefined || state.failure) return false;
  return state.owedFinal === finalStep || !state.activations.has(finalStep);
}

/** What an earlier generation failed of, and that has not run again since. */
function leftFailure({ lapsed }: Running): Failure | undefined {
  return [...lapsed.values()].find(({ why }) => why === "failed")?.failure;
}

/** The terminal: FAILED when any failure was left, also one that an error arc handled. */
function end(state: Running): NewEvent {
  const { generation } = state;
  const failure = state.failure ?? state.handled ?? leftFailure(state);
  if (failure) {
    return {
      event_type: "playbook.failed",
      node_name: failure.step,
      meta: { generation },
      result: {
        status: "error",
        error: failure.error,
        ...(failure.step && { step: failure.step }),
      },
    };
  }
  const last = state.last === undefined ? undefined : state.results.get(state.last);
  return {
    event_type: "playbook.completed",
    node_name: state.last,
    meta: { generation },
    result: {
      ...(last ?? { status: "ok" }),
      ...(state.last && { step: state.last }),
    } as JsonObject,
  };
}
