// What an execution would have to do again: noted as its steps end, for a redrive.
import type { EventOf } from "../../schemas/events.ts";
import type { Failure, Lapse, Running, Token } from "./state.ts";

export type ExitEvent = EventOf<
  "command.completed" | "command.failed" | "command.cancelled" | "step.exit" | "step.failed"
>;

/** Notes how a step ended; `state` is as it was before. A cancelled execution is not redriven. */
export function noteExit(state: Running, event: ExitEvent, token: Token | undefined): void {
  const { step, activation } = event.meta;
  const why = state.status === "running" ? whyOf(state, event) : undefined;
  state.lapsed.delete(step);
  if (why === undefined) return;
  const upstream = token ? token.upstream : state.waiting.get(step);
  state.lapsed.set(step, {
    why,
    activation,
    ...(upstream !== undefined && { upstream }),
    ...(token?.loop_id !== undefined && { loop_id: token.loop_id }),
    ...(token?.redrive && { keyed: token.redrive.keyed }),
    ...failureOf(event),
  });
}

function whyOf(state: Running, event: ExitEvent): Lapse["why"] | undefined {
  const { step_status, handled } = event.meta;
  if (step_status === "cancelled") return undefined;
  if (step_status === "failed") return handled === "best_effort" ? "tolerated" : "failed";
  if (state.failure) return "unrouted";
  const failedItems = event.event_type === "step.exit" ? (event.meta.stats?.failed ?? 0) : 0;
  return failedItems > 0 ? "tolerated" : undefined;
}

function failureOf(event: ExitEvent): { failure?: Failure } {
  if (event.meta.step_status !== "failed") return {};
  const failure = event.context?.["failure"] as unknown as Failure | undefined;
  if (failure) return { failure };
  const { error } = (event.result ?? {}) as { error?: Failure["error"] };
  return error ? { failure: { step: event.meta.step, error } } : {};
}

/** Steps that are not entered any more, because another one has failed. */
export function dropWaiting(state: Running): void {
  for (const [step, upstream] of state.waiting) {
    const from = upstream === undefined ? {} : { upstream };
    state.lapsed.set(step, { why: "waiting", activation: 0, ...from });
  }
  state.waiting.clear();
}
