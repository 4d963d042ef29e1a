/** Which value a name has in a template: one order of lookup over plain parts, nothing copied. */
import { isObject } from "../json.ts";
import { LayeredView, OutputView, ResultsView, TaskOutputView } from "./scope-views.ts";
import { own, viewOfResult } from "./scope-views.ts";
import type { Scope } from "./template-values.ts";
import { unwrap } from "./view.ts";

export { View } from "./view.ts";
export type { Scope } from "./template-values.ts";

type Fields = Record<string, unknown>;

/** One loop iteration. */
export interface IterationParts {
  iterator: string;
  value: unknown;
  /** 0-based. */
  index: number;
  /** Absent where it is not known (cursor loops). */
  total?: number;
  /** What rules set as `iter.x`; lives as long as the iteration. */
  vars: Fields;
}

/** Where a pipeline stands. */
export interface PipelineParts {
  /** Bare names set by tasks and rules. */
  locals: Fields;
  /** Result of each task that succeeded, by label. */
  results: Fields;
  /** Result of the last task that succeeded. */
  prev: unknown;
  /** Label of the task at hand. */
  task: string;
  /** Counts from 1. */
  attempt: number;
  /** `iter.x` of a step without a loop. */
  iter?: Fields;
}

/** Everything names are made of, as plain data. Read live: parts may be filled in later. */
export interface ScopeParts {
  execution: { id: string; path: string; parent_id?: string | null; catalog_id?: string | null };
  workload: Fields;
  /** Set variables only; `ctx.x` falls back to the workload. */
  ctx: Fields;
  /** Results of finished steps, by name. */
  steps: Fields;
  iteration?: IterationParts | undefined;
  pipeline?: PipelineParts | undefined;
  /** Rendered inputs of the tool at hand. */
  input?: Fields | undefined;
  /** An envelope: `{status, data, error, …}`. */
  output?: object | undefined;
  /** In a task's own `set`, `output` is its result and not the envelope. */
  output_is_data?: boolean;
  event?: object | undefined;
  fanin?: object | undefined;
  /** Resolved entries by name. */
  keychain?: Fields | undefined;
  /** The finished step's result in `set` and guards, the upstream step's in inputs. */
  result?: unknown;
  /** The last error; the one of `output` when absent. */
  error?: unknown;
  /** Allow-listed environment variables. */
  env?: Fields | undefined;
  /** A cursor loop's frame: max_rows, index, row_count, rows, … */
  frame?: Fields | undefined;
  /** What `now()` answers, in milliseconds since 1970; the time of the call when absent. */
  now_ms?: number;
}

/** A scope over parts. Costs one object; everything else is made when a name is read. */
export function createScope(parts: ScopeParts): Scope {
  return new PartsScope(parts);
}

/** The same scope with a tool's rendered inputs visible, by bare name and as `input.<name>`. */
export function withInput(scope: Scope, input: Fields): Scope {
  if (scope instanceof PartsScope) return new PartsScope({ ...scope.parts, input });
  return {
    get: name => {
      if (name === "input") return input;
      return Object.hasOwn(input, name) ? input[name] : scope.get(name);
    },
  };
}

/** What a program sees of the iteration it runs for: the iterator, `_index`, `_total`. */
export function iterationNames(scope: Scope): Fields | undefined {
  const iteration = scope instanceof PartsScope ? scope.parts.iteration : undefined;
  if (!iteration) return undefined;
  const { iterator, value, index, total } = iteration;
  return { [iterator]: unwrap(value), _index: index, _total: total ?? null };
}

/** Every variable of a scope as one plain map, for programs that ask for `context`. */
export function contextMap(scope: Scope): Fields {
  const plain = (name: string) => unwrap(scope.get(name)) ?? {};
  const names = ["execution_id", "catalog_id", "job", "execution"];
  const known = names.map(name => [name, scope.get(name) ?? null] as const);
  const [workload, ctx, steps] = [plain("workload"), plain("ctx"), plain("steps")];
  return { ...Object.fromEntries(known), ...steps, ...ctx, workload, ctx, steps };
}

class PartsScope implements Scope {
  readonly parts: ScopeParts;

  constructor(parts: ScopeParts) {
    this.parts = parts;
  }

