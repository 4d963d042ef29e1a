// The fold of a loop's facts. Total: it never throws, logs or asks the time.
import { Bitmap } from "../../schemas/bitmap.ts";
import { evolveCommand } from "../../schemas/command.ts";
import type {
  EventOf,
  LoopStats,
  NewEvent,
  OutcomeResult,
  ResultReference,
} from "../../schemas/events.ts";
import type { FrozenScope, PlaybookPin } from "../../schemas/frozen-scope.ts";
import type { Json, JsonObject } from "../../schemas/json.ts";
import type { LoopPlan } from "../../schemas/playbook/loop-plan.ts";
import type { LoopReport } from "../../schemas/loop-report.ts";
import type { LoopState, Running } from "./state.ts";

/**
 * What a start knows beside its event, so that the fold of that same turn need not load it again.
 */
export interface Fresh {
  execution_id: string;
  scope: FrozenScope;
  collection?: Json[];
}

/** Folds one fact into a state the caller owns; `at` is when it was recorded. */
export function evolve(state: LoopState, event: NewEvent, at = 0, fresh?: Fresh): LoopState {
  if (event.event_type === "loop.started") {
    return state.status === "none" ? begun(event, fresh) : state;
  }
  if (state.status !== "running") return state;
  switch (event.event_type) {
    case "command.issued":
      return issued(state, event);
    case "command.claimed":
    case "command.expired":
    case "command.released": {
      const command = state.open.get(event.meta.command_id);
      if (command) evolveCommand(command, event, at);
      return state;
    }
    case "command.completed":
    case "command.failed":
      return settle(state, event.meta.iter_index ?? 0, event.meta.command_id, event);
    case "command.cancelled":
      state.open.delete(event.meta.command_id);
      return state;
    case "execution.cancel_requested":
      state.stopReason = event.meta.reason ?? "the execution asked for it";
      return state;
    case "loop.done":
      return over(
        state,
        event.meta.status,
        event.meta.stats,
        event.result as OutcomeResult | undefined,
      );
    default:
      return state;
  }
}

function begun(event: EventOf<"loop.started">, fresh?: Fresh): LoopState {
  const kept = (event.context ?? {}) as JsonObject;
  const { loop_id, step, activation, collection_size } = event.meta;
  const scope = fresh?.scope ?? (kept["scope"] as unknown as FrozenScope | undefined);
  return {
    status: "running",
    execution_id: fresh?.execution_id ?? String(kept["execution_id"]),
    loop_id,
    step,
    activation,
    playbook: kept["playbook"] as unknown as PlaybookPin,
    plan: kept["plan"] as unknown as LoopPlan,
    collection: fresh?.collection ?? (kept["collection"] as Json[] | undefined),
    collection_ref: kept["collection_ref"] as unknown as ResultReference | undefined,
    scope,
    scope_ref: kept["scope_ref"] as unknown as ResultReference | undefined,
    next: 0,
    open: new Map(),
    done: Bitmap.ofSize(collection_size),
    failed: Bitmap.ofSize(collection_size),
    doneCount: 0,
    failedCount: 0,
    overlay: {},
  };
}

function issued(state: Running, event: EventOf<"command.issued">): Running {
  const { command_id, step, activation, attempt, iter_index = 0, kind } = event.meta;
  // Issued in order: a lower index was folded before.
  if (iter_index < state.next) return state;
  const ids = { command_id, step, activation, attempt, iter_index };
  state.open.set(command_id, { ...ids, kind, delivery: 0, deaths: 0 });
  state.next = iter_index + 1;
  return state;
}

function settle(
  state: Running,
  index: number,
  id: string,
  event: EventOf<"command.completed" | "command.failed">,
): Running {
  state.open.delete(id);
  if (state.done.has(index) || state.failed.has(index)) return state;
  const failed = event.event_type === "command.failed";
  (failed ? state.failed : state.done).add(index);
  if (failed) {
    state.failedCount += 1;
    state.firstError ??= event.result.error;
  } else {
    state.doneCount += 1;
  }
  const writes = event.context?.["ctx"] as JsonObject | undefined;
  if (writes) state.overlay = { ...state.overlay, ...writes };
  return state;
}

function over(
  state: Running,
  status: LoopReport["status"],
  stats: LoopStats,
  result: OutcomeResult | undefined,
): LoopState {
  const { execution_id, loop_id, step, activation, playbook, overlay: ctx } = state;
  const report: LoopReport = {
    type: "loop_done",
    loop_id,
    step,
    activation,
    status,
    stats,
    ctx,
    ...(result?.error ? { error: result.error } : {}),
  };
  return { status: "done", execution_id, loop_id, step, activation, playbook, report };
}
