/** The http tool: one request, its answer as data. */
import { Agent } from "undici";
import type { Service, ServiceSchema } from "moleculer";
import {
  configFailure,
  readBoolean,
  readPositive,
  resolveCredential,
  toolAction,
} from "../../mixins/tool.ts";
import type { ToolLimits, ToolRun } from "../../mixins/tool.ts";
import { RateLimiter } from "../../mixins/rate-limit/limiter.ts";
import { bucketOf, type RateLabels } from "../../schemas/rate-limit.ts";
import type { ToolEnvelope, ToolRequest } from "../../schemas/tool.ts";
import { httpSecrets } from "./auth.ts";
import { exchange } from "./exchange.ts";
import { buildRequest } from "./request.ts";
import type { HttpRequest } from "./request.ts";
import { pauseOf, toEnvelope } from "./response.ts";
import type { HttpResponse, ResponseType } from "./response.ts";

export interface HttpToolOptions {
  /** Requests of this process at once; more wait in a queue of `maxQueueSize`, then QUEUE_FULL. */
  concurrency?: number;
  maxQueueSize?: number;
  /** When the task is silent; headers and body together. */
  timeoutMs?: number;
  /** Cap on what a task may ask for. */
  timeoutMaxMs?: number;
  connectTimeoutMs?: number;
  /** Connections to one origin; requests beyond it wait for one. */
  maxConnections?: number;
  /** An idle connection closes after this; a server's own hint may shorten it. */
  keepAliveMs?: number;
  /** Largest decompressed body. */
  responseMaxBytes?: number;
  /** Cap on `Retry-After`. */
  retryAfterMaxMs?: number;
  maxRedirects?: number;
  /** Origins with open connections at once. */
  maxOrigins?: number;
  /** How long nobody calls a host after a 429 that does not say it. */
  pauseMs?: number;
  /** Of all tools of the process; one of its own when absent. */
  limiter?: RateLimiter;
}

type HttpSettings = Required<Omit<HttpToolOptions, "limiter">>;

export const HTTP_DEFAULTS: HttpSettings = {
  concurrency: 64,
  maxQueueSize: 1000,
  timeoutMs: 60_000,
  timeoutMaxMs: 180_000,
  connectTimeoutMs: 10_000,
  maxConnections: 100,
  keepAliveMs: 30_000,
  responseMaxBytes: 32 * 1024 * 1024,
  retryAfterMaxMs: 300_000,
  maxRedirects: 10,
  maxOrigins: 1024,
  pauseMs: 1_000,
};

/**
 * One keep-alive client of the process, and a second one, made when first asked for, that accepts
 * any certificate.
 */
interface Clients {
  verifying: Agent;
  trusting?: Agent;
}

/**
 * The service `tool.http`. Action `run`: `ToolRequest` with the fields of playbook-dsl §3.2,
 * answers an envelope whose `data` is `{status_code, status, headers, url, elapsed, data, body}`,
 * also on an error. `broker.createService(httpTool())` works in any Moleculer application.
 */
export function httpTool(options: HttpToolOptions = {}): ServiceSchema {
  const { limiter = new RateLimiter(), ...given } = options;
  const settings: HttpSettings = { ...HTTP_DEFAULTS, ...given };
  let clients: Clients | undefined;
  const { concurrency, maxQueueSize } = settings;
  const limits: ToolLimits = {
    ...{ tool: "http", concurrency, max_queue_size: maxQueueSize, limiter },
    labels: ({ config }) => hostLabel(config),
  };

  function client(verify: boolean): Agent {
    clients ??= { verifying: newAgent(settings, true) };
    if (verify) return clients.verifying;
    clients.trusting ??= newAgent(settings, false);
    return clients.trusting;
  }

  return {
    name: "tool.http",
    actions: {
      run: toolAction(limits, async function run(request, { ctx, signal }) {
        const { service } = ctx;
        const log = service?.logger;
        return runHttp({ request, ctx, signal, settings, client, limiter, log });
      }),
    },
    async stopped() {
      const open = clients;
      clients = undefined;
      await Promise.all([open?.verifying.destroy(), open?.trusting?.destroy()]);
    },
  };
}

