// A TCP proxy that can fail like a network: reset, swallow, delay, heal.
import { connect, createServer, type AddressInfo, type Socket } from "node:net";

export interface TcpProxy {
  readonly port: number;
  /** Pairs that are open now. */
  readonly connections: number;
  /** The same URL through this proxy. */
  through(url: string): string;
  /** Resets every open connection (RST), once. */
  reset(): void;
  /** Resets every open connection and each new one, until `heal`. */
  cut(): void;
  /** Keeps connections open and lets nothing pass, either way, until `heal`. */
  blackhole(): void;
  /** Lets every chunk wait so long, each way, until `heal`. */
  delay(delayMs: number): void;
  /** Back to normal. What a blackhole held is delivered. */
  heal(): void;
  close(): Promise<void>;
}

interface Pair {
  near: Socket;
  far: Socket;
}

interface Weather {
  mode: "clear" | "cut" | "blackhole";
  delay_ms: number;
}

/** Listens on a free loopback port and forwards to `targetPort` on 127.0.0.1. */
export async function startProxy(targetPort: number): Promise<TcpProxy> {
  const pairs = new Set<Pair>();
  const weather: Weather = { mode: "clear", delay_ms: 0 };
  // Half-open connections are passed on as such; pipes end when both sides did.
  const server = createServer({ allowHalfOpen: true }, near => {
    if (weather.mode === "cut") return void near.resetAndDestroy();
    const far = connect({ port: targetPort, host: "127.0.0.1", allowHalfOpen: true });
    join({ near, far }, pairs, weather);
  });
  await new Promise<void>(resolve => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  const reset = (): void => {
    for (const { near, far } of pairs) {
      near.resetAndDestroy();
      far.resetAndDestroy();
    }
  };
  return {
    port,
    get connections() {
      return pairs.size;
    },
    through: url => url.replace(/:\d+(?=[/?]|$)/, `:${port}`),
    reset,
    cut() {
      weather.mode = "cut";
      reset();
    },
    blackhole() {
      weather.mode = "blackhole";
      for (const pair of pairs) hold(pair, weather);
    },
    delay(delayMs) {
      weather.delay_ms = delayMs;
    },
    heal() {
      Object.assign(weather, { mode: "clear", delay_ms: 0 });
      for (const pair of pairs) hold(pair, weather);
    },
    async close() {
      const closed = new Promise(resolve => server.close(resolve));
      reset();
      await closed;
    },
  };
}

function join(pair: Pair, pairs: Set<Pair>, weather: Weather): void {
  pairs.add(pair);
  forward(pair.near, pair.far, weather);
  forward(pair.far, pair.near, weather);
  hold(pair, weather);
  for (const socket of [pair.near, pair.far]) {
    socket.on("error", () => undefined); // Followed by "close".
    socket.once("close", () => pairs.delete(pair));
  }
}

/** One direction. Equal delays keep the order of chunks. */
function forward(from: Socket, to: Socket, weather: Weather): void {
  const later = (act: () => void): void => {
    if (weather.delay_ms > 0) setTimeout(act, weather.delay_ms);
    else act();
  };
  from.on("data", chunk => later(() => void (to.destroyed || to.write(chunk))));
  from.on("end", () => later(() => to.end()));
  // What one side lost, the other must hear of as a loss, not as an orderly end.
  from.on("close", lost => void (lost ? to.resetAndDestroy() : later(() => to.end())));
}

function hold({ near, far }: Pair, weather: Weather): void {
  for (const socket of [near, far]) {
    if (weather.mode === "blackhole") socket.pause();
    else socket.resume();
  }
}
