/** The front door: HTTP to broker actions, JSON both ways. It decides nothing and keeps nothing. */
import { createServer } from "node:http";
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import ApiGateway from "moleculer-web";
import type { Service, ServiceSchema } from "moleculer";
import type { Settings } from "../../schemas/env.ts";
import { createMetrics } from "../../mixins/metrics.ts";
import type { Runtime } from "../../mixins/runtime.ts";
import { keysRequired } from "../../schemas/access.ts";
import { requestedBy } from "../../schemas/caller.ts";
import { Unavailable } from "../../schemas/errors.ts";
import { nothing, validated } from "../../schemas/requests.ts";
import { admission, createGate } from "./auth.ts";
import { countRequests } from "./counts.ts";
import { LiveStreams } from "./live.ts";
import { openApiDocument } from "./openapi.ts";
import { problemOf } from "./problems.ts";
import { apiRoute, healthRoute } from "./routes.ts";
import type { Gateway, WebRequest } from "./routes.ts";

/** Requests that still run when the server stops get this long, in milliseconds. */
const STOP_GRACE_MS = 5_000;
const STOP_LOOK_MS = 20;
const REQUEST_ID = /^[\w.:-]{1,128}$/;

/** `metrics` is where it counts, and what GET /metrics shows; /health looks at the others. */
export interface ApiOptions extends Partial<Pick<Runtime, "metrics" | "database" | "doorbell">> {
  settings: Settings;
}

function asGateway(service: Service): Gateway {
  return service as unknown as Gateway;
}

/**
 * Service `api`: listens on NOETL_HOST:NOETL_PORT (port 0 picks a free one). Action `api.address`
 * → {host, port, url} tells where. start() fails with Unavailable when the port is taken.
 */
export default function apiService(options: ApiOptions): ServiceSchema {
  const { http } = options.settings;
  const metrics = options.metrics ?? createMetrics();
  const cors = corsSettings(http.corsOrigins);
  const gate = createGate(http);
  const live = new LiveStreams({ max: http.liveStreamsMax });
  const counts = countRequests(metrics, live);
  const { database, doorbell, settings } = options;
  const parts = { database, doorbell, nats: settings.nats.url !== undefined };
  const shared = { gate, live, metrics, parts };
  let document: object | undefined;
  return {
    name: "api",
    mixins: [ApiGateway, admission(gate)],
    settings: {
      // Its own server would end the process when the port is taken; ours refuses to start.
      server: false,
      logRouteRegistration: false,
      // `stopped` lets requests finish by itself; a stream would keep the broker waiting.
      rootCallOptions: { tracking: false },
      ...(cors && { cors }),
      routes: [
        apiRoute({ bodyMaxBytes: http.bodyMaxBytes, cors }, shared),
        healthRoute({ bodyMaxBytes: http.bodyMaxBytes, cors }, shared),
      ],
    },
    actions: {
      listAliases: false,
      addRoute: false,
      removeRoute: false,
      address: {
        visibility: "public",
        handler(this: Service) {
          return addressOf(asGateway(this).server);
        },
      },
      /** The API's description: OpenAPI 3.1. */
      openapi: {
        visibility: "public",
        handler: validated(
          nothing,
          () => (document ??= openApiDocument({ keys: keysRequired(http) })),
        ),
      },
    },
    methods: {
      errorHandler,
      // What is not routed comes here without passing errorHandler.
      sendError: errorHandler,
      logRequest: () => undefined,
      logResponse,
    },
    async started(this: Service) {
      const gateway = asGateway(this);
      const server = createServer((req, res) => {
        counts.watch(res, () => routeOf(req as WebRequest));
        void serve(gateway, req, res);
      });
      gateway.server = server;
      await listen(server, http.host, http.port);
      this.logger.info(addressOf(server), "api.listening");
    },
    async stopped(this: Service) {
      live.close();
      await close(asGateway(this).server);
    },
  } as ServiceSchema;
}

function corsSettings(origins: readonly string[]) {
  if (origins.length === 0) return undefined;
  return {
    // moleculer-web would take a listed origin's beginning for the origin itself.
    origin: origins.includes("*") ? "*" : (origin: string) => origins.includes(origin),
    methods: ["GET", "POST", "OPTIONS"],
    allowedHeaders: [
      "Content-Type",
      "Idempotency-Key",
      "Last-Event-ID",
      "X-Request-ID",
      "Authorization",
      "X-API-Key",
    ],
    exposedHeaders: ["X-Request-ID", "Retry-After", "WWW-Authenticate"],
    maxAge: 600,
  };
}

