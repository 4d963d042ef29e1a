// An upstream with a limit of its own: above so many calls in any second it answers 429.
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";

export interface LimitedUpstream {
  url: string;
  /** As limits name it. */
  host: string;
  /** Calls in all, those refused, the most taken in a second, from the first to the last. */
  seen(): { calls: number; refused: number; busiestSecond: number; spanMs: number };
  close(): Promise<void>;
}

/**
 * Counts the calls of the last second, wherever that begins: the strictest way there is.
 * `retryAfter` is what a 429 says; nothing when absent.
 */
export async function startLimitedUpstream(
  perSecond: number,
  retryAfter?: () => string,
): Promise<LimitedUpstream> {
  const accepted: number[] = [];
  let oldest = 0;
  let calls = 0;
  let refused = 0;
  let busiestSecond = 0;
  let firstMs = NaN;
  let lastMs = NaN;
  const server = createServer((request, response) => {
    const nowMs = performance.now();
    calls += 1;
    firstMs = Number.isNaN(firstMs) ? nowMs : firstMs;
    lastMs = nowMs;
    while ((accepted[oldest] ?? Infinity) <= nowMs - 1_000) oldest += 1;
    response.setHeader("content-type", "application/json");
    if (accepted.length - oldest >= perSecond) {
      refused += 1;
      response.statusCode = 429;
      if (retryAfter) response.setHeader("retry-after", retryAfter());
      return void response.end('{"error":"too many"}');
    }
    accepted.push(nowMs);
    busiestSecond = Math.max(busiestSecond, accepted.length - oldest);
    response.end(JSON.stringify({ path: request.url, n: accepted.length }));
  });
  await new Promise<void>(resolve => server.listen(0, "127.0.0.1", resolve));
  const host = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  return {
    url: `http://${host}`,
    host,
    seen: () => ({ calls, refused, busiestSecond, spanMs: lastMs - firstMs }),
    close: () =>
      new Promise(resolve => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
