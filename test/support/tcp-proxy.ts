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

/** What one connection lets through, each way; nothing passes where it gives an empty buffer. */
export interface Filter {
  sent?(chunk: Buffer): Buffer;
  got?(chunk: Buffer): Buffer;
}

/** Makes the filter of a new connection; `reset` ends that one as a lost network does. */
export type FilterMaker = (reset: () => void) => Filter;

interface Pair {
  near: Socket;
  far: Socket;
}

interface Weather {
  mode: "clear" | "cut" | "blackhole";
  delay_ms: number;
}

/** Listens on a free loopback port and forwards to `targetPort` on 127.0.0.1. */
export async function startProxy(targetPort: number, maker?: FilterMaker): Promise<TcpProxy> {
  const pairs = new Set<Pair>();
  const weather: Weather = { mode: "clear", delay_ms: 0 };
  // Half-open connections are passed on as such; pipes end when both sides did.
  const server = createServer({ allowHalfOpen: true }, near => {
    if (weather.mode === "cut") return void near.resetAndDestroy();
    const far = connect({ port: targetPort, host: "127.0.0.1", allowHalfOpen: true });
    const pair = { near, far };
    join(
      pair,
      pairs,
      weather,
      maker?.(() => resetPair(pair)),
    );
  });
  await new Promise<void>(resolve => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  const reset = (): void => {
    for (const pair of pairs) resetPair(pair);
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

function resetPair({ near, far }: Pair): void {
  near.resetAndDestroy();
  far.resetAndDestroy();
}

function join(pair: Pair, pairs: Set<Pair>, weather: Weather, filter: Filter = {}): void {
  pairs.add(pair);
  forward(pair.near, pair.far, weather, filter.sent);
  forward(pair.far, pair.near, weather, filter.got);
  hold(pair, weather);
  for (const socket of [pair.near, pair.far]) {
    socket.on("error", () => undefined); // Followed by "close".
    socket.once("close", () => pairs.delete(pair));
  }
}

/** One direction. Equal delays keep the order of chunks. */
function forward(from: Socket, to: Socket, weather: Weather, filter?: Filter["sent"]): void {
  const later = (act: () => void): void => {
    if (weather.delay_ms > 0) setTimeout(act, weather.delay_ms);
    else act();
  };
  from.on("data", (chunk: Buffer) => {
    const passed = filter?.(chunk) ?? chunk;
    if (passed.length > 0) later(() => void (to.destroyed || to.write(passed)));
  });
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
