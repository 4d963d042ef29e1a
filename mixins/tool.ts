/** What every tool service shares: one action `run`, its limits, cancellation, credentials. */
import type { ActionSchema, CallingOptions, Context, ServiceBroker } from "moleculer";
import { z } from "zod";
import { Busy, Unavailable, errorType } from "../schemas/errors.ts";
import type { StartCaller } from "../schemas/frozen-scope.ts";
import { isObject } from "../schemas/json.ts";
import type { Json, JsonObject } from "../schemas/json.ts";
import { TASK_LIMIT_EXPECTED } from "../schemas/rate-limit.ts";
import { checked } from "../schemas/requests.ts";
import type { ToolEnvelope, ToolError, ToolKind, ToolRequest } from "../schemas/tool.ts";
import { inBulkhead, type BulkheadLimits } from "./middleware/bulkhead.ts";
import { askingOf, type RateGuard } from "./rate-limit/asking.ts";
import { RateLimiter } from "./rate-limit/limiter.ts";

/** How long a caller waits after a full bulkhead queue, when it can be told nothing better. */
export const QUEUE_FULL_RETRY_MS = 250;

/** The limits of a tool's action. */
export interface ToolLimits extends BulkheadLimits, Omit<RateGuard, "limiter"> {
  /** Shared by all tools of a process; one of its own when absent. */
  limiter?: RateLimiter;
}

/** What `credentials.resolve` answers. */
export interface Credential {
  name: string;
  type: string;
  data: Record<string, unknown>;
}

/** What belongs to an error besides the error itself: the target's last words. */
export interface FailureDetail {
  data?: Json;
  http?: { status: number; headers: JsonObject };
  pg?: { code: string; sqlstate: string };
  py?: ToolEnvelope["py"];
}

/**
 * The target failed, or the task asks for something impossible. Inside a tool only: it leaves as
 * an envelope.
 */
export class ToolFailure extends Error {
  readonly failure: ToolError;
  readonly detail: FailureDetail;

  constructor(failure: ToolError, detail: FailureDetail = {}) {
    super(failure.message);
    this.name = "ToolFailure";
    this.failure = failure;
    this.detail = detail;
  }
}

/** The task itself is wrong: a field is missing or malformed. `hint` says what to write instead. */
export function configFailure(message: string, hint?: string): ToolFailure {
  const text = hint ? `${message} (${hint})` : message;
  return new ToolFailure({ kind: "config", retryable: false, code: "CONFIG", message: text });
}

/** The worker took its command back, or the execution was cancelled. */
export function cancelledFailure(): ToolFailure {
  const message = "cancelled before the tool had finished";
  return new ToolFailure({ kind: "cancelled", retryable: false, code: "CANCELLED", message });
}

const toolRequest = z.object({
  config: z.record(z.string(), z.unknown()).default({}),
  input: z.record(z.string(), z.unknown()).default({}),
  auth: z.union([z.string(), z.record(z.string(), z.unknown())]).nullish(),
  iteration: z.record(z.string(), z.unknown()).optional(),
  context: z.record(z.string(), z.unknown()).optional(),
  command: z.object({
    execution_id: z.string(),
    command_id: z.string(),
    step: z.string(),
    activation: z.number(),
    task: z.string(),
    attempt: z.number(),
    delivery: z.number(),
    idempotency_key: z.string(),
    playbook: z.string().optional(),
    caller: z.custom<StartCaller>(isObject).optional(),
  }),
});

/** What a tool is given besides its request. */
export interface ToolRun {
  ctx: Context;
  signal: AbortSignal | undefined;
}

/**
 * The action `run` of a tool service. Params: `ToolRequest`; answers `ToolEnvelope`.
 * A malformed request is Rejected 422; a failing target is an envelope with `status: "error"`; a
 * limit is Busy, or QUEUE_FULL. A turn of the rate limit comes before a place in the bulkhead.
 * Moleculer's own timeout is off: tools carry their own, and the worker its lease.
 */
export function toolAction(
  limits: ToolLimits,
  run: (request: ToolRequest, run: ToolRun) => Promise<ToolEnvelope>,
): ActionSchema & { timeout: number } {
  const guard = { ...limits, limiter: limits.limiter ?? new RateLimiter() };
  const execute = inBulkhead(limits, async ctx => {
    const signal = abortSignal(ctx);
    // It may have been taken back while it waited.
    if (signal?.aborted) throw cancelledFailure();
    return run(ctx.params as ToolRequest, { ctx, signal });
  });
  return {
    visibility: "public",
    tracing: false,
    cache: false,
    timeout: 0,
    // The one of an app's broker would queue what waits for its turn.
    bulkhead: { enabled: false },
    async handler(ctx: Context): Promise<ToolEnvelope> {
      const request = parseRequest(ctx);
      try {
        ctx.params = await admitted(guard, request, abortSignal(ctx));
        return await execute(ctx);
      } catch (error) {
        if (!(error instanceof ToolFailure)) throw error;
        return { status: "error", data: null, ...error.detail, error: error.failure };
      }
    },
  };
}

