// From a tool's request to what the limiter is asked: its labels, and what the task says itself.
import {
  bucketOf,
  readTaskLimit,
  type BucketUse,
  type RateLabels,
} from "../../schemas/rate-limit.ts";
import type { ToolKind, ToolRequest } from "../../schemas/tool.ts";
import type { Asking, RateLimiter } from "./limiter.ts";

/** How the calls of one tool are limited. */
export interface RateGuard {
  tool: ToolKind;
  limiter: RateLimiter;
  /** Beside the credential: what of a request limits may name. */
  labels?: (request: ToolRequest) => RateLabels;
}

/** What is meant when a task does not say `per`: its upstream, as far as it is known. */
const UPSTREAM = ["host", "action", "credential"];

/** The request's question to the limiter; a text says what is wrong with its `rate_limit`. */
export function askingOf(
  { tool, labels = () => ({}) }: RateGuard,
  request: ToolRequest,
  signal: AbortSignal | undefined,
): Asking | string {
  const known = { ...labels(request), ...credentialOf(request) };
  const own = request.config["rate_limit"];
  if (own === undefined || own === null || own === "") return { tool, labels: known, signal };
  const use = ownUse(tool, request, known, own);
  return typeof use === "string" ? use : { tool, labels: known, own: use, signal };
}

function credentialOf({ auth }: ToolRequest): RateLabels {
  const alias = typeof auth === "string" ? auth : auth?.credential;
  return typeof alias === "string" && alias !== "" ? { credential: alias } : {};
}

function ownUse(
  tool: ToolKind,
  { command }: ToolRequest,
  labels: RateLabels,
  given: unknown,
): BucketUse | string {
  const limit = readTaskLimit(given);
  if (typeof limit === "string") return limit;
  const { rate } = limit;
  const per = limit.per ?? UPSTREAM.find(key => labels[key] !== undefined) ?? "task";
  if (per === "task") {
    const { playbook = command.execution_id, step, task } = command;
    return { bucket: bucketOf(tool, "task", `${playbook}/${step}/${task}`), rate };
  }
  const value = labels[per];
  if (value === undefined) return `per: this task has no ${per}`;
  return { bucket: bucketOf(tool, per, value), rate };
}
