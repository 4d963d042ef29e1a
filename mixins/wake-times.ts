// When a stream must be looked after at the latest (design §5 rule 6), milliseconds of the
// database's clock, in whole seconds.
import type { Machine, TurnContext } from "../schemas/decider.ts";

/** The longest a stream sleeps when its machine names no deadline. */
const SLEEP_MAX_MS = 600_000;

type Deadlines<State> = Pick<Machine<State, never, unknown>, "deadline">;

/** For an append, which only moves it earlier; `owes` says that a message is not acknowledged. */
export function wakeOfAppend<State>(
  machine: Deadlines<State>,
  state: State,
  context: TurnContext,
  owes: boolean,
): number {
  const { rering_ms, lease_ms } = context.settings;
  const look = context.now + (owes ? rering_ms : lease_ms);
  const deadline = machine.deadline(state, context) ?? Infinity;
  return roundUp(Math.max(context.now, Math.min(look, deadline)));
}

/** For a wake: the next deadline, which may be later than the last one. */
export function wakeAfterWake<State>(
  machine: Deadlines<State>,
  state: State,
  context: TurnContext,
  owes: boolean,
): number {
  const deadline = machine.deadline(state, context) ?? Infinity;
  const repeat = owes ? context.now + context.settings.rering_ms : Infinity;
  const due = Math.min(deadline, repeat, context.now + SLEEP_MAX_MS);
  return roundUp(Math.max(context.now + 1_000, due));
}

function roundUp(ms: number): number {
  return Math.ceil(ms / 1_000) * 1_000;
}
