/**
 * The routes of the API service: the table of schemas/routes.ts and the probes, for moleculer-web.
 */
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { Context, Service } from "moleculer";
import { CONTENT_TYPE, type Metrics } from "../../mixins/metrics.ts";
import { Rejected } from "../../schemas/errors.ts";
import { API_ROUTES } from "../../schemas/routes.ts";
import type { ApiRequest } from "../../schemas/route-params.ts";
import type { ApiRoute } from "../../schemas/routes.ts";
import { openTo } from "./auth.ts";
import type { Gate } from "./auth.ts";
import { liveness, readiness } from "./health.ts";
import type { Checked, Health } from "./health.ts";
import type { LiveStreams } from "./live.ts";

/** Prometheus can send a key; which executions there are is in none of the numbers. */
const SCRAPERS = ["viewer", "operator"] as const;
const YAML_TYPES = ["application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml"];

export type WebRequest = IncomingMessage & {
  $ctx?: Context<unknown, Record<string, unknown>>;
  $params: { params?: Record<string, string>; query?: Record<string, unknown>; body?: unknown };
  $startTime?: [number, number];
  /** The address that moleculer-web has found. */
  $alias?: { method: string; fullPath: string };
  originalUrl?: string;
};
type Next = (error?: unknown) => void;

/** What moleculer-web's mixin adds to the service, as far as it is used here. */
export interface Gateway extends Omit<Service, "settings"> {
  server?: Server;
  settings: { cors?: object };
  logResponse(req: WebRequest, res: ServerResponse): void;
  aliases: { method: string; match(url: string): unknown }[];
  httpHandler(req: IncomingMessage, res: ServerResponse): Promise<void>;
  sendResponse(req: IncomingMessage, res: ServerResponse, data: unknown): void;
  writeCorsHeaders(from: object, req: IncomingMessage, res: ServerResponse, pre: boolean): void;
}

/** What the routes share. */
export interface Shared {
  metrics: Metrics;
  /** What /health looks at, beside asking for executions. */
  parts: Omit<Checked, "call">;
  gate: Pick<Gate, "recheck">;
  live: LiveStreams;
}

export interface RouteLimits {
  bodyMaxBytes: number;
  /** CORS settings of moleculer-web; undefined lets no other origin in. */
  cors: object | undefined;
}

/** Everything below /api. */
export function apiRoute(limits: RouteLimits, shared: Shared) {
  return routeSettings("/api", aliasesOf(API_ROUTES, shared), limits);
}

/** /health, /health/live and /metrics, without the prefix, where probes look for them. */
export function healthRoute(limits: RouteLimits, { metrics, parts }: Shared) {
  const aliases = { ...healthAliases(parts), "GET /metrics": openTo(SCRAPERS, scrape(metrics)) };
  return routeSettings("/", aliases, limits);
}

function routeSettings(path: string, aliases: object, { bodyMaxBytes: limit, cors }: RouteLimits) {
  return {
    path,
    aliases,
    // Only what is listed above can be called: never $node, never an action by its name.
    mappingPolicy: "restrict",
    // Path, query and body stay apart, so a query cannot overwrite what the body says.
    mergeParams: false,
    bodyParsers: { json: { limit, strict: true }, text: { limit, type: YAML_TYPES } },
    use: [refuseForeignPages, refuseOtherContent],
    // The service's `authorize` compares the caller's role with the roles of the alias.
    authorization: true,
    ...(cors && { cors }),
  };
}

function aliasesOf(routes: readonly ApiRoute[], shared: Shared): Record<string, unknown> {
  const entries = routes.map(route => [
    `${route.method} ${route.path}`,
    openTo(
      route.roles,
      function answer(this: Gateway, req: WebRequest, res: ServerResponse, next: Next) {
        const answered = route.live
          ? follow(this, shared, req, res)
          : callAction(this, route, req, res);
        answered.catch(next);
      },
    ),
  ]);
  return Object.fromEntries(entries) as Record<string, unknown>;
}

async function callAction(
  gateway: Gateway,
  route: ApiRoute,
  req: WebRequest,
  res: ServerResponse,
): Promise<void> {
  const request = requestOf(req);
  const data = await req.$ctx?.call(route.action(request), route.params(request));
  res.statusCode = route.status;
  gateway.sendResponse(req, res, data);
  gateway.logResponse(req, res);
}

async function follow(
  gateway: Gateway,
  { live, gate }: Shared,
  req: WebRequest,
  res: ServerResponse,
): Promise<void> {
  const request = {
    ...requestOf(req),
    call: <T>(action: string, params: object) => req.$ctx?.call(action, params) as Promise<T>,
    recheck: () => gate.recheck(req),
  };
  await live.follow(request, res);
  gateway.logResponse(req, res);
}

function requestOf(req: WebRequest): ApiRequest {
  return {
    path: req.$params.params ?? {},
    query: req.$params.query ?? {},
    body: hasBody(req) ? req.$params.body : undefined,
    headers: req.headers,
  };
}

function healthAliases(parts: Shared["parts"]): Record<string, unknown> {
  function live(this: Gateway, req: WebRequest, res: ServerResponse): void {
    sendHealth(this, req, res, liveness());
  }
  function ready(this: Gateway, req: WebRequest, res: ServerResponse, next: Next): void {
    const call: Checked["call"] = (...asked) => this.broker.call(...asked);
    readiness({ ...parts, call })
      .then(health => sendHealth(this, req, res, health))
      .catch(next);
  }
  return { "GET /health": openTo("anyone", ready), "GET /health/live": openTo("anyone", live) };
}

function scrape(metrics: Metrics) {
  return function answer(this: Gateway, _req: WebRequest, res: ServerResponse, next: Next): void {
    metrics
      .render()
      .then(text => {
        res.setHeader("Content-Type", CONTENT_TYPE);
        res.end(text);
      })
      .catch(next);
  };
}

function sendHealth(gateway: Gateway, req: WebRequest, res: ServerResponse, health: Health): void {
  res.statusCode = health.status === "unavailable" ? 503 : 200;
  gateway.sendResponse(req, res, health);
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
