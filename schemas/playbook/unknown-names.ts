/** Names in templates that nothing in the playbook provides: warnings, as a payload still could. */
import { formatIssue } from "../errors.ts";
import { isObject } from "../json.ts";
import type { Playbook, Step, Task } from "./model.ts";
import { nearest } from "./nearest.ts";
import { issueAtSpot } from "./spot.ts";
import type { Spot, Whereabouts } from "./spot.ts";
import { compileTemplate, guardSource, hasTemplate } from "./template.ts";

/** What the runtime itself provides (playbook-dsl §2.6); some of it only in some places. */
const ALWAYS = [
  "workload",
  "ctx",
  "iter",
  "step",
  "execution_id",
  "job",
  "catalog_id",
  "execution",
  "loop",
  "loop_index",
  "_index",
  "_total",
  "_first",
  "_last",
  "results",
  "_prev",
  "_task",
  "_attempt",
  "output",
  "event",
  "keychain",
  "result",
  "steps",
  "error",
  "input",
  "args",
  "env",
  "fanin",
  "frame",
  "now",
  "token",
  "__frame_max_rows",
  "True",
  "False",
  "None",
  "true",
  "false",
  "none",
  "null",
];
const IN_ITER = ["_index", "_first", "_last", "_total", "loop_event_id"];

interface Provided {
  /** First names of paths. */
  roots: Set<string>;
  /** Second names, after roots whose members are known too. */
  members: Map<string, Set<string>>;
}

/**
 * One warning per step for each name that no workload key, step, set, iterator, task label or input
 * provides. `where` (a ReadPlaybook) adds file, line and column.
 */
export function unknownNames(playbook: Playbook, where: Whereabouts = {}): string[] {
  const provided = whatIsProvided(playbook);
  const seen = new Set<string>();
  const warnings: string[] = [];
  const check = (spot: Spot, value: unknown) => {
    for (const path of pathsIn(value)) {
      const unknown = unknownIn(provided, path);
      const key = JSON.stringify([spot.step, unknown?.name]);
      if (!unknown || seen.has(key)) continue;
      seen.add(key);
      const close = nearest(unknown.last, unknown.candidates);
      const message = `nothing in this playbook provides '${unknown.name}'`;
      const hint = close ? `did you mean '${close}'?` : "it is empty unless the payload has it";
      warnings.push(formatIssue(issueAtSpot(where, spot, { message, hint })));
    }
  };
  check({ field: "workload" }, playbook.workload);
  check({ field: "keychain" }, playbook.keychain);
  for (const step of Object.values(playbook.steps)) checkStep(step, check);
  return warnings;
}

type Check = (spot: Spot, value: unknown) => void;

function checkStep(step: Step, check: Check): void {
  const at = (field: string): Spot => ({ step: step.name, field });
  for (const rule of step.admit) check(at("spec.policy.admit"), guardText(rule.when));
  const { loop } = step;
  check(at("loop"), [loop?.in, loop?.cursor, loop?.maxInFlight, loop?.frame]);
  check(at("spec.fanout"), loop?.fanout);
  check(at("input"), step.input);
  for (const task of step.tasks) checkTask(step.name, task, check);
  check(at("set"), step.set);
  for (const arc of step.next.arcs) check(at("next"), [guardText(arc.when), arc.set]);
}

function checkTask(step: string, task: Task, check: Check): void {
  const at = (field: string): Spot => ({ step, task: task.label, field });
  check(at("auth"), task.auth);
  check(at("input"), task.input);
  for (const [field, value] of Object.entries(task.config)) {
    if (!["code", "code_b64"].includes(field)) check(at(field), withoutCode(field, value));
  }
  for (const rule of task.rules) {
    check(at("spec.policy.rules"), [guardText(rule.when), rule.delay, rule.set]);
  }
  check(at("set"), task.set);
}

/** `script.source.code` is program text. */
function withoutCode(field: string, value: unknown): unknown {
  if (field !== "script" || !isObject(value) || !isObject(value["source"])) return value;
  return { ...value, source: { ...value["source"], code: null } };
}

function guardText(when: string | boolean | undefined): string | undefined {
  return typeof when === "string" ? guardSource(when) : undefined;
}

function whatIsProvided({ workload, keychain, steps }: Playbook): Provided {
  const ctx = new Set(Object.keys(workload));
  const iter = new Set(IN_ITER);
  const roots = new Set([...ALWAYS, ...Object.keys(workload), ...Object.keys(steps)]);
  const addSet = (set: Record<string, unknown>) => {
    for (const key of Object.keys(set)) {
      const [first = "", second] = key.split(".");
      const name = ["ctx", "iter", "step"].includes(first) && second ? second : first;
      roots.add(name);
      (first === "iter" ? iter : ctx).add(name);
    }
  };
  const addNames = (names: Iterable<string>) => {
    for (const name of names) roots.add(name);
  };
  for (const step of Object.values(steps)) {
    addSet(step.set);
    addNames(Object.keys(step.input));
    if (step.loop) {
      const { iterator } = step.loop;
      for (const name of [iterator, `${iterator}_rows`]) {
        roots.add(name);
        iter.add(name);
      }
    }
    for (const task of step.tasks) {
      addNames([task.label, ...Object.keys(task.input)]);
      for (const set of [task.set, ...task.rules.map(rule => rule.set)]) addSet(set);
    }
    for (const arc of step.next.arcs) addSet(arc.set);
  }
  const names = keychain.map(entry => String(entry["name"]));
  const members = new Map([
    ["workload", new Set(Object.keys(workload))],
    ["ctx", ctx],
    ["iter", iter],
    ["keychain", new Set(names)],
    ["steps", new Set(Object.keys(steps))],
  ]);
  return { roots, members };
}

function unknownIn(
  { roots, members }: Provided,
  [root = "", member]: string[],
): { name: string; last: string; candidates: Set<string> } | undefined {
  if (!roots.has(root)) return { name: root, last: root, candidates: roots };
  const known = members.get(root);
  if (!known || member === undefined || known.has(member)) return undefined;
  return { name: `${root}.${member}`, last: member, candidates: known };
}

/** Paths that the templates inside of a value read. */
function pathsIn(value: unknown): string[][] {
  if (typeof value === "string") return hasTemplate(value) ? compileTemplate(value).paths : [];
  if (Array.isArray(value)) return value.flatMap(pathsIn);
  return isObject(value) ? Object.values(value).flatMap(pathsIn) : [];
}
