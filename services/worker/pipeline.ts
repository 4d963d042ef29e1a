/**
 * Runs the tasks of one step: a program counter that policy rules move.
 * Pure control flow over ports, so that it can be tested without a broker, a clock or a tool.
 */
import { Needs } from "../../schemas/decider.ts";
import { busyWaitMs, errorType } from "../../schemas/errors.ts";
import type { ResultReference } from "../../schemas/events.ts";
import type { Json } from "../../schemas/json.ts";
import type { Rule, Task } from "../../schemas/playbook/model.ts";
import { backoffDelayMs, firstRule } from "../../schemas/playbook/policy.ts";
import { emptyField } from "../../schemas/playbook/render-fields.ts";
import { renderSet, renderTask } from "../../schemas/playbook/render.ts";
import type { RenderedTask } from "../../schemas/playbook/render.ts";
import { createScope } from "../../schemas/playbook/scope.ts";
import type { PipelineParts, Scope, ScopeParts } from "../../schemas/playbook/scope.ts";
import { TemplateError } from "../../schemas/playbook/template-error.ts";
import type { ToolEnvelope, ToolError } from "../../schemas/tool.ts";
import { configFailure, failed, logic, lostFailure, templateFailure } from "./failures.ts";
import { resultOf } from "./step-result.ts";

/** Task runs of one pipeline, retries included: what ends a jump that never stops. */
export const MAX_TASK_RUNS = 1_000_000;
/** The shortest wait when a tool says Busy without saying how long, and against a tight loop. */
export const MIN_BUSY_WAIT_MS = 50;
/** Task runs between two turns of the event loop: quick tools must not starve heartbeats. */
export const TASK_RUNS_PER_TURN = 100;

/** Which run of a task a call is for; both count from 1. */
export interface TaskRun {
  /** Entries into the task: a jump back enters it anew, a retry stays in its visit. */
  visit: number;
  /** Tries within the visit. */
  attempt: number;
}

/** What a pipeline needs from the world. */
export interface PipelinePorts {
  /**
   * Runs one tool. A target that fails is an envelope. Throws BUSY (`data.retry_after_ms`): the
   * call is repeated and burns no attempt. REJECTED and VALIDATION_ERROR become a `config` failure.
   */
  call(task: Task, request: RenderedTask, run: TaskRun): Promise<ToolEnvelope>;
  /** Waits at least one turn of the event loop, also for 0; rejects when the command is aborted. */
  sleep(ms: number): Promise<void>;
  now(): number;
  /** Loads values that templates ask for. Throws Rejected for one that is lost. */
  load(references: ResultReference[]): Promise<void>;
}

/** What of a step a pipeline uses. */
export interface PipelineStep {
  name: string;
  tasks: Task[];
  /** true when `tool` was a list: decides the shape of the result. */
  pipeline: boolean;
  input: Record<string, unknown>;
  /** A failure that may pass ends it at once: it will be run again from its first task. */
  gives_back?: boolean;
}

/** How a pipeline ended, with everything it wrote. */
export interface PipelineOutcome {
  status: "ok" | "error";
  /** A rule ended it early, as a success. */
  broke: boolean;
  gives_back?: boolean;
  result: Json;
  error?: ToolError;
  failed_task?: string;
  ctx: Record<string, Json>;
  iter: Record<string, Json>;
  /** Side fields of the last task's envelope, for guards such as `output.http.status`. */
  envelope: Pick<ToolEnvelope, "http" | "pg" | "py">;
  task_runs: number;
  retries: number;
}

/** The envelope with what the worker knows about it. */
type Output = ToolEnvelope & { ref: null; meta: { attempt: number; duration_ms: number } };

interface Run {
  readonly step: PipelineStep;
  readonly parts: ScopeParts;
  readonly ports: PipelinePorts;
  readonly pipeline: PipelineParts;
  /** Retries since the task last ended with anything else. */
  readonly retries: Map<string, number>;
  /** Entries into each task so far, retries not counted. */
  readonly visits: Map<string, number>;
  readonly ctx: Record<string, Json>;
  readonly iter: Record<string, Json>;
  output: Output | undefined;
  taskRuns: number;
  retryCount: number;
}

/** Where to go after a task. */
type Move =
  | { to: "task"; index: number }
  | { to: "end"; broke: boolean }
  | { to: "failure"; error: ToolError; task: string; gives_back?: boolean };

