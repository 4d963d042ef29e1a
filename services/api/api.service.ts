/** The front door: HTTP to broker actions, JSON both ways. It decides nothing and keeps nothing. */
import { createServer } from "node:http";
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import ApiGateway from "moleculer-web";
import type { Context, Service, ServiceSchema } from "moleculer";
import type { Settings } from "../../schemas/env.ts";
import { Rejected, Unavailable } from "../../schemas/errors.ts";
import { liveness, readiness } from "./health.ts";
import type { Health } from "./health.ts";
import { problemOf } from "./problems.ts";
import { API_ROUTES } from "./routes.ts";
import type { ApiRequest, ApiRoute } from "./routes.ts";

/** Requests that still run when the server stops get this long, in milliseconds. */
const STOP_GRACE_MS = 5_000;
const REQUEST_ID = /^[\w.:-]{1,128}$/;
const YAML_TYPES = ["application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml"];

type WebRequest = IncomingMessage & {
  $ctx?: Context<unknown, Record<string, unknown>>;
  $params: { params?: Record<string, string>; query?: Record<string, unknown>; body?: unknown };
  $startTime?: [number, number];
  originalUrl?: string;
};
type Next = (error?: unknown) => void;

/** What moleculer-web's mixin adds to the service, as far as it is used here. */
interface Gateway extends Omit<Service, "settings"> {
  server?: Server;
  settings: { cors?: object };
  logResponse(req: WebRequest, res: ServerResponse): void;
  aliases: { method: string; match(url: string): unknown }[];
  httpHandler(req: IncomingMessage, res: ServerResponse): Promise<void>;
  sendResponse(req: IncomingMessage, res: ServerResponse, data: unknown): void;
  writeCorsHeaders(from: object, req: IncomingMessage, res: ServerResponse, pre: boolean): void;
}

function asGateway(service: Service): Gateway {
  return service as unknown as Gateway;
}

/**
 * Service `api`: listens on NOETL_HOST:NOETL_PORT (port 0 picks a free one). Action `api.address`
 * → {host, port, url} tells where. start() fails with Unavailable when the port is taken.
 */
export default function apiService({ settings }: { settings: Settings }): ServiceSchema {
  const { http } = settings;
  const cors = corsSettings(http.corsOrigins);
  return {
    name: "api",
    mixins: [ApiGateway as unknown as Partial<ServiceSchema>],
    settings: {
      // Its own server would end the process when the port is taken; ours refuses to start.
      server: false,
      logRouteRegistration: false,
      ...(cors && { cors }),
      routes: [
        routeSettings("/api", aliasesOf(API_ROUTES), http.bodyMaxBytes, cors),
        routeSettings("/", healthAliases(), http.bodyMaxBytes, cors),
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
      const server = createServer((req, res) => void serve(gateway, req, res));
      gateway.server = server;
      await listen(server, http.host, http.port);
      this.logger.info(addressOf(server), "api.listening");
    },
    async stopped(this: Service) {
      await close(asGateway(this).server);
    },
  } as ServiceSchema;
}

function routeSettings(path: string, aliases: object, limit: number, cors: object | undefined) {
  return {
    path,
    aliases,
    // Only what is listed above can be called: never $node, never an action by its name.
    mappingPolicy: "restrict",
    // Path, query and body stay apart, so a query cannot overwrite what the body says.
    mergeParams: false,
    bodyParsers: { json: { limit, strict: true }, text: { limit, type: YAML_TYPES } },
    use: [refuseForeignPages, refuseOtherContent],
    ...(cors && { cors }),
  };
}

function corsSettings(origins: readonly string[]) {
  if (origins.length === 0) return undefined;
  return {
    origin: origins.includes("*") ? "*" : [...origins],
    methods: ["GET", "POST", "OPTIONS"],
    allowedHeaders: ["Content-Type", "Idempotency-Key", "X-Request-ID"],
    exposedHeaders: ["X-Request-ID", "Retry-After"],
    maxAge: 600,
  };
}

function aliasesOf(routes: readonly ApiRoute[]): Record<string, unknown> {
  const entries = routes.map(route => [
    `${route.method} ${route.path}`,
    function answer(this: Gateway, req: WebRequest, res: ServerResponse, next: Next) {
      callAction(this, route, req, res).catch(next);
    },
  ]);
  return Object.fromEntries(entries) as Record<string, unknown>;
}

async function callAction(
  gateway: Gateway,
  route: ApiRoute,
  req: WebRequest,
  res: ServerResponse,
): Promise<void> {
  const request: ApiRequest = {
    path: req.$params.params ?? {},
    query: req.$params.query ?? {},
    body: hasBody(req) ? req.$params.body : undefined,
    headers: req.headers,
  };
  const data = await req.$ctx?.call(route.action(request), route.params(request));
  res.statusCode = route.status;
  gateway.sendResponse(req, res, data);
  gateway.logResponse(req, res);
}

function healthAliases(): Record<string, unknown> {
  function live(this: Gateway, req: WebRequest, res: ServerResponse): void {
    sendHealth(this, req, res, liveness());
  }
  function ready(this: Gateway, req: WebRequest, res: ServerResponse, next: Next): void {
    readiness((action, params, options) => this.broker.call(action, params, options))
      .then(health => sendHealth(this, req, res, health))
      .catch(next);
  }
  return { "GET /health": ready, "GET /health/live": live };
}

function sendHealth(gateway: Gateway, req: WebRequest, res: ServerResponse, health: Health): void {
  res.statusCode = health.status === "ok" ? 200 : 503;
  gateway.sendResponse(req, res, health);
}

async function serve(gateway: Gateway, req: IncomingMessage, res: ServerResponse): Promise<void> {
  // moleculer-web takes these two headers for its request id; only a sane one goes to logs and back.
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

/** A page of another origin may read nothing without CORS, and must not write either. */
function refuseForeignPages(
  this: Gateway,
  req: WebRequest,
  _res: ServerResponse,
  next: Next,
): void {
  const origin = req.headers.origin;
  const sameOrigin = origin === undefined || hostOf(origin) === req.headers.host;
  const safe = req.method === "GET" || req.method === "HEAD";
  // With CORS settings moleculer-web itself compares the origin with the list.
  if (safe || sameOrigin || this.settings.cors) return next();
  next(new Rejected("Pages of this origin may not call the API", 403));
}

function hostOf(origin: string): string | undefined {
  return URL.canParse(origin) ? new URL(origin).host : undefined;
}

/** The body parsers skip what they do not know; the caller should hear about it. */
function refuseOtherContent(req: WebRequest, _res: ServerResponse, next: Next): void {
  const type =
    String(req.headers["content-type"] ?? "")
      .split(";")[0]
      ?.trim() ?? "";
  const known = type === "application/json" || YAML_TYPES.includes(type);
  if (!hasBody(req) || known) return next();
  const seen = type === "" ? "no Content-Type" : `Content-Type ${type.slice(0, 80)}`;
  next(new Rejected(`The body came with ${seen}; send application/json`, 422));
}

function hasBody(req: IncomingMessage): boolean {
  const length = req.headers["content-length"];
  return req.headers["transfer-encoding"] !== undefined || (length ?? "0") !== "0";
}

/** Answers every failure of a request, CORS headers included, so that browsers show the real one. */
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
  const request_id = req.$ctx?.requestID;
  this.logger.debug({ request_id, request_meta: request, response_meta: response }, "http.request");
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
  await new Promise(resolve => {
    server.close(resolve);
    server.closeIdleConnections();
  });
  clearTimeout(lastCall);
}