  /**
   * Words of the language, then iteration, inputs, pipeline, ctx, steps, workload, built-ins.
   * A workload key that is called like a built-in wins over it, one called `output` does not.
   */
  get(name: string): unknown {
    const word = WORDS.get(name)?.(this.parts);
    if (word !== undefined) return word;
    const { parts } = this;
    const found = fromIteration(parts.iteration, name);
    if (found !== undefined) return found;
    if (parts.input && Object.hasOwn(parts.input, name)) return parts.input[name];
    if (parts.pipeline) {
      const { locals, results, iter } = parts.pipeline;
      if (Object.hasOwn(locals, name)) return locals[name];
      if (Object.hasOwn(results, name)) return viewOfResult(results[name]);
      if (iter && Object.hasOwn(iter, name)) return iter[name];
    }
    if (Object.hasOwn(parts.ctx, name)) return parts.ctx[name];
    if (Object.hasOwn(parts.steps, name)) return viewOfResult(parts.steps[name]);
    if (Object.hasOwn(parts.workload, name)) return parts.workload[name];
    return BUILT_INS.get(name)?.(parts);
  }
}

type Reader = (parts: ScopeParts) => unknown;

/** Names that mean the same everywhere, whatever a playbook calls its own things. */
const WORDS: ReadonlyMap<string, Reader> = new Map<string, Reader>([
  ["workload", parts => new LayeredView([parts.workload])],
  ["ctx", parts => new LayeredView([parts.ctx, parts.workload])],
  ["iter", iterView],
  ["input", parts => parts.input],
  ["output", outputView],
  ["event", parts => parts.event],
  ["fanin", parts => parts.fanin],
  ["keychain", parts => parts.keychain],
]);

/** Names a playbook may take for itself. */
const BUILT_INS: ReadonlyMap<string, Reader> = new Map<string, Reader>([
  ["execution_id", parts => parts.execution.id],
  ["catalog_id", parts => parts.execution.catalog_id ?? undefined],
  ["job", ({ execution: { id } }) => ({ uuid: id, execution_id: id, id })],
  ["execution", executionMap],
  ["steps", parts => new ResultsView(parts.steps)],
  ["results", ({ pipeline }) => pipeline && new ResultsView(pipeline.results)],
  ["_prev", ({ pipeline }) => viewOfResult(pipeline?.prev)],
  ["_task", ({ pipeline }) => pipeline?.task],
  ["_attempt", ({ pipeline }) => pipeline?.attempt],
  ["result", parts => viewOfResult(parts.result)],
  ["error", parts => parts.error ?? own(parts.output as Fields | undefined, "error")],
  ["env", parts => parts.env],
  ["frame", parts => parts.frame],
  ["__frame_max_rows", parts => own(parts.frame, "max_rows")],
  ["now", ({ now_ms }) => (now_ms === undefined ? undefined : new Date(now_ms).toISOString())],
]);

function executionMap({ execution }: ScopeParts): Fields {
  return { id: execution.id, parent_id: execution.parent_id ?? null, path: execution.path };
}

function outputView(parts: ScopeParts): unknown {
  if (parts.output === undefined) return undefined;
  const envelope = parts.output as Fields;
  if (!parts.output_is_data) return new OutputView(envelope);
  const data = unwrap(own(envelope, "data"));
  return isObject(data) ? new TaskOutputView(data, envelope) : scalarOutput(data);
}

/** A scalar or list result in a task's `set`: `output` and `output.data` are both it. */
function scalarOutput(data: unknown): unknown {
  return data === null || data === undefined ? null : new OutputView({ data });
}

function iterView({ iteration, pipeline }: ScopeParts): unknown {
  const layers = [pipeline?.iter, iteration?.vars, iteration && iterationFields(iteration)];
  const present = layers.filter(layer => layer !== undefined);
  return present.length > 0 ? new LayeredView(present) : undefined;
}

function iterationFields({ iterator, value, index, total }: IterationParts): Fields {
  const known = total === undefined ? {} : { _total: total, _last: index === total - 1 };
  return { [iterator]: value, _index: index, _first: index === 0, ...known };
}

function fromIteration(iteration: IterationParts | undefined, name: string): unknown {
  if (!iteration) return undefined;
  const { iterator, value, index, total, vars } = iteration;
  if (Object.hasOwn(vars, name)) return vars[name];
  if (name === iterator) return value;
  switch (name) {
    case "_index":
    case "loop_index":
      return index;
    case "_total":
      return total;
    case "loop":
      return { index, first: index === 0, length: total ?? null, done: index + 1 === total };
    default:
      return undefined;
  }
}

/** Names every scope can answer, for warnings about names nothing provides. */
export const SCOPE_NAMES: readonly string[] = [
  ...WORDS.keys(),
  ...BUILT_INS.keys(),
  ...["_index", "_total", "loop_index", "loop"],
];
