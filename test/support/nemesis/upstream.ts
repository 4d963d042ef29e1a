// The upstream of the nemesis: a web service that logs each call and misbehaves when it is told to.
import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as pause } from "node:timers/promises";

/** One call as it was met, in order of arrival. */
export interface Call {
  execution: string;
  step: string;
  item: string;
  /** When it had been read in full, milliseconds since 1970. */
  at: number;
  /** Of the answer that was sent in full; 0 when none was. */
  status: number;
  /** It came with the secret of the credential. */
  authorized: boolean;
}

/** What every call meets: an answer of this status, or the connection's end after it was read. */
export type Weather = "clear" | 429 | 503 | "reset";

export interface Upstream {
  readonly url: string;
  readonly calls: Call[];
  /** Of this part of the calls, 0 to 1. */
  weather(kind: Weather, part?: number): void;
  /** Every answer takes so much longer. */
  slow(ms: number): void;
  close(): Promise<void>;
}

/** Of answers that have to be kept by reference. */
const LARGE_BYTES = 150_000;
/** An item of `/flaky` is refused so often before it is served. */
const FLAKY_TIMES = 2;
/** Items of `/bad` that are refused for good. */
export const isBad = (item: number): boolean => item % 5 === 2;

/** What the upstream answers for an item, always: a row of it can be checked without asking. */
export function valueOf(execution: string, step: string, item: string): string {
  const hash = createHash("sha256").update([execution, step, item].join("/"));
  return hash.digest("hex").slice(0, 16);
}

/**
 * `POST /{work|flaky|bad|large|poison}/{execution}/{step}/{item}?ms=…` → `{value}` after `ms`.
 * Whom `/poison` kills is the caller's own affair.
 */
export async function startUpstream(secret: string, chance: () => number): Promise<Upstream> {
  const calls: Call[] = [];
  let sky: Weather = "clear";
  let part = 1;
  let slowMs = 0;
  const refusals = new Map<string, number>();

  function statusOf(route: string, call: Call): number {
    if (route === "bad" && isBad(Number(call.item))) return 422;
    const key = `${call.execution}/${call.step}/${call.item}`;
    const before = refusals.get(key) ?? 0;
    if (route !== "flaky" || before >= FLAKY_TIMES) return 200;
    refusals.set(key, before + 1);
    return 503;
  }

  async function serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? "", "http://localhost");
    const [, route = "", execution = "", step = "", item = ""] = url.pathname.split("/");
    for await (const chunk of request) void chunk;
    const authorized = request.headers.authorization === `Bearer ${secret}`;
    const call: Call = { execution, step, item, at: Date.now(), status: 0, authorized };
    calls.push(call);
    const isHit = sky !== "clear" && chance() < part;
    if (isHit && sky === "reset") return void request.socket.resetAndDestroy();
    await pause(slowMs + Number(url.searchParams.get("ms") ?? 0));
    const status = isHit ? (sky as number) : statusOf(route, call);
    const value = valueOf(execution, step, item);
    const more = route === "large" ? { padding: "x".repeat(LARGE_BYTES) } : {};
    const body = status === 200 ? { value, ...more } : { detail: `status ${status}` };
    const headers = { "content-type": "application/json", ...(status === 429 && RETRY_SOON) };
    response.writeHead(status, headers);
    response.end(JSON.stringify(body), () => (call.status = status));
  }

  const server = createServer((request, response) => {
    void serve(request, response).catch(() => response.destroy()); // The client went away.
  });
  await new Promise<void>(resolve => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}`,
    calls,
    weather(kind, some = 1) {
      sky = kind;
      part = some;
    },
    slow(ms) {
      slowMs = ms;
    },
    async close() {
      const closed = new Promise(resolve => server.close(resolve));
      server.closeAllConnections();
      await closed;
    },
  };
}

const RETRY_SOON = { "retry-after": "1" };
