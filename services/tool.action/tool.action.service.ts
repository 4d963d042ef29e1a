/** The action tool: any action of any Moleculer service as a durable step. */
import type { CallingOptions, Context, ServiceBroker, ServiceSchema } from "moleculer";
import type { RateLimiter } from "../../mixins/rate-limit/limiter.ts";
import { cancelledFailure, configFailure, readPositive, toolAction } from "../../mixins/tool.ts";
import type { ToolLimits } from "../../mixins/tool.ts";
import { isObject, type JsonObject } from "../../schemas/json.ts";
import type { ToolCommand, ToolEnvelope } from "../../schemas/tool.ts";
import { refusalOf } from "./allowed.ts";
import { plainAnswer } from "./answer.ts";
import { actionFailure } from "./failure.ts";

export interface ActionToolOptions {
  /** Patterns of actions that playbooks may call; empty: all but the runtime's own. */
  allow?: readonly string[];
  concurrency?: number;
  maxQueueSize?: number;
  /** Of all tools of the process. */
  limiter?: RateLimiter;
}

/** Calls of this process at once, and how many more may wait: the worker's slots come first. */
const ACTION_DEFAULTS = { concurrency: 1_000, maxQueueSize: 10_000 };
/** When the task does not say how long an answer may take. */
const TIMEOUT_SECONDS = 60;
const TIMEOUT_MAX_SECONDS = 86_400;
const NAME_MAX_CHARS = 256;

/**
 * The service `tool.action`. Action `run`: `ToolRequest` with `action`, `params`, `timeout`
 * (seconds) and `node`; answers an envelope whose `data` is the action's answer.
 * `ctx.meta` of the action: `idempotency_key`, `execution_id`, `command_id`, `step`, `attempt`,
 * `caller` when known, and what of the start's meta is carried (NOETL_META_KEYS).
 */
export function actionTool(options: ActionToolOptions = {}): ServiceSchema {
  const { allow = [], concurrency, maxQueueSize, limiter } = { ...ACTION_DEFAULTS, ...options };
  const limits: ToolLimits = {
    ...{ tool: "action", concurrency, max_queue_size: maxQueueSize, limiter },
    labels: ({ config }) => ({ action: String(config["action"] ?? "").trim() }),
  };
  return {
    name: "tool.action",
    actions: {
      run: toolAction(limits, async ({ config, command }, { ctx, signal }) => {
        const call = readCall(config, allow);
        const startedAt = performance.now();
        try {
          const answer = await callAction(ctx.broker, call, command, signal);
          const data = plainAnswer(answer, call.action);
          log(ctx, call, command, startedAt);
          return { status: "ok", data, error: null } satisfies ToolEnvelope;
        } catch (error) {
          const failure = (error as { failure?: { code: string } }).failure;
          log(ctx, call, command, startedAt, failure?.code);
          throw error;
        }
      }),
    },
  };
}

interface ActionCall {
  action: string;
  params: JsonObject;
  timeoutMs: number;
  node?: string;
}

function readCall(config: Record<string, unknown>, allow: readonly string[]): ActionCall {
  const { params = {}, node } = config;
  const action = typeof config["action"] === "string" ? config["action"].trim() : "";
  if (!/^\S+$/.test(action) || action.length > NAME_MAX_CHARS) {
    throw configFailure("action: not the name of an action", "service.action");
  }
  const reason = refusalOf(action, allow);
  if (reason !== undefined) {
    throw configFailure(`action: '${action}' is not for playbooks`, reason);
  }
  if (params !== null && !isObject(params)) throw configFailure("params: expected a map");
  const seconds = readPositive(config["timeout"], "timeout", "seconds") ?? TIMEOUT_SECONDS;
  if (seconds > TIMEOUT_MAX_SECONDS) {
    throw configFailure(`timeout: at most ${TIMEOUT_MAX_SECONDS} seconds`);
  }
  return {
    action,
    // A copy: a service in this process may change its params, and must not change the scope.
    params: JSON.parse(JSON.stringify(params ?? {})) as JsonObject,
    timeoutMs: Math.ceil(seconds * 1_000),
    ...(typeof node === "string" && node.trim() !== "" && { node: node.trim() }),
  };
}

/**
 * Called on the broker, not on the context: the callee's meta would flow back into the caller's.
 */
async function callAction(
  broker: ServiceBroker,
  { action, params, timeoutMs, node }: ActionCall,
  command: ToolCommand,
  signal: AbortSignal | undefined,
): Promise<unknown> {
  const options: CallingOptions = {
    timeout: timeoutMs,
    retries: 0,
    meta: metaOf(command),
    ...(node !== undefined && { nodeID: node }),
    ...(command.caller?.request_id !== undefined && { requestID: command.caller.request_id }),
  };
  const called = broker.call<unknown, JsonObject>(action, params, options);
  return await unlessAborted(called, signal).catch((error: unknown) => {
    throw signal?.aborted ? cancelledFailure() : actionFailure(error);
  });
}

function metaOf(command: ToolCommand): Record<string, unknown> {
  const { execution_id, command_id, step, attempt, idempotency_key, caller } = command;
  const name = caller?.requested_by;
  return {
    ...structuredClone(caller?.meta),
    ...(name !== undefined && { caller: { name } }),
    ...{ execution_id, command_id, step, attempt, idempotency_key },
  };
}

/** Moleculer has no way to stop a call: who waits for it stops waiting. */
function unlessAborted<T>(called: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return called;
  return new Promise<T>((resolve, reject) => {
    const abort = () => reject(cancelledFailure());
    signal.addEventListener("abort", abort, { once: true });
    called.finally(() => signal.removeEventListener("abort", abort)).then(resolve, reject);
  });
}

/** The shape of the call only: no params, no answer. */
function log(
  ctx: Context,
  { action }: ActionCall,
  { execution_id, command_id, step, task, attempt }: ToolCommand,
  startedAt: number,
  error_code?: string,
): void {
  const ms = Math.round(performance.now() - startedAt);
  const ids = { execution_id, command_id, step, task, attempt };
  ctx.service?.logger.debug({ ...ids, action, ms, error_code }, "tool.action");
}

export default actionTool();
