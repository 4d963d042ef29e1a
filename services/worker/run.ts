// One granted command, from its scope to its outcome.
import type { ServiceBroker } from "moleculer";
import type { Runtime } from "../../mixins/runtime.ts";
import { callTool } from "../../mixins/tool.ts";
import type { GiveBack } from "../../schemas/command.ts";
import { errorType } from "../../schemas/errors.ts";
import {
  INLINE_RESULT_BYTES_MAX,
  type OutcomeResult,
  type ResultReference,
} from "../../schemas/events.ts";
import type { FrozenScope, Grant } from "../../schemas/frozen-scope.ts";
import { fits, type Json, type JsonObject } from "../../schemas/json.ts";
import type { Playbook, Step, Task } from "../../schemas/playbook/model.ts";
import type { RenderedTask } from "../../schemas/playbook/render.ts";
import type { ScopeParts } from "../../schemas/playbook/scope.ts";
import { largeRoots, markOf, partsOf } from "../../schemas/playbook/kept-roots.ts";
import { playbookReference } from "../../schemas/playbook/stored-result.ts";
import type { ToolCommand, ToolEnvelope, ToolError } from "../../schemas/tool.ts";
import { isTooLarge, tooLargeFailure } from "./failures.ts";
import { valueOf, type Item } from "./items.ts";
import { LONG_WAIT_MS } from "./long-waits.ts";
import { patiently } from "./patience.ts";
import {
  runPipeline,
  type PipelineOutcome,
  type PipelinePorts,
  type PipelineStep,
  type TaskRun,
} from "./pipeline.ts";
import type { Turns } from "./turns.ts";

export interface Ran {
  result: OutcomeResult;
  ctx?: JsonObject;
  stats: { task_runs: number; retries: number; duration_ms: number };
  give_back?: GiveBack;
}

export interface RunOptions {
  signal: AbortSignal;
  /** Called around a wait for a child execution: waiting occupies no slot. */
  suspended<T>(wait: Promise<T>): Promise<T>;
  /** Called around any other long wait, which may keep the slot. */
  waiting<T>(wait: Promise<T>): Promise<T>;
  turns: Pick<Turns, "begin" | "pass">;
}

/** A granted command with what all its items have in common, loaded once. */
export interface OpenCommand {
  runtime: Runtime;
  broker: ServiceBroker;
  grant: Grant;
  step: Step;
  scope: FrozenScope;
  options: RunOptions;
  /** Values loaded for it so far, by reference. */
  loaded: Map<string, Json>;
}

export async function openCommand(
  runtime: Runtime,
  broker: ServiceBroker,
  grant: Grant,
  options: RunOptions,
): Promise<OpenCommand> {
  const step = await stepOf(runtime, grant);
  const scope = await scopeOf(runtime, grant);
  return { runtime, broker, grant, step, scope, options, loaded: new Map() };
}

/**
 * Runs a command of one item, or of none. A target's failure is data in the outcome; only an abort
 * and an unreachable world throw.
 */
export async function runCommand(command: OpenCommand): Promise<Ran> {
  const started = performance.now();
  const { iteration } = command.grant;
  const outcome = await runItem(command, iteration);
  const back = giveBackOf(outcome);
  return {
    ...(back && { give_back: back }),
    ...(await keptOutcome(command, outcome, iteration?.index)),
    stats: {
      task_runs: outcome.task_runs,
      retries: outcome.retries,
      duration_ms: Math.round(performance.now() - started),
    },
  };
}

/** What the outcome's row holds. A result that no tier takes fails its step. */
async function keptOutcome(
  command: OpenCommand,
  outcome: PipelineOutcome,
  index: number | undefined,
): Promise<Pick<Ran, "result" | "ctx">> {
  try {
    const result = await keepResult(command, outcome);
    return { result, ...(await writesOf(command, outcome, index)) };
  } catch (error) {
    if (!isTooLarge(error)) throw error;
    return { result: { status: "error", error: tooLargeFailure(error) } };
  }
}

/** The step's pipeline for one item, or for a step without a loop. `seen` are writes before it. */
export async function runItem(
  command: OpenCommand,
  item: Item | undefined,
  seen: JsonObject = {},
): Promise<PipelineOutcome> {
  const { runtime, grant, step, scope, loaded } = command;
  const parts: ScopeParts = { ...partsOf({ ...scope, ctx: { ...scope.ctx, ...seen } }, loaded) };
  if (grant.iteration && item) {
    const { iterator, total } = grant.iteration;
    const value = await patiently(command, () => valueOf(runtime, grant, item));
    parts.iteration = { iterator, value, index: item.index, total, vars: {} };
  }
  const { gives_back = false } = grant;
  return runTasks(command, { ...step, gives_back }, parts, item?.index);
}

/** Why the command of this outcome may be given back. */
export function giveBackOf({ gives_back, error }: PipelineOutcome): GiveBack | undefined {
  return gives_back && error ? { error: cutError(error) } : undefined;
}

/** What tells an item from the others of its step: its index, or the key of a claimed row. */
type Place = number | string | undefined;

/** A pipeline over its parts, for the item at a place. */
export function runTasks(
  command: OpenCommand,
  step: PipelineStep,
  parts: ScopeParts,
  place: Place,
): Promise<PipelineOutcome> {
  return runPipeline(step, parts, portsOf({ ...command, place, parts }));
}

/** Variables that an outcome writes, large ones kept elsewhere. */
export async function writesOf(
  command: OpenCommand,
  { ctx }: PipelineOutcome,
  place: Place,
): Promise<{ ctx?: JsonObject }> {
  if (Object.keys(ctx).length === 0) return {};
  return { ctx: await keepWrites(command, ctx, place) };
}

