// The playbook tool: starts a child execution, and waits for its end when asked to.
import { createHash } from "node:crypto";
import type { Service, ServiceSchema } from "moleculer";
import type { Runtime } from "../../mixins/runtime.ts";
import { ServerLink } from "../../mixins/server-link.ts";
import { configFailure, readPositive, toolAction, ToolFailure } from "../../mixins/tool.ts";
import { isObject, type Json, type JsonObject } from "../../schemas/json.ts";
import type { ToolCommand, ToolEnvelope, ToolRequest } from "../../schemas/tool.ts";

/** Seconds a parent waits for its child when the task does not say. */
const TIMEOUT_SECONDS = 300;
const WAIT_MS = 20_000;
/** A server that does not answer within this, beyond what it was asked to wait, is not there. */
const ANSWER_MS = 10_000;
/** Children started or waited for at once in one process. */
const CONCURRENCY = 10_000;

interface Child {
  execution_id: string;
  status: string;
  error?: { message?: string; step?: string } | null;
}

/** The service `tool.playbook` over a process's runtime: playbook-dsl §3.8. */
export default function playbookTool({ settings, doorbell, limiter }: Runtime): ServiceSchema {
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
      run: toolAction(limits, (request, { signal }) => runChild(request, link, signal)),
    },
    created(this: Service) {
      link = new ServerLink({ broker: this.broker, http: settings.http, doorbell });
    },
    stopped: () => link.close(),
  };
}

async function runChild(
  request: ToolRequest,
  link: ServerLink,
  signal: AbortSignal | undefined,
): Promise<ToolEnvelope> {
  const { config } = request;
  const started = await start(request, link);
  const { execution_id, path } = started;
  const resultStep = text(config["return_step"]) ?? text(config["result_step"]);
  if (resultStep === undefined && config["return_result"] !== true) {
    return ok({ status: "started", execution_id, path, async: true });
  }
  const seconds = readPositive(config["timeout"], "timeout", "seconds") ?? TIMEOUT_SECONDS;
  const child = await waitFor(link, execution_id, seconds * 1_000, signal);
  if (child === undefined) return ok({ status: "timeout", execution_id, timeout_seconds: seconds });
  if (child.status !== "COMPLETED") throw childFailed(child, path);
  const payload = { execution_id, status: child.status, path, completed: true, failed: false };
  return ok({ ...(await resultOf(link, execution_id, resultStep)), ...payload });
}

/**
 * One child a try of a task's visit, also after the worker that asked first has died: a retry means
 * another child, as the first one has failed; so does a redrive.
 */
async function start(
  request: ToolRequest,
  link: ServerLink,
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
    return await link.call("executions.start", params, ANSWER_MS);
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
  link: ServerLink,
  execution_id: string,
  timeoutMs: number,
  signal: AbortSignal | undefined,
): Promise<Child | undefined> {
  const until = performance.now() + timeoutMs;
  for (;;) {
    signal?.throwIfAborted();
    const left = until - performance.now();
    if (left <= 0) return undefined;
    const timeout_ms = Math.ceil(Math.min(left, WAIT_MS));
    const params = { execution_id, timeout_ms };
    const child = await link.call<Child>("executions.wait", params, timeout_ms + ANSWER_MS);
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
  link: ServerLink,
  execution_id: string,
  step: string | undefined,
): Promise<JsonObject> {
  const params = { execution_id, ...(step === undefined ? {} : { step }) };
  const { found, value } = await link.call<{ found: boolean; value: Json }>(
    "executions.result",
    params,
    ANSWER_MS,
  );
  if (!found) return {};
  return isObject(value) ? { ...value, data: value } : { data: value };
}

function ok(data: Json): ToolEnvelope {
  return { status: "ok", data, error: null };
}

function text(value: unknown): string | undefined {
  return typeof value === "string" && value.trim() !== "" ? value.trim() : undefined;
}
