// A gate for playbooks: an HTTP endpoint that answers only when the test lets it.
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as delay } from "node:timers/promises";

export interface Gate {
  url: string;
  /** Resolves when the first request has come. */
  asked: Promise<void>;
  /** Resolves when so many requests in all have come. */
  arrived(count: number): Promise<void>;
  /** Answers the oldest `count` requests that wait; all of them, and later ones, when absent. */
  open(count?: number): void;
  close(): Promise<void>;
}

const PATIENCE_MS = 30_000;

/** Starts a gate on a free loopback port. Closed at first. */
export async function startGate(): Promise<Gate> {
  const held: ServerResponse[] = [];
  const first = Promise.withResolvers<void>();
  let seen = 0;
  let isOpen = false;
  const answer = (response: ServerResponse): void => {
    response.setHeader("content-type", "application/json");
    response.end('{"passed":true}');
  };
  const server = createServer((_request, response) => {
    seen += 1;
    first.resolve();
    if (isOpen) answer(response);
    else held.push(response);
  });
  await new Promise<void>(resolve => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`,
    asked: first.promise,
    async arrived(count) {
      const end = performance.now() + PATIENCE_MS;
      while (seen < count) {
        if (performance.now() > end) throw new Error(`${seen} of ${count} came to the gate`);
        await delay(2);
      }
    },
    open(count) {
      if (count === undefined) isOpen = true;
      for (const response of held.splice(0, count ?? held.length)) answer(response);
    },
    close: () =>
      new Promise(resolve => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
