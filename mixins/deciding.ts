// One input before a machine: what follows from it and what its sender is told, with the values
// they need.
import { errorType } from "../schemas/errors.ts";
import { Needs, type Machine, type TurnContext } from "../schemas/decider.ts";
import type { NewEvent } from "../schemas/events.ts";
import type { Values } from "./actor.ts";
import type { StreamName } from "./event-store.ts";
import { TurnFailure } from "./poison.ts";
import type { StartRow } from "./postgres/event.ts";

/** Values that one decision may ask for. */
const NEEDS_MAX = 1_000;

/** An input that waits for its answer. */
export interface Entry<Input, Answer> {
  input: Input;
  start?: StartRow;
  /** Of the input as JSON. */
  bytes: number;
  /** Another node has sent it on: it is decided here. */
  forwarded: boolean;
  resolve: (answer: Answer) => void;
  reject: (error: unknown) => void;
}

export interface Decision<Input, Answer> {
  entry: Entry<Input, Answer>;
  events: NewEvent[];
  /** The error of a refused input; there are no events then. */
  refusal?: unknown;
}

export interface Turn<State, Input, Answer> {
  machine: Pick<Machine<State, Input, Answer>, "decide" | "answer">;
  values: Values;
  name: StreamName;
  context: TurnContext;
}

/**
 * Decides one input, fetching what it needs. A value that is gone refuses this input alone. Throws
 * Unavailable when a value cannot be reached, TurnFailure on a bug.
 */
export async function decide<State, Input, Answer>(
  turn: Turn<State, Input, Answer>,
  entry: Entry<Input, Answer>,
  draft: State,
): Promise<Decision<Input, Answer>> {
  for (let asked = 0; ; asked += 1) {
    try {
      return { entry, events: turn.machine.decide(entry.input, draft, turn.context) };
    } catch (error) {
      const needs = error instanceof Needs && asked < NEEDS_MAX ? error : undefined;
      const problem = needs ? await provide(turn, needs) : error;
      const type = errorType(problem);
      if (type === "REJECTED") return { entry, events: [], refusal: problem };
      if (type === "UNAVAILABLE") throw problem;
      if (problem !== undefined) throw new TurnFailure(problem, { entry });
    }
  }
}

/** Loads or stores values; gives the error, whose consequence is the caller's. */
async function provide<State, Input, Answer>(
  { values, name, context }: Turn<State, Input, Answer>,
  needs: Needs,
): Promise<unknown> {
  try {
    return await values.provide(needs, name, context);
  } catch (error) {
    return error;
  }
}

/** Answers at once, or as soon as the values that the answer needs are here. */
export function answer<State, Input, Answer>(
  turn: Turn<State, Input, Answer>,
  entry: Entry<Input, Answer>,
  state: State,
  changed: boolean,
): void {
  const { machine, values, name, context } = turn;
  try {
    entry.resolve(machine.answer(entry.input, state, context, changed));
  } catch (error) {
    if (!(error instanceof Needs)) return entry.reject(error);
    values
      .provide(error, name, context)
      .then(() => answer(turn, entry, state, changed), entry.reject);
  }
}
