/**
 * given(machine, past).when(input).then(facts): one decision of a machine, in the words of a test.
 */
import { strict as assert } from "node:assert";
import type { ResultReference, NewEvent } from "../../schemas/events.ts";
import { Needs, type Machine, type SignOfLife, type TurnContext } from "../../schemas/decider.ts";
import { errorType } from "../../schemas/errors.ts";
import type { Json } from "../../schemas/json.ts";

/** The world of a turn at noon: one worker lives, nothing is loaded. */
export function turnAt(now: number, more: Partial<TurnContext> = {}): TurnContext {
  let id = 9_000_000n;
  return {
    now,
    newId: () => String((id += 1n)),
    loaded: new Map<string, Json>(),
    stored: new Map<string, ResultReference>(),
    seen: new Map(),
    disowned: new Set<string>(),
    settings: {
      lease_ms: 30_000,
      rering_ms: 10_000,
      max_attempts: 3,
      heartbeat_timeout_ms: 300_000,
    },
    ...more,
  };
}

/** Who has a row in `runtime` (and since when, if not renewed just now), and who never had one. */
interface Workers {
  alive: ReadonlySet<string>;
  lastSeen: ReadonlyMap<string, number>;
  silent: ReadonlySet<string>;
  now: number;
}

/** What a wake finds out about the holders of one stream's commands; any other worker is gone. */
export function signsOf<State>(
  stream: { machine: Pick<Machine<State, never, unknown>, "held">; state: State },
  { alive, lastSeen, silent, now }: Workers,
): [incarnation: string, sign: SignOfLife][] {
  return [...stream.machine.held(stream.state)].map(({ incarnation }) => {
    const row = alive.has(incarnation) ? (lastSeen.get(incarnation) ?? now) : "gone";
    return [incarnation, silent.has(incarnation) ? "silent" : row];
  });
}

/** The state after facts recorded at `at`, the first as version 1. */
export function fold<State>(
  machine: Machine<State, never, unknown>,
  events: NewEvent[],
  at = 0,
): State {
  let state = machine.initial();
  events.forEach((event, index) => (state = machine.evolve(state, event, at, index + 1)));
  return state;
}

/** Decides, fetching what the decision needs from `provide` as a turn does. */
export function decideWith<State, Input>(
  machine: Machine<State, Input, unknown>,
  input: Input,
  state: State,
  context: TurnContext,
  provide: (needs: Needs) => void,
): NewEvent[] {
  for (let asked = 0; ; asked += 1) {
    try {
      return machine.decide(input, state, context);
    } catch (error) {
      if (!(error instanceof Needs) || asked > 50) throw error;
      provide(error);
    }
  }
}

/** A decision on a past; the context answers what it needs. */
export function given<State, Input, Answer>(
  machine: Machine<State, Input, Answer>,
  past: NewEvent[],
  context: TurnContext = turnAt(0),
) {
  const state = fold(machine as Machine<State, never, unknown>, past, context.now);
  return {
    state,
    when: (input: Input) => ({
      /** The facts decided, each with at least the fields named. */
      then(...expected: object[]): NewEvent[] {
        const facts = machine.decide(input, machine.fork(state), context);
        const types = facts.map(fact => fact.event_type);
        assert.equal(facts.length, expected.length, `decided ${types.join(", ") || "nothing"}`);
        assert.partialDeepStrictEqual(facts, expected);
        return facts;
      },
      /** Refused, and for this reason. */
      refused(reason: string): void {
        assert.throws(
          () => machine.decide(input, machine.fork(state), context),
          (error: { data?: { reason?: string } }) =>
            errorType(error) === "REJECTED" && error.data?.reason === reason,
        );
      },
    }),
  };
}
