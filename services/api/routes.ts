/**
 * The routes of the API service: the table of schemas/routes.ts and the probes, for moleculer-web.
 */
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { Context, Service } from "moleculer";
import { Rejected } from "../../schemas/errors.ts";
import { API_ROUTES } from "../../schemas/routes.ts";
import type { ApiRequest, ApiRoute } from "../../schemas/routes.ts";
import { liveness, readiness } from "./health.ts";
import type { Health } from "./health.ts";

const YAML_TYPES = ["application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml"];

export type WebRequest = IncomingMessage & {
  $ctx?: Context<unknown, Record<string, unknown>>;
  $params: { params?: Record<string, string>; query?: Record<string, unknown>; body?: unknown };
  $startTime?: [number, number];
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

export interface RouteLimits {
  bodyMaxBytes: number;
  /** CORS settings of moleculer-web; undefined lets no other origin in. */
  cors: object | undefined;
}

/** Everything below /api. */
export function apiRoute(limits: RouteLimits) {
  return routeSettings("/api", aliasesOf(API_ROUTES), limits);
}

/** /health and /health/live, without the prefix, where probes look for them. */
export function healthRoute(limits: RouteLimits) {
  return routeSettings("/", healthAliases(), limits);
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
    ...(cors && { cors }),
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
