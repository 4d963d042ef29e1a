// One pull from a consumer of JetStream. The client's own `fetch` keeps its subscription when it is
// stopped, so that what comes afterwards waits a whole ack_wait for nobody: here the end is told to
// the server, and what was on its way by then is still handed over.
import { createInbox, type Msg, type MsgHdrs, type NatsConnection } from "nats";
import { Unavailable } from "../schemas/errors.ts";

export interface PullWish {
  stream: string;
  consumer: string;
  batch: number;
  /**
   * How long the server waits for the first message, and how often it says that it still does,
   * milliseconds; absent: only what is there.
   */
  wait?: { expiresMs: number; heartbeatMs: number };
  /** It waits until the batch is full or the time is up, also between two messages. */
  lasts?: true;
}

/** A message of a consumer. */
export interface Pulled {
  subject: string;
  headers: MsgHdrs | undefined;
  data: Uint8Array;
  /** Deliveries of it before this one. */
  redelivered: number;
  ack(): void;
  /** It is delivered again, to anybody, after so long. */
  nak(delayMs: number): void;
}

/** What is there comes at once, unless too many are taken already: that gets no answer at all. */
const LOOK_MS = 250;
/** Between two messages of one answer. */
const GAP_MS = 50;
/** The server ends a pull by itself; this is for one whose end was lost. */
const LATE_MS = 1_000;

/**
 * Pulls until the batch is full, nothing more is there, the time is up or one of `ends` aborts;
 * gives what came, then or on its way. Throws Unavailable when the consumer does not answer.
 */
export async function pullOnce(
  connection: NatsConnection,
  wish: PullWish,
  ends: AbortSignal[],
): Promise<Pulled[]> {
  const pulled: Pulled[] = [];
  await pullEach(connection, wish, ends, message => void pulled.push(message));
  return pulled;
}

/** As `pullOnce`, and hands each message over as it comes. */
export async function pullEach(
  connection: NatsConnection,
  wish: PullWish,
  ends: AbortSignal[],
  take: (message: Pulled) => void,
): Promise<void> {
  const { stream, consumer, batch, wait, lasts } = wish;
  const over = Promise.withResolvers<void>();
  over.promise.catch(() => undefined);
  const timer = new Deadline(() => over.resolve());
  const silence = new Deadline(() => over.reject(gone(consumer, "fell silent")));
  const inbox = createInbox();
  let count = 0;
  const subscription = connection.subscribe(inbox, {
    callback(error, message) {
      if (error) return over.reject(error);
      if (wait) silence.set(2 * wait.heartbeatMs);
      const status = statusOf(message);
      if (status === BEAT) return;
      if (status !== undefined) return ended(status, consumer, over);
      const { redelivered, pending } = deliveryOf(message);
      take(toPulled(message, redelivered));
      count += 1;
      if (count >= batch || (pending === 0 && !lasts)) over.resolve();
      else if (!lasts) timer.set(GAP_MS);
    },
  });
  const stop = () => over.resolve();
  for (const end of ends) end.addEventListener("abort", stop, { once: true });
  if (ends.some(end => end.aborted)) stop();
  else {
    connection.publish(`$JS.API.CONSUMER.MSG.NEXT.${stream}.${consumer}`, bodyOf(wish), {
      reply: inbox,
    });
    timer.set(wait ? wait.expiresMs + LATE_MS : LOOK_MS);
    if (wait) silence.set(2 * wait.heartbeatMs);
  }
  try {
    await over.promise;
  } finally {
    timer.clear();
    silence.clear();
    for (const end of ends) end.removeEventListener("abort", stop);
    // The server hears that nobody listens, and what it has sent until then arrives.
    await subscription.drain().catch(() => undefined);
  }
}

function bodyOf({ batch, wait }: PullWish): string {
  if (!wait) return JSON.stringify({ batch, no_wait: true });
  const { expiresMs, heartbeatMs } = wait;
  return JSON.stringify({ batch, expires: expiresMs * 1e6, idle_heartbeat: heartbeatMs * 1e6 });
}

/** Status codes of an answer that is no message. */
const BEAT = 100;
/** Nothing is there, or the time is up. */
const USUAL_ENDS: ReadonlySet<number> = new Set([404, 408]);
const CONFLICT = 409;

function statusOf({ headers, data }: Msg): number | undefined {
  return headers && headers.code > 0 && data.length === 0 ? headers.code : undefined;
}

/** A pull that the server ended: usual when its time is up, and not when the consumer is gone. */
function ended(status: number, consumer: string, over: PromiseWithResolvers<void>): void {
  if (USUAL_ENDS.has(status)) return over.resolve();
  over.reject(gone(consumer, status === CONFLICT ? "ended the pull" : `answers ${status}`));
}

function gone(consumer: string, what: string): Unavailable {
  return new Unavailable(`consumer ${consumer} ${what}`);
}

/** `$JS.ACK.[domain.account.]stream.consumer.delivered.seq.seq.time.pending[.token]` */
function deliveryOf({ reply = "" }: Msg): { redelivered: number; pending: number } {
  const tokens = reply.split(".");
  // Servers that name a domain have eleven tokens or more.
  const at = tokens.length > 9 ? 6 : 4;
  const [delivered, , , , pending] = tokens.slice(at).map(Number);
  return { redelivered: (delivered ?? 1) - 1, pending: pending ?? 0 };
}

function toPulled(message: Msg, redelivered: number): Pulled {
  return {
    subject: message.subject,
    headers: message.headers,
    data: message.data,
    redelivered,
    ack: () => void message.respond("+ACK"),
    nak: delayMs => void message.respond(`-NAK ${JSON.stringify({ delay: delayMs * 1e6 })}`),
  };
}

/** One timer that can be set anew; it keeps no process alive. */
class Deadline {
  readonly #act: () => void;
  #timer: NodeJS.Timeout | undefined;

  constructor(act: () => void) {
    this.#act = act;
  }

  set(ms: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(this.#act, ms).unref();
  }

  clear(): void {
    clearTimeout(this.#timer);
  }
}