function routeOf({ $alias: found }: WebRequest): string | undefined {
  return found && `${found.method} ${found.fullPath}`;
}

async function serve(gateway: Gateway, req: IncomingMessage, res: ServerResponse): Promise<void> {
  // moleculer-web takes these two headers for its request id; only a sane one goes to logs and
  // back.
  for (const name of ["x-request-id", "x-correlation-id"]) {
    if (!REQUEST_ID.test(String(req.headers[name] ?? ""))) delete req.headers[name];
  }
  try {
    await gateway.httpHandler(req, res);
  } catch (error) {
    gateway.logger.error({ err: error }, "http.failed");
    if (!res.headersSent) res.writeHead(500);
    res.end();
  }
}

/**
 * Answers every failure of a request, CORS headers included, so that browsers show the real one.
 */
function errorHandler(this: Gateway, req: WebRequest, res: ServerResponse, error: unknown): void {
  const requestId = req.$ctx?.requestID ?? undefined;
  const path = String(req.originalUrl ?? req.url).split("?")[0] ?? "/";
  const problem = problemOf(error, requestId);
  if (problem.unexpected) this.logger.error({ err: error, request_id: requestId }, "http.error");
  if (res.headersSent) return void res.destroy();
  const allowed = problem.status === 404 ? this.aliases.filter(alias => alias.match(path)) : [];
  if (allowed.length > 0 && (error as { type?: string }).type === "NOT_FOUND") {
    problem.status = 405;
    problem.headers["Allow"] = [...new Set(allowed.map(alias => alias.method))].join(", ");
    const message = `Only ${problem.headers["Allow"]} is served at this address`;
    Object.assign(problem.body.error, { code: 405, message });
  }
  writeCors(this, req, res);
  res.writeHead(problem.status, {
    ...problem.headers,
    "Content-Type": "application/json; charset=utf-8",
  });
  res.end(JSON.stringify(problem.body));
  logResponse.call(this, req, res);
}

function writeCors(gateway: Gateway, req: WebRequest, res: ServerResponse): void {
  if (!gateway.settings.cors || res.hasHeader("Access-Control-Allow-Origin")) return;
  try {
    gateway.writeCorsHeaders(gateway.settings, req, res, false);
  } catch {
    // The origin is not on the list: the browser shall not show this answer either.
  }
}

/** Shape of a request and its answer, at debug only; never a query, a body or a header. */
function logResponse(this: Gateway, req: WebRequest, res: ServerResponse): void {
  const [seconds, nanos] = process.hrtime(req.$startTime);
  const request = {
    method: req.method,
    path: String(req.originalUrl ?? req.url).split("?")[0],
    body_bytes: Number(req.headers["content-length"] ?? 0),
  };
  const response = { status: res.statusCode, duration_ms: Math.round(seconds * 1e3 + nanos / 1e6) };
  const fields = { request_meta: request, response_meta: response };
  this.logger.debug({ ...requestedBy(req.$ctx ?? {}), ...fields }, "http.request");
}

async function listen(server: Server, host: string, port: number): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    server.once("error", (error: NodeJS.ErrnoException) => {
      const why =
        error.code === "EADDRINUSE" ? "the port is in use" : (error.code ?? error.message);
      const hint = "choose another with NOETL_PORT and NOETL_HOST";
      reject(new Unavailable(`Cannot listen on ${host}:${port}: ${why}; ${hint}`));
    });
    server.listen(port, host, resolve);
  });
}

function addressOf(server: Server | undefined) {
  const address = server?.address() as AddressInfo | null | undefined;
  if (!address) throw new Unavailable("The API is not listening");
  const host = address.family === "IPv6" ? `[${address.address}]` : address.address;
  return { host: address.address, port: address.port, url: `http://${host}:${address.port}` };
}

async function close(server: Server | undefined): Promise<void> {
  if (!server?.listening) return;
  const lastCall = setTimeout(() => server.closeAllConnections(), STOP_GRACE_MS);
  // A connection that is kept alive is idle only when its last answer has gone.
  const sweep = setInterval(() => server.closeIdleConnections(), STOP_LOOK_MS);
  await new Promise(resolve => server.close(resolve));
  clearTimeout(lastCall);
  clearInterval(sweep);
}