/**
 * Runs a step's tasks to the end. `parts` belongs to this run: its ctx, iteration variables, output
 * and pipeline change as tasks and rules write.
 * Throws only what a port throws (an abort, UNAVAILABLE): the outcome of everything else is data.
 */
export async function runPipeline(
  step: PipelineStep,
  parts: ScopeParts,
  ports: PipelinePorts,
): Promise<PipelineOutcome> {
  const run = startRun(step, parts, ports);
  let index = 0;
  for (;;) {
    const task = step.tasks[index];
    if (task === undefined) return finish(run, { to: "end", broke: false });
    const move = await runTask(run, task, index);
    if (move.to !== "task") return finish(run, move);
    index = move.index;
  }
}

function startRun(step: PipelineStep, parts: ScopeParts, ports: PipelinePorts): Run {
  const pipeline: PipelineParts = {
    locals: {},
    results: {},
    prev: null,
    task: "",
    attempt: 0,
    ...(parts.iteration ? {} : { iter: {} }),
  };
  parts.pipeline = pipeline;
  return {
    ...{ step, parts, ports, pipeline },
    ...{ retries: new Map<string, number>(), visits: new Map<string, number>() },
    ...{ ctx: {}, iter: {} },
    ...{ output: undefined, taskRuns: 0, retryCount: 0 },
  };
}

/** One task, once: call, task `set`, first matching rule, its `set`, its action. */
async function runTask(run: Run, task: Task, index: number): Promise<Move> {
  if (run.taskRuns >= MAX_TASK_RUNS) {
    return failure(task, logic("MAX_TASK_RUNS", `more than ${MAX_TASK_RUNS} task runs`));
  }
  if (++run.taskRuns % TASK_RUNS_PER_TURN === 0) await run.ports.sleep(0);
  run.pipeline.task = task.label;
  run.pipeline.attempt = (run.retries.get(task.label) ?? 0) + 1;
  if (run.pipeline.attempt === 1) {
    run.visits.set(task.label, (run.visits.get(task.label) ?? 0) + 1);
  }
  const output = await outputOf(run, task);
  run.output = output;
  run.parts.output = output;
  try {
    if (output.status === "ok") await keepResult(run, task, output);
    return await applyRules(run, task, index, output);
  } catch (error) {
    return failure(task, evaluationFailure(error));
  }
}

async function outputOf(run: Run, task: Task): Promise<Output> {
  const startedAt = run.ports.now();
  const envelope = await callTask(run, task);
  const meta = { attempt: run.pipeline.attempt, duration_ms: run.ports.now() - startedAt };
  return { ...envelope, ref: null, meta };
}

async function callTask(run: Run, task: Task): Promise<ToolEnvelope> {
  let request: RenderedTask;
  try {
    request = await evaluated(run, scope => renderTask(task, run.step.input, scope));
  } catch (error) {
    return failed(evaluationFailure(error));
  }
  const missing = emptyField(task, request.config);
  if (missing !== undefined) return failed(configFailure("MISSING_FIELD", missing));
  return callUntilFree(run, task, request);
}

/** Busy is nobody's failure: the same attempt is made again when there may be room. */
async function callUntilFree(run: Run, task: Task, request: RenderedTask): Promise<ToolEnvelope> {
  const visit = run.visits.get(task.label) ?? 1;
  for (;;) {
    try {
      return await run.ports.call(task, request, { visit, attempt: run.pipeline.attempt });
    } catch (error) {
      const type = errorType(error);
      if (type === "REJECTED" || type === "VALIDATION_ERROR") {
        return failed(configFailure(type, (error as Error).message));
      }
      if (type !== "BUSY") throw error;
      await run.ports.sleep(Math.max(MIN_BUSY_WAIT_MS, busyWaitMs(error)));
    }
  }
}

/**
 * Templates evaluated, again each time they meet a value that is kept elsewhere and not loaded yet.
 */
async function evaluated<Result>(run: Run, evaluate: (scope: Scope) => Result): Promise<Result> {
  for (;;) {
    try {
      return evaluate(createScope(run.parts));
    } catch (error) {
      if (!(error instanceof Needs)) throw error;
      await run.ports.load(error.load);
    }
  }
}

