// One granted command, from its scope to its outcome.
import type { ServiceBroker } from "moleculer";
import type { Runtime } from "../../mixins/runtime.ts";
import { callTool } from "../../mixins/tool.ts";
import { errorType } from "../../schemas/errors.ts";
import { INLINE_RESULT_BYTES_MAX, type OutcomeResult } from "../../schemas/events.ts";
import type { Grant } from "../../schemas/frozen-scope.ts";
import type { Json, JsonObject } from "../../schemas/json.ts";
import type { Playbook, Step, Task } from "../../schemas/playbook/model.ts";
import type { RenderedTask } from "../../schemas/playbook/render.ts";
import type { ScopeParts } from "../../schemas/playbook/scope.ts";
import { KeptValue, partsOf, playbookReference } from "../../schemas/playbook/stored-result.ts";
import type { ToolCommand, ToolEnvelope, ToolError } from "../../schemas/tool.ts";
import { runPipeline, type PipelineOutcome, type PipelinePorts } from "./pipeline.ts";

export interface Ran {
  result: OutcomeResult;
  ctx?: JsonObject;
  stats: { task_runs: number; retries: number; duration_ms: number };
}

export interface RunOptions {
  signal: AbortSignal;
  /** Called around a wait for a child execution: waiting occupies no slot. */
  suspended<T>(wait: Promise<T>): Promise<T>;
}

/**
 * Runs a command's pipeline. A target's failure is data in the outcome; only an abort and an
 * unreachable world throw.
 */
export async function runCommand(
  runtime: Runtime,
  broker: ServiceBroker,
  grant: Grant,
  options: RunOptions,
): Promise<Ran> {
  const started = performance.now();
  const step = await stepOf(runtime, grant);
  const loaded = new Map<string, Json>();
  const { scope, iteration } = grant;
  const parts: ScopeParts = { ...partsOf(scope, loaded) };
  if (iteration) parts.iteration = { ...iteration, vars: {} };
  const ports = portsOf({ runtime, broker, grant, options, parts, loaded });
  const outcome = await runPipeline(step, parts, ports);
  const result = await resultOf(runtime, grant, outcome);
  return {
    result,
    ...(Object.keys(outcome.ctx).length > 0 ? { ctx: outcome.ctx } : {}),
    stats: {
      task_runs: outcome.task_runs,
      retries: outcome.retries,
      duration_ms: Math.round(performance.now() - started),
    },
  };
}

async function stepOf(runtime: Runtime, grant: Grant): Promise<Step> {
  const playbook = await runtime.values.load(playbookReference(grant.playbook));
  return (playbook as unknown as Playbook).steps[grant.step] as Step;
}

interface Running {
  runtime: Runtime;
  broker: ServiceBroker;
  grant: Grant;
  options: RunOptions;
  parts: ScopeParts;
  loaded: Map<string, Json>;
}

function portsOf(running: Running): PipelinePorts {
  const { runtime, options } = running;
  let calls = 0;
  return {
    now: () => performance.now(),
    hydrate: paths => hydrate(running, paths),
    async sleep(ms) {
      options.signal.throwIfAborted();
      await new Promise<void>((resolve, reject) => {
        const cancel = runtime.clock.after(ms, resolve);
        options.signal.addEventListener(
          "abort",
          () => {
            cancel();
            reject(options.signal.reason as Error);
          },
          { once: true },
        );
      });
    },
    call(task, request, { attempt }) {
      calls += 1;
      return call(running, task, request, { attempt, call: calls });
    },
  };
}

async function call(
  running: Running,
  task: Task,
  request: RenderedTask,
  run: { attempt: number; call: number },
): Promise<ToolEnvelope> {
  const { broker, grant, options } = running;
  options.signal.throwIfAborted();
  const command: ToolCommand = {
    execution_id: grant.execution_id,
    command_id: grant.command_id,
    step: grant.step,
    task: task.label,
    attempt: run.attempt,
    delivery: grant.delivery,
    call: run.call,
  };
  const called = callTool(broker, task.kind, { ...request, command }, options.signal);
  try {
    return await (task.kind === "playbook" ? options.suspended(called) : called);
  } catch (error) {
    options.signal.throwIfAborted();
    if (["BUSY", "REJECTED", "VALIDATION_ERROR"].includes(errorType(error))) throw error;
    return { status: "error", data: null, error: toolFailure(error) };
  }
}

/** What a tool throws although it should not: told to the playbook like any failure. */
function toolFailure(error: unknown): ToolError {
  const type = errorType(error);
  const message = error instanceof Error ? error.message : String(error);
  const missing = type === "SERVICE_NOT_FOUND" || type === "SERVICE_NOT_AVAILABLE";
  if (missing)
    return { kind: "config", retryable: true, code: type, message: "no worker has this tool" };
  const retryable = type === "UNAVAILABLE" || (error as { retryable?: boolean }).retryable === true;
  return { kind: retryable ? "connection" : "unknown", retryable, code: type || "TOOL", message };
}

/** Loads values kept elsewhere that the paths about to be read go into. */
async function hydrate({ runtime, parts, loaded }: Running, paths: string[][]): Promise<void> {
  for (const path of paths) {
    for (const { kept, rest } of keptOn(parts, path)) {
      const [member] = rest;
      const answered = member !== undefined && Object.hasOwn(kept.reference.extract ?? {}, member);
      const { ref } = kept.reference;
      if (!answered && !loaded.has(ref)) loaded.set(ref, await runtime.values.load(kept.reference));
    }
  }
}

function keptOn(parts: ScopeParts, path: string[]): { kept: KeptValue; rest: string[] }[] {
  const [root = "", ...rest] = path;
  const [name, ...deeper] = rest;
  const found: [unknown, string[]][] = [[parts.steps[root], rest]];
  if (root === "result") found.push([parts.result, rest]);
  if (root === "steps") {
    if (name !== undefined) found.push([parts.steps[name], deeper]);
    else for (const value of Object.values(parts.steps)) found.push([value, []]);
  }
  return found.flatMap(([value, left]) =>
    value instanceof KeptValue ? [{ kept: value, rest: left }] : [],
  );
}

/** The outcome's result: inline when it fits in a row, else kept in a tier and named. */
async function resultOf(
  runtime: Runtime,
  grant: Grant,
  outcome: PipelineOutcome,
): Promise<OutcomeResult> {
  const envelope = outcome.envelope as JsonObject;
  const sides = Object.keys(envelope).length > 0 && small(envelope) ? { envelope } : {};
  const error = outcome.error ? { error: cutError(outcome.error) } : {};
  const base = { status: outcome.status, ...error, ...sides };
  if (small(outcome.result)) return { ...base, context: outcome.result };
  const { execution_id, step, activation, attempt, delivery, iteration } = grant;
  const place = iteration
    ? [activation, iteration.index, attempt, delivery]
    : [activation, attempt, delivery];
  const name = `${execution_id}/result/${encodeURIComponent(step)}/${place.join("-")}`;
  return { ...base, reference: await runtime.results.put(name, outcome.result) };
}

function small(value: Json): boolean {
  return Buffer.byteLength(JSON.stringify(value)) <= INLINE_RESULT_BYTES_MAX;
}

/** Characters of an error's message that a row keeps. */
const MESSAGE_MAX = 1_000;

function cutError(error: ToolError): ToolError {
  return { ...error, message: error.message.slice(0, MESSAGE_MAX) };
}
