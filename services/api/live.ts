/** Server-Sent Events: the facts and the progress of an execution as they come, until it ends. */
import type { ServerResponse } from "node:http";
import { setTimeout as delay } from "node:timers/promises";
import { Busy, errorType } from "../../schemas/errors.ts";
import { checked, executionsStream } from "../../schemas/requests.ts";
import type { ApiRequest } from "../../schemas/route-params.ts";
import { problemOf } from "./problems.ts";

/** The longest one look waits for news; a client that leaves is forgotten within this. */
const TAIL_MS = 5_000;
/** Two looks of a busy execution are this far apart: what happens between them comes together. */
const PACE_MS = 100;
/**
 * Proxies and browsers give up connections that are silent for long; so often it is also looked
 * whether the key of the request is still good.
 */
const BEAT_MS = 15_000;
/** A reader that takes nothing for so long is cut off; it may come back for the rest. */
const STUCK_MS = 60_000;
/** While executions cannot be asked, they are asked again after this. */
const RETRY_MS = 1_000;
/** When a stream is refused for want of room. */
const RETRY_AFTER_MS = 5_000;

/** Of executions.tail and executions.get, as far as they are told on. */
interface Tail {
  events: { version: number }[];
  version: number;
  seen: string;
  execution: object;
  ended: boolean;
}

export interface LiveRequest extends ApiRequest {
  call<T>(action: string, params: object): Promise<T>;
  /** Throws when the caller may not go on: a stream may last longer than a key. */
  recheck(): Promise<void>;
}

export interface LiveOptions {
  /** Streams open at once. */
  max: number;
  beatMs?: number;
}

/** The open streams of one server. */
export class LiveStreams {
  readonly #options: LiveOptions;
  readonly #open = new Set<Stream>();

  constructor(options: LiveOptions) {
    this.#options = options;
  }

  get open(): number {
    return this.#open.size;
  }

  /**
   * Answers with the stream; resolves when it is over, whoever ended it. `after` or the header
   * Last-Event-ID says which facts are known. Throws before anything is sent: Rejected (404, 422),
   * Busy when too many are open, and what the look at the execution throws.
   */
  async follow(request: LiveRequest, res: ServerResponse): Promise<void> {
    const known = knownOf(request);
    const { max, beatMs = BEAT_MS } = this.#options;
    if (this.#open.size >= max) {
      const retry_after_ms = RETRY_AFTER_MS;
      throw new Busy(`${max} executions are being followed here already`, { retry_after_ms });
    }
    const stream = new Stream(res);
    this.#open.add(stream);
    try {
      const { execution_id, after } = known;
      const tail = { execution_id, after, timeout_ms: 0 };
      const first = await stream.orClosed(request.call<Tail>("executions.tail", tail), undefined);
      if (!first) return;
      if (known.ended && first.ended && first.events.length === 0) return stream.nothingMore();
      stream.begin(beatMs);
      await tell(request, { execution_id, beatMs }, first, stream);
    } finally {
      this.#open.delete(stream);
      stream.end();
    }
  }

