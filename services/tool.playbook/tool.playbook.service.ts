// The playbook tool: starts a child execution, and waits for its end when asked to.
import { createHash } from "node:crypto";
import type { Service, ServiceSchema } from "moleculer";
import { backoffMs, type Clock } from "../../mixins/clock.ts";
import { isUnreachable } from "../../mixins/routing.ts";
import type { Runtime } from "../../mixins/runtime.ts";
import { ServerLink } from "../../mixins/server-link.ts";
import { configFailure, readPositive, toolAction, ToolFailure } from "../../mixins/tool.ts";
import { errorType } from "../../schemas/errors.ts";
import { isObject, type Json, type JsonObject } from "../../schemas/json.ts";
import type { ToolCommand, ToolEnvelope, ToolRequest } from "../../schemas/tool.ts";

/** Seconds a parent waits for its child when the task does not say. */
const TIMEOUT_SECONDS = 300;
const WAIT_MS = 20_000;
/** A server that does not answer within this, beyond what it was asked to wait, is not there. */
const ANSWER_MS = 10_000;
/** Between two questions that nobody has answered. */
const PAUSE_MAX_MS = 2_000;
/** Children started or waited for at once in one process. */
const CONCURRENCY = 10_000;

interface Child {
  execution_id: string;
  status: string;
  error?: { message?: string; step?: string } | null;
}

/** The service `tool.playbook` over a process's runtime: playbook-dsl §3.8. */
export default function playbookTool(runtime: Runtime): ServiceSchema {
  const { settings, doorbell, clock, limiter } = runtime;
  let link: ServerLink;
  const limits = {
    tool: "playbook",
    concurrency: CONCURRENCY,
    max_queue_size: 0,
    limiter,
  } as const;
  return {
    name: "tool.playbook",
    actions: {
      run: toolAction(limits, (request, { signal }) => runChild(request, { link, clock }, signal)),
    },
    created(this: Service) {
      link = new ServerLink({ broker: this.broker, http: settings.http, doorbell });
    },
    stopped: () => link.close(),
  };
}

/** Puts questions to the servers, until the task has taken as long as it may. */
interface Asker {
  link: ServerLink;
  clock: Clock;
  signal: AbortSignal | undefined;
  /** By `performance.now()`. */
  until: number;
}

/**
 * Each question can be repeated, and a server that is killed, frozen or away is none of the
 * playbook's business: another one is asked, or the same one again. Throws what it met last when
 * the time is over, and what a server refuses.
 */
async function asked<T>(
  { link, clock, signal, until }: Asker,
  question: { action: string; params: Record<string, unknown>; answerMs: number },
): Promise<T> {
  for (let tries = 0; ; tries += 1) {
    try {
      return await link.call<T>(question.action, question.params, question.answerMs);
    } catch (error) {
      const isLost = isUnreachable(error) || errorType(error) === "UNAVAILABLE";
      if (!isLost || performance.now() > until) throw error;
      await clock.sleep(backoffMs(tries, 50, PAUSE_MAX_MS));
      signal?.throwIfAborted();
    }
  }
}

async function runChild(
  request: ToolRequest,
  way: Pick<Asker, "link" | "clock">,
  signal: AbortSignal | undefined,
): Promise<ToolEnvelope> {
  const { config } = request;
  const seconds = readPositive(config["timeout"], "timeout", "seconds") ?? TIMEOUT_SECONDS;
  const asker: Asker = { ...way, signal, until: performance.now() + seconds * 1_000 };
  const started = await start(request, asker);
  const { execution_id, path } = started;
  const resultStep = text(config["return_step"]) ?? text(config["result_step"]);
  if (resultStep === undefined && config["return_result"] !== true) {
    return ok({ status: "started", execution_id, path, async: true });
  }
  const child = await waitFor(asker, execution_id, seconds * 1_000);
  if (child === undefined) return ok({ status: "timeout", execution_id, timeout_seconds: seconds });
  if (child.status !== "COMPLETED") throw childFailed(child, path);
  const payload = { execution_id, status: child.status, path, completed: true, failed: false };
  return ok({ ...(await resultOf(asker, execution_id, resultStep)), ...payload });
}

/**
 * One child a try of a task's visit, also after the worker that asked first has died: a retry means
 * another child, as the first one has failed; so does a redrive.
 */
async function start(
  request: ToolRequest,
  asker: Asker,
): Promise<{ execution_id: string; path: string }> {
  const { config, command } = request;
  const path = text(config["path"]) ?? text(config["catalog_id"]);
  if (path === undefined)
    throw configFailure("path: this is missing", "the catalog path of a playbook");
  const version = readPositive(config["version"], "version", "a catalog version");
  try {
    const params = {
      path,
      ...(version === undefined ? {} : { version }),
      payload: payloadOf(request),
      parent_execution_id: command.execution_id,
      idempotency_key: childKey(command),
    };
    return await asked(asker, { action: "executions.start", params, answerMs: ANSWER_MS });
  } catch (error) {
    const { code, message } = error as { code?: number; message?: string };
    if (code === 404 || code === 422) throw configFailure(`playbook '${path}': ${message}`);
    throw error;
  }
}

/** A hash, as step names may be longer than a key. */
function childKey({ idempotency_key, activation, attempt }: ToolCommand): string {
  const name = createHash("sha256").update([idempotency_key, activation, attempt].join("\n"));
  return `child:${name.digest("hex")}`;
}

/** The first of input, args and payload that is not empty. */
function payloadOf({ input, config }: ToolRequest): Record<string, unknown> {
  const maps = [input, config["args"], config["payload"]].filter(isObject);
  return maps.find(map => Object.keys(map).length > 0) ?? {};
}

async function waitFor(
  asker: Asker,
  execution_id: string,
  timeoutMs: number,
): Promise<Child | undefined> {
  const until = performance.now() + timeoutMs;
  for (;;) {
    asker.signal?.throwIfAborted();
    const left = until - performance.now();
    if (left <= 0) return undefined;
    const timeout_ms = Math.ceil(Math.min(left, WAIT_MS));
    const params = { execution_id, timeout_ms };
    const answerMs = timeout_ms + ANSWER_MS;
    const child = await asked<Child>(asker, { action: "executions.wait", params, answerMs });
    if (!["RUNNING", "PAUSED"].includes(child.status)) return child;
  }
}

function childFailed(child: Child, path: string): ToolFailure {
  const { execution_id, status, error } = child;
  const why = error?.message ? `: ${error.message}` : "";
  const message = `child execution ${execution_id} of '${path}' ended ${status}${why}`;
  return new ToolFailure(
    { kind: "logic", retryable: false, code: `CHILD_${status}`, message },
    { data: { execution_id, status, completed: false, failed: true } },
  );
}

/**
 * The child's result: of the step asked for, or of its last one. Maps are merged, anything is
 * `data`.
 */
async function resultOf(
  asker: Asker,
  execution_id: string,
  step: string | undefined,
): Promise<JsonObject> {
  const params = { execution_id, ...(step === undefined ? {} : { step }) };
  const question = { action: "executions.result", params, answerMs: ANSWER_MS };
  const { found, value } = await asked<{ found: boolean; value: Json }>(asker, question);
  if (!found) return {};
  return isObject(value) ? { ...value, data: value } : { data: value };
}

function ok(data: Json): ToolEnvelope {
  return { status: "ok", data, error: null };
}

function text(value: unknown): string | undefined {
  return typeof value === "string" && value.trim() !== "" ? value.trim() : undefined;
}
