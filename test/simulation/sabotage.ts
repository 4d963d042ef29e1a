// What a switched-off rule is, and the ways to switch one off without a word in the product.
import type { EventStore } from "../../mixins/event-store.ts";
import type { ProjectionStore } from "../../mixins/projection-store.ts";
import type { Runtime } from "../../mixins/runtime.ts";
import type { Machine } from "../../schemas/decider.ts";
import type { World } from "./world.ts";

/** What a switch replaces of each process, and of the machines while it is on. */
export interface Sabotage {
  name: string;
  /** The rule of design.md that is off. */
  rule: string;
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
