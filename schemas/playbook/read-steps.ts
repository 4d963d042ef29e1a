/** The steps of a workflow. */
import { isObject } from "../json.ts";
import { checkTemplates } from "./check-templates.ts";
import { durationMs } from "./duration.ts";
import { describeValue } from "./explain.ts";
import { readMap, refuse, warn } from "./findings.ts";
import { failureGrammar, stepGrammar, stepPolicyGrammar, stepSpecGrammar } from "./grammar.ts";
import type { AdmitRule, Step, Task } from "./model.ts";
import { readLoop } from "./read-loop.ts";
import type { StepLoopSpec } from "./read-loop.ts";
import { readRouter } from "./read-router.ts";
import { readAdmit } from "./read-rules.ts";
import { readSet } from "./read-set.ts";
import { readTools } from "./read-tools.ts";
import { originKey, rulesPath } from "./reading.ts";
import type { Reading } from "./reading.ts";
import { readRequires } from "../needs.ts";
import type { Path } from "./source.ts";

/** Steps by name, in file order. */
export function readSteps(reading: Reading, workflow: unknown[]): Record<string, Step> {
  const steps: Record<string, Step> = {};
  workflow.forEach((raw, index) => {
    const step = readStep(reading, ["workflow", index], raw);
    if (!step) return;
    if (Object.hasOwn(steps, step.name)) refuseDuplicate(reading, index, step.name);
    else steps[step.name] = step;
  });
  return steps;
}

function refuseDuplicate(reading: Reading, index: number, name: string): void {
  const first = reading.origins.get(originKey(name)) ?? ["workflow"];
  const { line } = reading.source.place(first);
  const message = `step '${name}' is defined twice`;
  const hint = `the first is at line ${line}; give one of them another name`;
  refuse(reading, ["workflow", index, "step"], { message, hint });
}

function readStep(reading: Reading, path: Path, raw: unknown): Step | undefined {
  if (!isObject(raw)) {
    const message = `a step must be a map, is ${describeValue(raw)}`;
    refuse(reading, path, { message, expected: "{step, tool, …}" });
    return undefined;
  }
  const fields = readMap(reading, path, stepGrammar, raw, { words: "step" });
  const name = fields.step;
  if (name === "__proto__") {
    refuse(reading, [...path, "step"], { message: "'__proto__' cannot name a step" });
    return undefined;
  }
  if (name !== undefined && !reading.origins.has(originKey(name))) {
    reading.origins.set(originKey(name), path);
  }
  const spec = readStepSpec(reading, [...path, "spec"], fields.spec);
  const loop = readLoop(reading, path, fields.loop, spec);
  if (loop?.cursor && (spec.limits.queueTimeoutMs ?? spec.limits.attemptTimeoutMs)) {
    const message = "a loop over a cursor knows neither queue_timeout nor attempt_timeout";
    refuse(reading, [...path, "spec"], { message, hint: "use loop.spec.frame.max_seconds" }, "key");
  }
  checkTemplates(reading, [...path, "input"], fields.input);
  checkTemplates(reading, [...path, "output"], fields.output);
  const tasks = readTools(reading, [...path, "tool"], fields.tool, name ?? "");
  if (loop?.fanout && name !== undefined) refuseShared(reading, name, tasks);
  const step = {
    ...(fields.desc !== undefined && { desc: String(fields.desc) }),
    admit: spec.admit,
    ...(spec.timeoutMs !== undefined && { timeoutMs: spec.timeoutMs }),
    ...spec.limits,
    failureMode: spec.failureMode,
    ...(spec.requires && { requires: spec.requires }),
    ...(loop && { loop }),
    input: fields.input ?? {},
    tasks,
    pipeline: Array.isArray(fields.tool),
    ...(fields.output && { output: fields.output }),
    set: readSet(reading, [...path, "set"], fields.set),
    next: readRouter(reading, [...path, "next"], fields.next),
  };
  return name === undefined ? undefined : { name, ...step };
}

/**
 * Shards run anywhere, in any order, and again: none may write what the others share (S-173). The
 * `set` of the step itself runs once, after the fan-in.
 */
function refuseShared(reading: Reading, step: string, tasks: Task[]): void {
  for (const { label, set, rules } of tasks) {
    const task = reading.origins.get(originKey(step, label)) ?? [];
    for (const key of sharedKeys(set)) refuse(reading, [...task, "set", key], SHARED, "key");
    rules.forEach((rule, index) => {
      const path = [...rulesPath(task), index];
      if (sharedKeys(rule.set).length > 0) refuse(reading, path, SHARED);
    });
  }
}

const SHARED = {
  message: "a shard of a fan-out cannot write ctx: shards have no order and run again",
  expected: "iter.name or a bare name",
  hint: "give a result, and write ctx in the step's own set, which runs after the fan-in",
};

function sharedKeys(set: Record<string, unknown>): string[] {
  return Object.keys(set).filter(key => key.startsWith("ctx."));
}

function limitsOf(spec: { queue_timeout?: unknown; attempt_timeout?: unknown }) {
  const queueTimeoutMs = durationMs(spec.queue_timeout);
  const attemptTimeoutMs = durationMs(spec.attempt_timeout);
  return {
    ...(queueTimeoutMs !== undefined && { queueTimeoutMs }),
    ...(attemptTimeoutMs !== undefined && { attemptTimeoutMs }),
  };
}

interface StepSpec extends StepLoopSpec {
  admit: AdmitRule[];
  timeoutMs: number | undefined;
  limits: Pick<Step, "queueTimeoutMs" | "attemptTimeoutMs">;
  failureMode: Step["failureMode"];
  requires: string[] | undefined;
}

function readStepSpec(
  reading: Reading,
  path: Path,
  raw: Record<string, unknown> | undefined,
): StepSpec {
  const spec = readMap(reading, path, stepSpecGrammar, raw, { words: "stepSpec" });
  const policyPath = [...path, "policy"];
  const policy = readMap(reading, policyPath, stepPolicyGrammar, spec.policy);
  const failure = readMap(reading, [...policyPath, "failure"], failureGrammar, policy.failure);
  if (policy.lifecycle) {
    const message = "'lifecycle' has no effect";
    warn(reading, [...policyPath, "lifecycle"], { message, hint: "use spec.timeout" }, "key");
  }
  return {
    admit: readAdmit(reading, [...policyPath, "admit"], policy.admit),
    timeoutMs: durationMs(spec.timeout),
    limits: limitsOf(spec),
    failureMode: failure.mode ?? "fail_fast",
    requires: readRequires(spec.requires),
    loopMode: spec.loop_mode,
    fanout: spec.fanout,
  };
}