  /** Ends every stream at once; clients come back to another server with what they have. */
  close(): void {
    for (const stream of this.#open) stream.leave();
  }
}

/** Last-Event-ID of a client that has heard the end: `17-end`. */
const END_MARK = /^(\d+)-end$/;

function knownOf({ path, query, headers }: ApiRequest) {
  const last = headers["last-event-id"];
  const lastId = typeof last === "string" && last !== "" ? last : undefined;
  const ended = END_MARK.exec(lastId ?? "");
  const params = {
    ...query,
    ...path,
    ...(lastId !== undefined && { after: ended?.[1] ?? lastId }),
  };
  return { ...checked(executionsStream, params), ended: ended !== null };
}

async function tell(
  request: LiveRequest,
  { execution_id, beatMs }: { execution_id: string; beatMs: number },
  first: Tail,
  stream: Stream,
): Promise<void> {
  let seen: string | undefined;
  let checkAt = performance.now() + beatMs;
  for (let answer = first; stream.isOpen;) {
    for (const fact of answer.events) await stream.send("event", fact, fact.version);
    // The end itself shows the execution, with its result.
    if (answer.seen !== seen && !answer.ended) await stream.send("progress", answer.execution);
    ({ seen } = answer);
    const { version: after } = answer;
    try {
      if (performance.now() > checkAt) {
        await request.recheck();
        checkAt = performance.now() + beatMs;
      }
      if (answer.ended) {
        const view = await request.call<object>("executions.get", { execution_id });
        return await stream.send("end", view, `${after}-end`);
      }
      await stream.pause(PACE_MS);
      const tail = { execution_id, after, seen, timeout_ms: TAIL_MS };
      answer = await stream.orClosed(request.call<Tail>("executions.tail", tail), answer);
    } catch (error) {
      answer = { ...answer, events: [] };
      if (isPassing(error)) await stream.pause(RETRY_MS);
      // The browser's own `error` is another thing: it is about the connection.
      else return await stream.send("problem", problemOf(error).body);
    }
  }
}

/** The world is away for a while: a stream outlives that, as an execution does. */
function isPassing(error: unknown): boolean {
  const { status } = problemOf(error);
  return status >= 502 || errorType(error) === "BUSY";
}

/** One response being written, at the pace of its reader. */
class Stream {
  readonly #res: ServerResponse;
  readonly #closed = new AbortController();
  #cancelBeat = () => {};

  constructor(res: ServerResponse) {
    this.#res = res;
    res.once("close", () => this.#closed.abort());
    if (res.destroyed) this.#closed.abort();
    // A write to a reader that has just left; `close` follows.
    res.on("error", () => undefined);
  }

  get isOpen(): boolean {
    return !this.#closed.signal.aborted;
  }

  begin(beatMs: number): void {
    this.#res.writeHead(200, {
      "Content-Type": "text/event-stream; charset=utf-8",
      "Cache-Control": "no-store",
      // nginx keeps answers back until they are over, unless it is told.
      "X-Accel-Buffering": "no",
    });
    this.#res.flushHeaders();
    const beat = setInterval(() => {
      if (!this.#res.writableNeedDrain) this.#res.write(": still here\n\n");
    }, beatMs);
    this.#cancelBeat = () => clearInterval(beat);
  }

  /** 204 tells a browser that comes back after the end to stay away. */
  nothingMore(): void {
    this.#res.writeHead(204).end();
  }

  /** Resolves when the reader may be sent more: nothing piles up here. */
  async send(event: string, data: object, id?: string | number): Promise<void> {
    if (!this.isOpen) return;
    const head = id === undefined ? "" : `id: ${id}\n`;
    const taken = this.#res.write(`event: ${event}\n${head}data: ${JSON.stringify(data)}\n\n`);
    if (!taken) await this.#drained();
  }

  async #drained(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const stuck = setTimeout(() => this.#res.destroy(), STUCK_MS);
    this.#res.once("drain", resolve);
    await this.orClosed(promise, undefined);
    clearTimeout(stuck);
    this.#res.off("drain", resolve);
  }

  async pause(ms: number): Promise<void> {
    await delay(ms, undefined, { signal: this.#closed.signal }).catch(() => undefined);
  }

  /** The answer, or `instead` as soon as the stream is over: nobody waits for the answer then. */
  async orClosed<T, Instead>(answer: Promise<T>, instead: Instead): Promise<T | Instead> {
    const { promise, resolve } = Promise.withResolvers<Instead>();
    const give = () => resolve(instead);
    this.#closed.signal.addEventListener("abort", give, { once: true });
    if (!this.isOpen) give();
    try {
      return await Promise.race([answer, promise]);
    } finally {
      this.#closed.signal.removeEventListener("abort", give);
      answer.catch(() => undefined);
    }
  }

  /** The server goes. */
  leave(): void {
    this.#closed.abort();
  }

  end(): void {
    this.#cancelBeat();
    if (this.#res.headersSent && !this.#res.writableEnded) this.#res.end();
  }
}
