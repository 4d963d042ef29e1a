/** Which names a step's templates read: what must travel with its commands, and nothing else. */
import type { OutcomeResult } from "../events.ts";
import type { FrozenScope } from "../frozen-scope.ts";
import type { JsonObject } from "../json.ts";
import { classOf } from "../work-class.ts";
import type { Playbook, Step } from "./model.ts";
import { readPaths, readTaskPaths } from "./render.ts";

/** The tool kind that decides where a step's command may run: its heaviest one. */
export function commandKind(step: Step): string {
  const heavy = step.tasks.find(task => classOf(task.kind) === "database");
  return (heavy ?? step.tasks[0])?.kind ?? "noop";
}

interface Reads {
  roots: Set<string>;
  /** Members read of `ctx`, `workload` and `steps`; absent when the whole map is. */
  members: Map<string, Set<string>>;
}

const known = new WeakMap<Step, Reads>();

function readsOf(step: Step): Reads {
  let reads = known.get(step);
  if (!reads) {
    reads = collect(step);
    known.set(step, reads);
  }
  return reads;
}

function collect(step: Step): Reads {
  const { in: items, cursor, maxInFlight, frame, fanout } = step.loop ?? {};
  const tasks = step.tasks.flatMap(task => readTaskPaths(task, step.input));
  const outputs = step.tasks.map(task => task.output);
  const ofLoop = [items, cursor, maxInFlight, frame, fanout];
  const paths = [...tasks, ...readPaths([outputs, step.output, ...ofLoop])];
  const roots = new Set<string>();
  const members = new Map<string, Set<string>>();
  const whole = new Set<string>();
  for (const [root, member] of paths) {
    if (root === undefined) continue;
    roots.add(root);
    if (member === undefined) whole.add(root);
    else members.set(root, (members.get(root) ?? new Set()).add(member));
  }
  for (const root of whole) members.delete(root);
  return { roots, members };
}

/** Everything an execution's templates could see, before it is cut to one step. */
export interface WholeScope {
  execution: FrozenScope["execution"];
  workload: JsonObject;
  ctx: JsonObject;
  results: ReadonlyMap<string, OutcomeResult>;
  upstream?: string;
}

/** The part of a scope that the commands of one step can read. */
export function cutScope(playbook: Playbook, stepName: string, whole: WholeScope): FrozenScope {
  const reads = readsOf(playbook.steps[stepName] as Step);
  const steps: Record<string, OutcomeResult> = {};
  const stepsWanted = reads.members.get("steps");
  const wholeSteps = reads.roots.has("steps") && !stepsWanted;
  for (const [name, result] of whole.results) {
    const isUpstream =
      name === whole.upstream && (reads.roots.has("result") || reads.roots.has("_prev"));
    if (wholeSteps || reads.roots.has(name) || stepsWanted?.has(name) || isUpstream)
      steps[name] = result;
  }
  return {
    execution: whole.execution,
    workload: cut(whole.workload, "workload", reads),
    ctx: cut(whole.ctx, "ctx", reads),
    steps,
    ...(whole.upstream !== undefined && whole.upstream in steps
      ? { upstream: whole.upstream }
      : {}),
  };
}

/**
 * Keys of a map that are read bare, or as `<name>.<key>`; all of them when the map itself is read.
 */
function cut(map: JsonObject, name: "ctx" | "workload", reads: Reads): JsonObject {
  const other = name === "ctx" ? "workload" : "ctx";
  const isWhole = (root: string) => reads.roots.has(root) && !reads.members.has(root);
  if (isWhole(name) || isWhole(other)) return map;
  const part: JsonObject = {};
  for (const [key, value] of Object.entries(map)) {
    const named = reads.members.get(name)?.has(key) || reads.members.get(other)?.has(key);
    if (reads.roots.has(key) || named) part[key] = value;
  }
  return part;
}
