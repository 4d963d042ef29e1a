/**
 * The static graph of a playbook's steps, and which step can still reach which.
 * Arcs that lead back to a step on the way from the entry (loop-backs) do not count: a token never waits for
 * another one's next round, so the rest is acyclic and tokens cannot wait for each other in a circle.
 */
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
  const forward = forwardArcs(playbook);
  const reachable = new Map<string, Set<string>>();
  function reach(step: string): Set<string> {
    const known = reachable.get(step);
    if (known) return known;
    const found = new Set<string>();
    reachable.set(step, found);
    for (const target of forward.get(step) ?? []) {
      found.add(target);
      for (const further of reach(target)) found.add(further);
    }
    return found;
  }
  return { reaches: (from, to) => reach(from).has(to) };
}

/** Arcs without loop-backs: a depth-first walk from the entry, in file order; iterative, for deep playbooks. */
function forwardArcs(playbook: Playbook): Map<string, string[]> {
  const forward = new Map<string, string[]>();
  const state = new Map<string, "open" | "closed">();
  for (const root of [playbook.entry, ...Object.keys(playbook.steps)]) {
    if (state.has(root)) continue;
    const path = [{ step: root, targets: targetsOf(playbook, root) }];
    state.set(root, "open");
    forward.set(root, []);
    while (path.length > 0) {
      const top = path[path.length - 1] as { step: string; targets: string[] };
      const target = top.targets.shift();
      if (target === undefined) {
        state.set(top.step, "closed");
        path.pop();
      } else if (state.get(target) !== "open") {
        forward.get(top.step)?.push(target);
        if (!state.has(target)) {
          state.set(target, "open");
          forward.set(target, []);
          path.push({ step: target, targets: targetsOf(playbook, target) });
        }
      }
    }
  }
  return forward;
}

function targetsOf(playbook: Playbook, step: string): string[] {
  const arcs = playbook.steps[step]?.next.arcs ?? [];
  return [...new Set(arcs.map(arc => arc.to))].filter(target => target in playbook.steps);
}