interface HttpRun extends ToolRun {
  request: ToolRequest;
  settings: HttpSettings;
  limiter: RateLimiter;
  client: (verify: boolean) => Agent;
  log: Service["logger"] | undefined;
}

async function runHttp(run: HttpRun): Promise<ToolEnvelope> {
  const { config, command } = run.request;
  const built = buildRequest(config, command);
  const following = readBoolean(config.follow_redirects, "follow_redirects", true);
  const limits = {
    timeoutMs: timeoutOf(config, run.settings),
    maxRedirects: following ? run.settings.maxRedirects : 0,
    responseMaxBytes: run.settings.responseMaxBytes,
  };
  const responseType = responseTypeOf(config.response_type);
  const client = run.client(readBoolean(config.verify_ssl, "verify_ssl", true));
  const secrets = httpSecrets(await resolveCredential(run.ctx, run.request.auth));
  const startedAt = performance.now();
  try {
    const response = await exchange(client, built, secrets, limits, run.signal);
    logExchange(run, built, startedAt, { status: response.status, bytes: response.bytes.length });
    const { retryAfterMaxMs } = run.settings;
    await pauseHost(run, built, response);
    return toEnvelope(response, { responseType, redirectIsOk: !following, retryAfterMaxMs });
  } catch (error) {
    const failure = (error as { failure?: { kind: string; code: string } }).failure;
    logExchange(run, built, startedAt, { error_kind: failure?.kind, error_code: failure?.code });
    throw error;
  }
}

/** The host that limits apply to; none when the URL is none, which the run itself says. */
function hostLabel(config: Record<string, unknown>): RateLabels {
  const host = URL.parse(String(config.url ?? config.endpoint ?? "").trim())?.host;
  return host ? { host } : {};
}

/** What an upstream asks of one call it means for all: nobody calls it before it wants to. */
async function pauseHost(
  run: HttpRun,
  { url }: HttpRequest,
  response: HttpResponse,
): Promise<void> {
  const { retryAfterMaxMs, pauseMs } = run.settings;
  const ms = pauseOf(response, { nowMs: Date.now(), maxMs: retryAfterMaxMs, pauseMs });
  if (ms > 0) await run.limiter.pause(bucketOf("http", "host", url.host), ms);
}

/** The shape of the exchange only: no query, no headers, no bodies. */
function logExchange(
  run: HttpRun,
  built: HttpRequest,
  startedAt: number,
  outcome: Record<string, unknown>,
): void {
  const { execution_id, command_id, step, task } = run.request.command;
  const { method, url } = built;
  const ms = Math.round(performance.now() - startedAt);
  const target = { method, host: url.host, path: url.pathname };
  run.log?.debug({ execution_id, command_id, step, task, ...target, ...outcome, ms }, "tool.http");
}

function timeoutOf(config: Record<string, unknown>, settings: HttpSettings): number {
  const field = config.timeout === undefined ? "timeout_seconds" : "timeout";
  const seconds = readPositive(config[field], field, "seconds");
  const asked = seconds === undefined ? settings.timeoutMs : Math.ceil(seconds * 1000);
  return Math.min(asked, settings.timeoutMaxMs);
}

function responseTypeOf(value: unknown): ResponseType {
  if (value === undefined || value === null || value === "") return "auto";
  if (value === "json" || value === "text" || value === "binary") return value;
  throw configFailure("response_type: unknown", "json, text or binary");
}

function newAgent(settings: HttpSettings, verify: boolean): Agent {
  return new Agent({
    connections: settings.maxConnections,
    maxOrigins: settings.maxOrigins,
    keepAliveTimeout: settings.keepAliveMs,
    keepAliveMaxTimeout: settings.keepAliveMs,
    // The deadline of the exchange covers both; two clocks would only disagree.
    headersTimeout: 0,
    bodyTimeout: 0,
    connect: { timeout: settings.connectTimeoutMs, rejectUnauthorized: verify },
  });
}

export default httpTool();