/** The request when its turn has come, without what it says of its turn. */
async function admitted(
  guard: RateGuard,
  request: ToolRequest,
  signal: AbortSignal | undefined,
): Promise<ToolRequest> {
  if (signal?.aborted) throw cancelledFailure();
  const asking = askingOf(guard, request, signal);
  if (typeof asking === "string") throw configFailure(`rate_limit: ${asking}`, TASK_LIMIT_EXPECTED);
  try {
    await guard.limiter.admit(asking);
  } catch (error) {
    throw signal?.aborted ? cancelledFailure() : error;
  }
  const { rate_limit: _said, ...config } = request.config;
  return { ...request, config };
}

function parseRequest(ctx: Context): ToolRequest {
  const what = `${ctx.action?.name ?? "The tool"} refuses the request`;
  const { auth, ...request } = checked(toolRequest, ctx.params ?? {}, what);
  return { ...request, auth: auth ?? undefined };
}

/**
 * The caller's AbortSignal. Moleculer 0.15 carries `ctx.locals` and the calling options to a local
 * action and sends neither over the wire, so a remote call simply has no signal.
 */
export function abortSignal(ctx: Context): AbortSignal | undefined {
  const locals = (ctx.locals ?? {}) as { signal?: unknown };
  const options = (ctx.options ?? {}) as { signal?: unknown };
  const signal = locals.signal ?? options.signal;
  return signal instanceof AbortSignal ? signal : undefined;
}

/**
 * Calls `tool.<kind>.run`. The signal reaches the tool when it runs in this process.
 * Throws Busy when the tool's queue is full (Moleculer's QUEUE_FULL), burning no attempt.
 */
export async function callTool(
  broker: ServiceBroker,
  kind: ToolKind,
  request: ToolRequest,
  signal?: AbortSignal,
): Promise<ToolEnvelope> {
  const options: CallingOptions & { signal?: AbortSignal } = { timeout: 0, retries: 0, signal };
  try {
    return await broker.call<ToolEnvelope, ToolRequest>(`tool.${kind}.run`, request, options);
  } catch (error) {
    throw busyWhenQueueFull(error);
  }
}

/** Bulkhead's QUEUE_FULL as Busy; any other error as it is. */
export function busyWhenQueueFull(error: unknown): unknown {
  if (errorType(error) !== "QUEUE_FULL") return error;
  const data = (error as { data?: Record<string, unknown> }).data ?? {};
  const message = `the queue of ${String(data.action ?? "the tool")} is full`;
  return new Busy(message, { retry_after_ms: QUEUE_FULL_RETRY_MS });
}

/**
 * The credential a task names: an alias goes through `credentials.resolve`, an inline map is
 * `{type, data}` or `{type, ...fields}`, and `{credential: alias, type?}` is an alias with another
 * type. An unknown alias is a ToolFailure of kind `config`; an unreachable store is thrown as it
 * came.
 */
export async function resolveCredential(
  ctx: Context,
  auth: ToolRequest["auth"],
): Promise<Credential | undefined> {
  if (auth === undefined || auth === "") return undefined;
  if (typeof auth === "string") return resolveAlias(ctx, auth);
  const type = typeof auth.type === "string" ? auth.type : "";
  if (typeof auth.credential === "string") {
    const found = await resolveAlias(ctx, auth.credential);
    return type ? { ...found, type } : found;
  }
  for (const field of ["source", "provider"]) {
    if (typeof auth[field] === "string") {
      const message = `auth: ${field} '${auth[field]}' cannot be resolved by this build`;
      throw configFailure(message, "name a registered credential alias instead");
    }
  }
  if (isObject(auth.data)) return { name: "inline", type, data: auth.data };
  const data = { ...auth };
  delete data.type;
  return { name: "inline", type, data };
}

async function resolveAlias(ctx: Context, alias: string): Promise<Credential> {
  try {
    return await ctx.call<Credential, { alias: string }>("credentials.resolve", { alias });
  } catch (error) {
    const type = errorType(error);
    if (type === "SERVICE_NOT_FOUND" || type === "SERVICE_NOT_AVAILABLE") {
      throw configFailure(`auth: '${alias}' cannot be resolved: no credentials service runs here`);
    }
    if (type === "REQUEST_TIMEOUT") throw new Unavailable("credentials.resolve did not answer");
    if (type === "REJECTED") throw configFailure(`auth: ${(error as Error).message}`);
    throw error;
  }
}

const TRUE_WORDS = new Set(["true", "yes", "on", "1"]);
const FALSE_WORDS = new Set(["false", "no", "off", "0"]);

/**
 * A boolean field as a template may have rendered it. A word that is neither is a config failure.
 */
export function readBoolean(value: unknown, field: string, fallback: boolean): boolean {
  if (value === undefined || value === null || value === "") return fallback;
  if (typeof value === "boolean") return value;
  const word = String(value).trim().toLowerCase();
  if (TRUE_WORDS.has(word)) return true;
  if (FALSE_WORDS.has(word)) return false;
  throw configFailure(`${field}: expected true or false`);
}

/** A positive number as a template may have rendered it; `unit` completes the sentence. */
export function readPositive(value: unknown, field: string, unit: string): number | undefined {
  if (value === undefined || value === null || value === "") return undefined;
  const number = typeof value === "number" ? value : Number(String(value).trim());
  if (Number.isFinite(number) && number > 0) return number;
  throw configFailure(`${field}: expected a positive number of ${unit}`);
}
