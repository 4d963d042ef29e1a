// What a switched-off rule is, and the ways to switch one off without a word in the product.
import type { EventStore } from "../../mixins/event-store.ts";
import type { ProjectionStore } from "../../mixins/projection-store.ts";
import type { Runtime } from "../../mixins/runtime.ts";
import type { Command } from "../../schemas/command.ts";
import type { Machine } from "../../schemas/decider.ts";
import type { StepKind } from "./stories.ts";
import type { World } from "./world.ts";

/** What a switch replaces of each process, and of the machines while it is on. */
export interface Sabotage {
  name: string;
  /** The rule of design.md that is off. */
  rule: string;
  /** A kind of step that every run has, where only that shows it. */
  kind?: StepKind;
  /** How much of all work takes seconds, where that shows it sooner. */
  slowShare?: number;
  ports?: (runtime: Runtime, world: World) => Partial<Runtime>;
  /** Changes the machines; gives what changes them back. */
  machines?: () => () => void;
}

/** A switch that wraps every process's store. */
export function inStore(
  wrap: (store: EventStore, world: World, runtime: Runtime) => Partial<EventStore>,
): Pick<Sabotage, "ports"> {
  return {
    ports: (runtime, world) => {
      const { store } = runtime;
      return { store: { ...store, ...wrap(store, world, runtime) } };
    },
  };
}

/** A switch that wraps every process's rows of the projection. */
export function inRows(
  wrap: (rows: ProjectionStore, world: World) => Partial<ProjectionStore>,
): Pick<Sabotage, "ports"> {
  return { ports: ({ rows }, world) => ({ rows: { ...rows, ...wrap(rows, world) } }) };
}

/** A switch that replaces methods of a machine. */
export function inMachine<State, Input, Answer>(
  machine: Machine<State, Input, Answer>,
  change: (was: Machine<State, Input, Answer>) => Partial<Machine<State, Input, Answer>>,
): Pick<Sabotage, "machines"> {
  return {
    machines() {
      const was = { ...machine };
      Object.assign(machine, change(was));
      return () => void Object.assign(machine, was);
    },
  };
}

/** Both machines at once. */
export function both(
  ...switches: Pick<Sabotage, "machines">[]
): Required<Pick<Sabotage, "machines">> {
  return {
    machines() {
      const undo = switches.map(one => one.machines?.());
      return () => undo.forEach(one => one?.());
    },
  };
}

/** Spoils what a load folds; what a decision folds, on a fork, is left as it is. */
export function onLoad<State extends object, Input, Answer>(
  machine: Machine<State, Input, Answer>,
  spoil: (state: State) => void,
): Pick<Sabotage, "machines"> {
  return inMachine(machine, was => {
    const forked = new WeakSet<object>();
    return {
      fork(state) {
        const copy = was.fork(state);
        forked.add(copy);
        return copy;
      },
      evolve(state, event, at, version) {
        const isForked = forked.has(state);
        const next = was.evolve(state, event, at, version);
        if (isForked) forked.add(next);
        else spoil(next);
        return next;
      },
    };
  });
}

/** Every outcome comes with the delivery that is current. */
export function unfenced<State, Input extends { type: string }, Answer>(
  machine: Machine<State, Input, Answer>,
  commandsOf: (state: State) => ReadonlyMap<string, Command> | undefined,
) {
  return inMachine(machine, was => ({
    decide(input, state, context) {
      if (input.type !== "outcome") return was.decide(input, state, context);
      const { command_id } = input as unknown as { command_id: string };
      const delivery = commandsOf(state)?.get(command_id)?.delivery;
      return was.decide(delivery === undefined ? input : { ...input, delivery }, state, context);
    },
  }));
}

/** Who claims again is not known again. */
export function forgetful<State, Input extends { type: string }, Answer>(
  machine: Machine<State, Input, Answer>,
  commandsOf: (state: State) => ReadonlyMap<string, Command> | undefined,
) {
  return inMachine(machine, was => ({
    decide(input, state, context) {
      if (input.type !== "claim") return was.decide(input, state, context);
      const { command_id, claim_id } = input as unknown as Record<string, string>;
      const isHis = commandsOf(state)?.get(command_id ?? "")?.holder?.claim_id === claim_id;
      const asked = isHis ? { ...input, claim_id: `${claim_id}, again` } : input;
      return was.decide(asked, state, context);
    },
  }));
}
