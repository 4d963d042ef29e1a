/** The noop tool: answers what it is told to, for policies and `set` to act on. */
import type { ServiceSchema } from "moleculer";
import type { RateLimiter } from "../../mixins/rate-limit/limiter.ts";
import { toolAction } from "../../mixins/tool.ts";
import type { Json } from "../../schemas/json.ts";

export interface NoopToolOptions {
  concurrency?: number;
  maxQueueSize?: number;
  /** Of all tools of the process. */
  limiter?: RateLimiter;
}

const NOOP_DEFAULTS = { concurrency: 256, maxQueueSize: 10_000 };

/**
 * The service `tool.noop`. Action `run` answers `result` when it is given, else `{status,
 * message}`.
 */
export function noopTool(options: NoopToolOptions = {}): ServiceSchema {
  const { concurrency, maxQueueSize, limiter } = { ...NOOP_DEFAULTS, ...options };
  const limits = { tool: "noop", concurrency, max_queue_size: maxQueueSize, limiter } as const;
  return {
    name: "tool.noop",
    actions: {
      run: toolAction(limits, async ({ config }) => {
        const message = typeof config.message === "string" ? config.message : "noop";
        const data = "result" in config ? (config.result as Json) : { status: "ok", message };
        return { status: "ok", data, error: null };
      }),
    },
  };
}

export default noopTool();
