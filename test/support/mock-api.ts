// The HTTP API that public playbooks call (`api_url`): `node test/support/mock-api.ts --port 5555`.
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { parseArgs } from "node:util";
import { echoRoutes } from "./mock-api-echo.ts";
import { Refusal, type MockRequest, type Reply } from "./mock-api-http.ts";
import { pageRoutes } from "./mock-api-pages.ts";
import { patientRoutes } from "./mock-api-patients.ts";

/** `"METHOD /path/{part}"` → handler; `{*}` takes the rest of the path. The first match wins. */
export type Routes = Record<string, (request: MockRequest) => Reply | Promise<Reply>>;

export interface MockApiOptions {
  /** 0 takes a free one. */
  port?: number;
  host?: string;
  /** Requests per second: one window for the patient endpoints, one for patient-records. */
  rate_limit?: number;
  /** Defaults of patient-records; a request's query wins. */
  min_delay_seconds?: number;
  max_delay_seconds?: number;
  payload_kb?: number;
}

const DEFAULTS: Required<MockApiOptions> = {
  port: 0,
  host: "127.0.0.1",
  rate_limit: 50,
  min_delay_seconds: 2,
  max_delay_seconds: 4,
  payload_kb: 100,
};

export interface MockApi {
  url: string;
  /** Requests per route (`"GET /api/v1/flaky"`), and `total`. */
  calls: Record<string, number>;
  /** Replies per HTTP status. */
  statuses: Record<number, number>;
  /** What a request of a route waits for before it is answered, by route. */
  waits: Record<string, () => Promise<unknown>>;
  close(): Promise<void>;
}

interface Route {
  name: string;
  method: string;
  pattern: RegExp;
  answer: Routes[string];
}

/** Starts the API on a loopback port. Every server has its own counters. */
export async function startMockApi(options: MockApiOptions = {}): Promise<MockApi> {
  const settings = { ...DEFAULTS, ...options };
  const routes = compile({
    "GET /health": () => ({ body: { status: "ok" } }),
    ...pageRoutes(),
    ...patientRoutes(settings),
    ...echoRoutes(),
  });
  const calls: Record<string, number> = { total: 0 };
  const statuses: Record<number, number> = {};
  const waits: MockApi["waits"] = {};
  const server = createServer((request, response) => {
    void serve(request, response).catch(() => response.destroy()); // The client went away.
  });

  async function serve(incoming: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(incoming.url!, `http://${incoming.headers.host ?? "localhost"}`);
    const route = match(routes, incoming.method!, url);
    calls["total"]!++;
    calls[route.name] = (calls[route.name] ?? 0) + 1;
    await waits[route.name]?.();
    const { status = 200, headers = {}, body } = await answer(route, url, incoming);
    statuses[status] = (statuses[status] ?? 0) + 1;
    const text = JSON.stringify(body);
    const about = { "content-type": "application/json", "content-length": Buffer.byteLength(text) };
    response.writeHead(status, { ...headers, ...about }).end(text);
  }

  await new Promise<void>((resolve, reject) => {
    server.once("error", reject).listen(settings.port, settings.host, resolve);
  });
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://${settings.host}:${port}`,
    calls,
    statuses,
    waits,
    async close() {
      const closed = new Promise(resolve => server.close(resolve));
      server.closeAllConnections();
      await closed;
    },
  };
}

function compile(routes: Routes): Route[] {
  return Object.entries(routes).map(([name, handler]) => {
    const [method, path] = name.split(" ") as [string, string];
    const source = path.replaceAll("{*}", ".*").replace(/\{(\w+)\}/g, "(?<$1>[^/]+)");
    return { name, method, pattern: new RegExp(`^${source}/?$`), answer: handler };
  });
}

/** The route of a request; one that refuses when there is none. */
function match(routes: Route[], method: string, url: URL): Route {
  const there = routes.filter(route => route.pattern.test(url.pathname));
  const found = there.find(route => route.method === method);
  if (found) return found;
  const status = there.length > 0 ? 405 : 404;
  const detail = status === 405 ? "Method Not Allowed" : "Not Found";
  const refuse = (): Reply => ({ status, body: { detail } });
  return { name: `${method} ${status}`, method, pattern: /^/, answer: refuse };
}

async function answer(route: Route, url: URL, incoming: IncomingMessage): Promise<Reply> {
  const path: Record<string, string> = {};
  for (const [part, value] of Object.entries(route.pattern.exec(url.pathname)?.groups ?? {})) {
    path[part] = decodeURIComponent(value);
  }
  const { headers } = incoming;
  const text = await bodyOf(incoming);
  try {
    return await route.answer({ method: incoming.method!, url, headers, path, text });
  } catch (error) {
    if (error instanceof Refusal) return error.reply;
    return { status: 500, body: { detail: error instanceof Error ? error.message : error } };
  }
}

async function bodyOf(incoming: IncomingMessage): Promise<string> {
  let text = "";
  for await (const chunk of incoming.setEncoding("utf8")) text += chunk as string;
  return text;
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      port: { type: "string", default: "5555" },
      host: { type: "string", default: DEFAULTS.host },
    },
  });
  const api = await startMockApi({ port: Number(values.port), host: values.host });
  process.stdout.write(`mock API at ${api.url}\n`);
}