/** A failure of templates is the task's; anything else is thrown on. */
function evaluationFailure(error: unknown): ToolError {
  if (error instanceof TemplateError) return templateFailure(error);
  if (errorType(error) === "REJECTED") return lostFailure(error as Error);
  throw error;
}

async function keepResult(run: Run, task: Task, output: Output): Promise<void> {
  run.pipeline.results[task.label] = output.data;
  run.pipeline.prev = output.data;
  if (Object.keys(task.set).length === 0) return;
  run.parts.output_is_data = true;
  try {
    await write(run, task.set);
  } finally {
    run.parts.output_is_data = false;
  }
}

/** Writes are visible at once to what follows, and collected for whoever records the outcome. */
async function write(run: Run, set: Record<string, unknown>): Promise<void> {
  const { parts, pipeline } = run;
  const writes = await evaluated(run, scope => renderSet(set, scope));
  parts.ctx = { ...parts.ctx, ...writes.ctx };
  Object.assign(run.ctx, writes.ctx);
  Object.assign(parts.iteration?.vars ?? pipeline.iter ?? {}, writes.iter);
  Object.assign(run.iter, writes.iter);
  Object.assign(pipeline.locals, writes.local);
}

async function applyRules(run: Run, task: Task, index: number, output: Output): Promise<Move> {
  const rule = await evaluated(run, scope => firstRule(task.rules, scope));
  if (run.step.gives_back && output.error?.retryable && (!rule || rule.do === "retry")) {
    return { ...failure(task, output.error), gives_back: true };
  }
  const action = rule?.do ?? (output.status === "ok" ? "continue" : "fail");
  if (rule && Object.keys(rule.set).length > 0) await write(run, rule.set);
  if (rule && action === "retry") return retry(run, task, index, rule, output);
  run.retries.delete(task.label);
  switch (action) {
    case "continue":
      return { to: "task", index: index + 1 };
    case "break":
      return { to: "end", broke: true };
    case "jump":
      return jump(run, task, index, rule?.to ?? "");
    default:
      return failure(task, output.error ?? logic("POLICY_FAIL", "a policy rule failed the task"));
  }
}

async function retry(
  run: Run,
  task: Task,
  index: number,
  rule: Rule,
  output: Output,
): Promise<Move> {
  const count = (run.retries.get(task.label) ?? 0) + 1;
  if (count >= rule.attempts) {
    const spent = `still not done after ${rule.attempts} attempts`;
    return failure(task, output.error ?? logic("ATTEMPTS_EXHAUSTED", spent));
  }
  const policyMs = await evaluated(run, scope => backoffDelayMs(rule, count, scope));
  run.retries.set(task.label, count);
  run.retryCount++;
  const waitMs = Math.max(policyMs, output.error?.retry_after_ms ?? 0);
  if (waitMs > 0) await run.ports.sleep(waitMs);
  return { to: "task", index };
}

const PREVIOUS = new Set(["previous", "prev", "_previous", "@previous"]);

function jump(run: Run, task: Task, index: number, to: string): Move {
  const named = run.step.tasks.findIndex(candidate => candidate.label === to);
  const target = named < 0 && PREVIOUS.has(to) ? index - 1 : named;
  if (target >= 0) return { to: "task", index: target };
  return failure(task, logic("UNKNOWN_LABEL", `no task '${to}' to jump to`));
}

function failure(task: Task, error: ToolError): Move & { to: "failure" } {
  return { to: "failure", error, task: task.label };
}

function finish(run: Run, move: Exclude<Move, { to: "task" }>): PipelineOutcome {
  const { http, pg, py } = run.output ?? {};
  const envelope = { ...(http && { http }), ...(pg && { pg }), ...(py && { py }) };
  const ended = move.to === "failure" ? { error: move.error, failed_task: move.task } : {};
  const back = move.to === "failure" && move.gives_back ? { gives_back: true } : {};
  const broke = move.to === "end" && move.broke;
  const status = move.to === "failure" ? "error" : "ok";
  return {
    ...{
      status,
      broke,
      result: resultOf(run.step, run.pipeline, run.output, broke ? "break" : status),
    },
    ...{ ...ended, ...back },
    ...{ ctx: run.ctx, iter: run.iter, envelope },
    ...{ task_runs: run.taskRuns, retries: run.retryCount },
  };
}