/** Keeps a value in a tier, under a name. */
export function keep(command: OpenCommand, name: string, value: Json): Promise<ResultReference> {
  return patiently(command, () => command.runtime.results.put(name, value));
}

async function stepOf(runtime: Runtime, grant: Grant): Promise<Step> {
  const playbook = await runtime.values.load(playbookReference(grant.playbook));
  return (playbook as unknown as Playbook).steps[grant.step] as Step;
}

async function scopeOf(runtime: Runtime, grant: Grant): Promise<FrozenScope> {
  const { scope, scope_ref, writes } = grant;
  if (scope) return scope;
  if (!scope_ref) throw new Error(`the grant of ${grant.command_id} has no scope`);
  const kept = (await runtime.values.load(scope_ref)) as unknown as FrozenScope;
  return writes ? { ...kept, ctx: { ...kept.ctx, ...writes } } : kept;
}

interface Running extends OpenCommand {
  place: Place;
  parts: ScopeParts;
}

function portsOf(running: Running): PipelinePorts {
  const { runtime, options } = running;
  return {
    now: () => performance.now(),
    load: references => load(running, references),
    async sleep(ms) {
      const wait = pause(runtime, ms, options.signal);
      await (ms < LONG_WAIT_MS ? wait : options.waiting(wait));
    },
    call: (task, request, run) => call(running, task, request, run),
  };
}

/** Rejects with the signal's reason when that comes first. */
async function pause({ clock }: Runtime, ms: number, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const cancel = clock.after(ms, resolve);
  const onAbort = () => reject(signal.reason as Error);
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    await promise;
  } finally {
    cancel();
    signal.removeEventListener("abort", onAbort);
  }
}

async function call(
  running: Running,
  task: Task,
  request: RenderedTask,
  run: TaskRun,
): Promise<ToolEnvelope> {
  const { broker, grant, options, scope, place } = running;
  options.signal.throwIfAborted();
  const command: ToolCommand = {
    execution_id: grant.execution_id,
    command_id: grant.command_id,
    step: grant.step,
    activation: grant.activation,
    task: task.label,
    attempt: run.attempt,
    delivery: grant.delivery,
    idempotency_key: idempotencyKey(grant, task, run.visit, place),
    playbook: grant.playbook.path,
    ...(scope.execution.caller && { caller: scope.execution.caller }),
  };
  const called = callTool(broker, task.kind, { ...request, command }, options.signal);
  try {
    const envelope = await (task.kind === "playbook" ? options.suspended(called) : called);
    // Aborted work has no outcome: the command is given back, or nobody wants it any more.
    if (envelope.error?.kind === "cancelled") options.signal.throwIfAborted();
    return envelope;
  } catch (error) {
    options.signal.throwIfAborted();
    if (["BUSY", "REJECTED", "VALIDATION_ERROR"].includes(errorType(error))) throw error;
    return { status: "error", data: null, error: toolFailure(error) };
  }
}

/**
 * Names one visit of one task, whoever runs it and however often: neither the delivery nor the
 * command's attempt is in it, and a redrive has the name of what it runs again.
 */
function idempotencyKey(
  { execution_id, step, activation, keyed = activation }: Grant,
  task: Task,
  visit: number,
  place: Place,
): string {
  const names = [step, task.label].map(name => encodeURIComponent(name.toWellFormed()));
  const [stepName, label] = names;
  const item = place === undefined ? [] : [place];
  return [execution_id, stepName, keyed, ...item, label, visit].join(":");
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

/** Loads values kept elsewhere that templates ask for. */
async function load(running: Running, references: ResultReference[]): Promise<void> {
  const { runtime, loaded } = running;
  for (const reference of references) {
    loaded.set(reference.ref, await patiently(running, () => runtime.values.load(reference)));
  }
}

/** The outcome's result: inline when it fits in a row, else kept in a tier and named. */
async function keepResult(command: OpenCommand, outcome: PipelineOutcome): Promise<OutcomeResult> {
  const envelope = outcome.envelope as JsonObject;
  const sides =
    Object.keys(envelope).length > 0 && fits(envelope, INLINE_RESULT_BYTES_MAX) ? { envelope } : {};
  const error = outcome.error ? { error: cutError(outcome.error) } : {};
  const base = { status: outcome.status, ...error, ...sides };
  if (fits(outcome.result, INLINE_RESULT_BYTES_MAX)) return { ...base, context: outcome.result };
  const name = nameOf(command.grant, "result", command.grant.iteration?.index);
  return { ...base, reference: await keep(command, name, outcome.result) };
}

/** Variables written by the command; large ones are kept elsewhere, with marks in their places. */
async function keepWrites(
  command: OpenCommand,
  ctx: JsonObject,
  place: Place,
): Promise<JsonObject> {
  const kept = { ...ctx };
  for (const [key, value] of largeRoots(ctx)) {
    const name = `${nameOf(command.grant, "ctx", place)}/${encodeURIComponent(key)}`;
    kept[key] = markOf(await keep(command, name, value));
  }
  return kept;
}

/** What one delivery of a command keeps has a name of its own. */
export function nameOf(grant: Grant, what: string, item?: Place): string {
  const { execution_id, step, activation, attempt, delivery } = grant;
  const place = [activation, ...(item === undefined ? [] : [item]), attempt, delivery];
  return `${execution_id}/${what}/${encodeURIComponent(step)}/${place.join("-")}`;
}

/** Characters of an error's message that a row keeps. */
const MESSAGE_MAX = 1_000;

export function cutError(error: ToolError): ToolError {
  return { ...error, message: error.message.slice(0, MESSAGE_MAX) };
}
