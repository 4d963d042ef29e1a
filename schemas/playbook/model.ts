/**
 * A playbook after parsing: the union grammar of NoETL normalised into one shape.
 * Values that may hold templates stay as written (strings with braces); they are rendered at run
 * time. Everything here is plain JSON, so that a parsed playbook can be cached and sent.
 */
import type { ToolKind } from "../tool.ts";

export interface Playbook {
  name: string;
  /** Catalog key: `metadata.path`, else `metadata.name`. */
  path: string;
  description?: string;
  /** `executor.spec.entry_step` → a step called `start` → the first. */
  entry: string;
  /** Runs once after quiescence; its failure fails the execution. */
  finalStep?: string;
  /** A dead end (arcs present, none true) fails the execution. */
  noNextIsError: boolean;
  /** The whole run; a start may say another limit. */
  timeoutMs?: number;
  /** Default payload; templates allowed. */
  workload: Record<string, unknown>;
  keychain: Record<string, unknown>[];
  /** By name, in file order. */
  steps: Record<string, Step>;
  /** Things accepted and ignored, for `noetl validate`. */
  warnings: string[];
}

export interface Step {
  name: string;
  desc?: string;
  /** First match wins; no match allows. */
  admit: AdmitRule[];
  /** Whole step, queue and attempts included. */
  timeoutMs?: number;
  /** Each of its commands: until a worker takes it, and one try of it. */
  queueTimeoutMs?: number;
  attemptTimeoutMs?: number;
  failureMode: "fail_fast" | "best_effort";
  /** What its worker must offer, beside what its tools need (`schemas/needs.ts`). */
  requires?: string[];
  loop?: Loop;
  /** Step-level input, merged under each task's input (task keys win). */
  input: Record<string, unknown>;
  /** At least one. A `workbook` task is already replaced by its body. */
  tasks: Task[];
  /** true when `tool` was a list: decides the shape of the step's result. */
  pipeline: boolean;
  output?: Record<string, unknown>;
  /**
   * Applied once, after the step or whole loop, before arcs. Keys as written: `ctx.x`, `x`,
   * `step.x`.
   */
  set: Record<string, unknown>;
  next: Router;
}

export interface AdmitRule {
  /** Absent on the else rule. */
  when?: string | boolean;
  allow: boolean;
}

export interface Router {
  mode: "exclusive" | "inclusive";
  onNoMatch: "complete" | "quiet";
  /** Empty for a leaf. */
  arcs: Arc[];
}

export interface Arc {
  to: string;
  when?: string | boolean;
  set: Record<string, unknown>;
}

export interface Loop {
  /** A template or a native list; exactly one of `in` and `cursor`. */
  in?: unknown;
  cursor?: Record<string, unknown>;
  /** Name bound for each iteration. */
  iterator: string;
  mode: "sequential" | "parallel" | "cursor";
  /** A number ≥ 1 or a template; parallel without it means 10. */
  maxInFlight?: number | string;
  exec: "local" | "distributed";
  /** `spec.loop_mode: fanout` on the step or the executor. */
  fanout?: Record<string, unknown>;
  frame?: Record<string, unknown>;
  /** How many or what share of iterations may fail without failing the loop. */
  toleratedFailureCount?: number;
  toleratedFailurePercent?: number;
  /** Failures that may pass and that do not fail their items: a number ≥ 1 or a template. */
  retryBudget?: number | string;
}

export interface Task {
  /** `name`, or `task_<position>` counted from 1; a single tool is `<step>_task`. */
  label: string;
  kind: ToolKind;
  /** Credential alias (may be a template) or inline map. `credential:` is a synonym. */
  auth?: string | Record<string, unknown>;
  /** `input` or its alias `args`. */
  input: Record<string, unknown>;
  /**
   * All other fields of the tool as written (url, query, path, return_step, …), `tool.spec.*`
   * lifted.
   */
  config: Record<string, unknown>;
  rules: Rule[];
  /** Task-level `set`: bare names for later tasks and the step's result. */
  set: Record<string, unknown>;
  output?: Record<string, unknown>;
}

export interface Rule {
  /** Absent on an else rule. */
  when?: string | boolean;
  do: "continue" | "retry" | "jump" | "break" | "fail";
  /** Total tries, the first included; default 3. */
  attempts: number;
  backoff: "none" | "fixed" | "linear" | "exponential";
  /** Base delay in seconds, or a template; default 1. */
  delay: number | string;
  /** Jump target: a label, or `previous`. */
  to?: string;
  set: Record<string, unknown>;
}
