/** Plays pipelines against prepared answers, recording calls, waits and what was asked for. */
import { strict as assert } from "node:assert";
import { Rejected } from "../../schemas/errors.ts";
import type { Json } from "../../schemas/json.ts";
import type { Rule, Task } from "../../schemas/playbook/model.ts";
import type { RenderedTask } from "../../schemas/playbook/render.ts";
import type { ScopeParts } from "../../schemas/playbook/scope.ts";
import type { ToolEnvelope, ToolError } from "../../schemas/tool.ts";
import { runPipeline } from "../../services/worker/pipeline.ts";
import type { PipelineOutcome, PipelinePorts } from "../../services/worker/pipeline.ts";

export type Answer = ToolEnvelope | Error;
export interface Call {
  label: string;
  attempt: number;
  visit: number;
  request: RenderedTask;
}

export function ok(data: unknown, more: Partial<ToolEnvelope> = {}): ToolEnvelope {
  return { status: "ok", data: data as ToolEnvelope["data"], error: null, ...more };
}

export function bad(
  error: Partial<ToolError> = {},
  more: Partial<ToolEnvelope> = {},
): ToolEnvelope {
  const full: ToolError = {
    kind: "server_error",
    retryable: true,
    code: "HTTP_503",
    message: "HTTP 503",
    ...error,
  };
  return { status: "error", data: null, error: full, ...more };
}

export function task(label: string, more: Partial<Task> = {}): Task {
  return { label, kind: "noop", input: {}, config: {}, rules: [], set: {}, ...more };
}

export function rule(action: Rule["do"], when?: Rule["when"], more: Partial<Rule> = {}): Rule {
  return {
    do: action,
    attempts: 3,
    backoff: "none",
    delay: 1,
    set: {},
    ...(when === undefined ? {} : { when }),
    ...more,
  };
}

export const ON_ERROR = "{{ output.status == 'error' }}";

export function partsOf(more: Partial<ScopeParts> = {}): ScopeParts {
  return { execution: { id: "1", path: "p" }, workload: {}, ctx: {}, steps: {}, ...more };
}

/** Runs tasks against answers by label: a list is used up call by call, a function is asked. */
export async function play(
  tasks: Task[],
  answers: Record<string, Answer[] | ((call: Call, nth: number) => Answer)>,
  options: {
    parts?: ScopeParts;
    pipeline?: boolean;
    input?: Record<string, unknown>;
    /** Values that are kept elsewhere, and those that the parts see once they are loaded. */
    kept?: Map<string, Json>;
    loaded?: Map<string, Json>;
  } = {},
): Promise<{
  outcome: PipelineOutcome;
  calls: Call[];
  sleeps: number[];
  /** References of the values that templates asked for, in order. */
  asked: string[];
  parts: ScopeParts;
}> {
  const calls: Call[] = [];
  const sleeps: number[] = [];
  const asked: string[] = [];
  const loaded = options.loaded ?? new Map<string, Json>();
  const parts = options.parts ?? partsOf();
  const counts = new Map<string, number>();
  const ports: PipelinePorts = {
    call: (called, request, run) => {
      const call = { label: called.label, ...run, request };
      calls.push(call);
      const nth = counts.get(called.label) ?? 0;
      counts.set(called.label, nth + 1);
      const source = answers[called.label] ?? (() => ok(null));
      const answer = Array.isArray(source) ? source[nth] : source(call, nth);
      assert.ok(answer, `unexpected call ${nth + 1} of ${called.label}`);
      return answer instanceof Error ? Promise.reject(answer) : Promise.resolve(answer);
    },
    sleep: ms => {
      sleeps.push(ms);
      return Promise.resolve();
    },
    now: () => 0,
    load: references => {
      for (const { ref } of references) {
        asked.push(ref);
        const value = options.kept?.get(ref);
        if (value === undefined) return Promise.reject(new Rejected(`${ref} is lost`, 404));
        loaded.set(ref, value);
      }
      return Promise.resolve();
    },
  };
  const step = { name: "s", tasks, pipeline: options.pipeline ?? true, input: options.input ?? {} };
  const outcome = await runPipeline(step, parts, ports);
  return { outcome, calls, sleeps, asked, parts };
}

export function labels(calls: Call[]): string {
  return calls.map(call => call.label).join(" ");
}
