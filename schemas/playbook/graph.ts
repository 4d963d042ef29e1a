/**
 * The static graph of a playbook's steps, and which step can still reach which.
 * Arcs that lead back to a step on the way from the entry (loop-backs) do not count: a token never
 * waits for another one's next round, so the rest is acyclic and tokens cannot wait for each other
 * in a circle.
 */
import { Bitmap } from "../bitmap.ts";
import type { Playbook } from "./model.ts";

export interface StepGraph {
  /** true when a token at `from` may, going forward only, come to `to` (`from` itself excluded). */
  reaches(from: string, to: string): boolean;
}

const graphs = new WeakMap<Playbook, StepGraph>();

/** The graph of a parsed playbook, computed once. */
export function stepGraph(playbook: Playbook): StepGraph {
  let graph = graphs.get(playbook);
  if (!graph) {
    graph = build(playbook);
    graphs.set(playbook, graph);
  }
  return graph;
}

function build(playbook: Playbook): StepGraph {
  const places = new Map(Object.keys(playbook.steps).map((step, place) => [step, place]));
  const reachable = new Map<string, Bitmap>();
  // A step closes after all it leads to, so their sets are complete when its own is made.
  walk(playbook, (step, targets) => {
    const reached = Bitmap.ofSize(places.size);
    for (const target of targets) {
      reached.add(places.get(target) as number);
      const further = reachable.get(target);
      if (further) reached.join(further);
    }
    reachable.set(step, reached);
  });
  return {
    reaches(from, to) {
      const place = places.get(to);
      return place !== undefined && reachable.get(from)?.has(place) === true;
    },
  };
}

/**
 * A depth-first walk from the entry, in file order; iterative, for deep playbooks. `close` is told
 * each step with its arcs forward: those that lead to a step still open are loop-backs.
 */
function walk(playbook: Playbook, close: (step: string, targets: string[]) => void): void {
  const state = new Map<string, "open" | "closed">();
  for (const root of [playbook.entry, ...Object.keys(playbook.steps)]) {
    if (state.has(root)) continue;
    const path = [visit(root)];
    for (let top = path.at(-1); top; top = path.at(-1)) {
      const target = top.left.pop();
      if (target === undefined) {
        state.set(top.step, "closed");
        close(top.step, top.forward);
        path.pop();
      } else if (state.get(target) !== "open") {
        top.forward.push(target);
        if (!state.has(target)) path.push(visit(target));
      }
    }
  }

  function visit(step: string) {
    state.set(step, "open");
    return { step, left: targetsOf(playbook, step).toReversed(), forward: [] as string[] };
  }
}

function targetsOf(playbook: Playbook, step: string): string[] {
  const arcs = playbook.steps[step]?.next.arcs ?? [];
  return [...new Set(arcs.map(arc => arc.to))].filter(target =>
    Object.hasOwn(playbook.steps, target),
  );
}
