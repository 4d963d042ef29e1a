// A small machine for tests: it notes ids, rings for errands, and says when it ends.
import type { Machine, TurnContext } from "../../schemas/decider.ts";
import { Rejected } from "../../schemas/errors.ts";
import type { NewEvent } from "../../schemas/events.ts";
import type { Json } from "../../schemas/json.ts";

export type LedgerInput =
  | { type: "start"; ids: string[] }
  /** Notes an id, once. */
  | { type: "add"; id: string; note?: Json }
  /** Possible only when the id is noted. */
  | { type: "need"; id: string }
  /** Something for a worker to do, once: rings until it is taken. */
  | { type: "issue"; command_id: string }
  | { type: "take"; command_id: string }
  /** The last fact; then a message to another actor until that acknowledges it. */
  | { type: "finish" }
  /** A bug of ours. */
  | { type: "boom" }
  | { type: "wake" };

export interface LedgerState {
  ids: Set<string>;
  /** What was ever issued; true until it is taken. */
  errands: Map<string, boolean>;
  finished: boolean;
}

export interface LedgerAnswer {
  changed: boolean;
  size: number;
}

/** The stream that a finished ledger tells, and that tests listen for. */
export const LISTENER = { actor: "executions" as const, execution_id: "1", stream_id: "1" };

function decide(input: LedgerInput, state: LedgerState): NewEvent[] {
  switch (input.type) {
    case "start":
      if (state.ids.size > 0) return [];
      return input.ids.map((id, index) => noted(id, index));
    case "add":
      return state.ids.has(input.id) ? [] : [noted(input.id, state.ids.size, input.note)];
    case "need":
      if (!state.ids.has(input.id)) throw new Rejected(`${input.id} is not noted`, 409);
      return [];
    case "issue":
      return state.errands.has(input.command_id) ? [] : [issued(input.command_id)];
    case "take":
      if (!state.errands.get(input.command_id)) return [];
      return [
        {
          event_type: "command.released",
          meta: { command_id: input.command_id, delivery: 0, worker_id: "test" },
        },
      ];
    case "finish":
      return state.finished ? [] : [{ event_type: "execution.paused", meta: {} }];
    case "boom":
      throw new TypeError("a bug of the ledger");
    case "wake":
      return [];
  }
}

function noted(id: string, index: number, note?: Json): NewEvent {
  return {
    event_type: "call.partial",
    meta: { command_id: id, chunk_index: index },
    ...(note === undefined ? {} : { context: { note } }),
  };
}

function issued(command_id: string): NewEvent {
  const meta = { command_id, step: "s", activation: 1, attempt: 1, kind: "noop" };
  return { event_type: "command.issued", meta };
}

function evolve(state: LedgerState, event: NewEvent): LedgerState {
  switch (event.event_type) {
    case "call.partial":
      state.ids.add(event.meta.command_id);
      return state;
    case "command.issued":
      state.errands.set(event.meta.command_id, true);
      return state;
    case "command.released":
      state.errands.set(event.meta.command_id, false);
      return state;
    case "execution.paused":
      return { ...state, finished: true };
    default:
      return state;
  }
}

/** A ledger whose rings name this stream. */
export const ledger: Machine<LedgerState, LedgerInput, LedgerAnswer> = {
  initial: () => ({ ids: new Set(), errands: new Map(), finished: false }),
  fork: state => ({ ...state, ids: new Set(state.ids), errands: new Map(state.errands) }),
  decide,
  evolve,
  answer: (_input: LedgerInput, state: LedgerState, _context: TurnContext, changed: boolean) => {
    return { changed, size: state.ids.size };
  },
  *pending(state) {
    for (const [command_id, open] of state.errands) {
      if (!open) continue;
      const ring = { ...LISTENER, command_id, step: "s", kind: "noop", delivery: 0 };
      yield { kind: "ring", key: `ring:${command_id}`, ring };
    }
    if (state.finished) {
      const input = { type: "told", size: state.ids.size };
      yield { kind: "message", key: "told", to: LISTENER, input };
    }
  },
  deadline: () => undefined,
  held: () => [],
  isOver: state => state.finished,
  freeze: ({ ids, errands, finished }) => ({ ids: [...ids], errands: [...errands], finished }),
  thaw: frozen => {
    const kept = frozen as unknown as {
      ids: string[];
      errands: [string, boolean][];
      finished: boolean;
    };
    return { ...kept, ids: new Set(kept.ids), errands: new Map(kept.errands) };
  },
};
