/** The result of a step as later steps see it: flat for a tool, merged for a pipeline. */
import { isObject } from "../../schemas/json.ts";
import type { Json, JsonObject } from "../../schemas/json.ts";
import type { Task } from "../../schemas/playbook/model.ts";
import type { PipelineParts } from "../../schemas/playbook/scope.ts";
import type { ToolEnvelope } from "../../schemas/tool.ts";

/**
 * A single tool gives its own result; names its `set` wrote are added where the result is a map.
 * A pipeline gives, weakest first: the fields of every result in task order, names set by tasks,
 * each result by its label, then `results`, `_prev` and `status` (ok, break or error).
 */
export function resultOf(
  step: { tasks: Task[]; pipeline: boolean },
  pipeline: PipelineParts,
  output: ToolEnvelope | undefined,
  status: "ok" | "break" | "error",
): Json {
  const locals = pipeline.locals as JsonObject;
  if (!step.pipeline) return singleResult(step.tasks[0], pipeline, output, locals);
  const results = pipeline.results as JsonObject;
  let merged: JsonObject = {};
  for (const { label } of step.tasks) {
    const result = Object.hasOwn(results, label) ? results[label] : null;
    if (isObject(result)) merged = { ...merged, ...result };
  }
  return { ...merged, ...locals, ...results, results, _prev: pipeline.prev as Json, status };
}

/** A tool that failed shows what its target said, or why there is nothing to show. */
function singleResult(
  task: Task | undefined,
  pipeline: PipelineParts,
  output: ToolEnvelope | undefined,
  locals: JsonObject,
): Json {
  const isDone = task !== undefined && Object.hasOwn(pipeline.results, task.label);
  const failure = output?.error ? { status: "error", error: { ...output.error } } : null;
  const result = isDone ? pipeline.results[task.label] : (output?.data ?? failure);
  return isObject(result) ? ({ ...result, ...locals } as Json) : ((result ?? null) as Json);
}
