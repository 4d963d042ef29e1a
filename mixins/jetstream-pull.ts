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

/** What a pull came to. */
export interface PullEnd {
  messages: Pulled[];
  /** The server has said something: a message, that it still waits, or that there is nothing. */
  isAnswered: boolean;
}

/** What is there comes at once, unless too many are taken already: that gets no answer at all. */
const LOOK_MS = 250;
/** Between two messages of one answer. */
const GAP_MS = 50;
/** A pull that the server could not take now is not repeated at once. */
const CONFLICT_MS = 500;
/** The server ends a pull by itself; this is for one whose end was lost. */
const LATE_MS = 1_000;

/**
 * Pulls until the batch is full, nothing more is there, the time is up or one of `ends` aborts;
 * gives what came, then or on its way. Throws Unavailable when the consumer does not answer, or
 * answers that it gives nothing.
 */
export async function pullOnce(
  connection: NatsConnection,
  wish: PullWish,
  ends: AbortSignal[],
): Promise<PullEnd> {
  const messages: Pulled[] = [];
  const take = (message: Pulled) => void messages.push(message);
  const isAnswered = await pullEach(connection, wish, ends, take);
  return { messages, isAnswered };
}

/** As `pullOnce`, and hands each message over as it comes; says whether the server answered. */
export async function pullEach(
  connection: NatsConnection,
  wish: PullWish,
  ends: AbortSignal[],
  take: (message: Pulled) => void,
): Promise<boolean> {
  const { stream, consumer, batch, wait, lasts } = wish;
  let isAnswered = false;
  /** The server has sent all that it will. */
  let isSpent = false;
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
      const refusal = status && refusalOf(status, consumer);
      // What has come by then has come.
      if (refusal) return count > 0 ? over.resolve() : over.reject(refusal);
      isAnswered = true;
      if (status?.code === BEAT) return;
      if (status?.code === CONFLICT) return timer.set(CONFLICT_MS);
      isSpent = status !== undefined || count + 1 >= batch;
      if (status) return over.resolve();
      const { redelivered, pending } = deliveryOf(message);
      take(toPulled(message, redelivered));
      count += 1;
      if (isSpent || (pending === 0 && !lasts)) over.resolve();
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
    if (isSpent) subscription.unsubscribe();
    else await subscription.drain().catch(() => undefined);
  }
  return isAnswered;
}

function bodyOf({ batch, wait }: PullWish): string {
  if (!wait) return JSON.stringify({ batch, no_wait: true });
  const { expiresMs, heartbeatMs } = wait;
  return JSON.stringify({ batch, expires: expiresMs * 1e6, idle_heartbeat: heartbeatMs * 1e6 });
}

interface Status {
  code: number;
  description: string;
}

/** Status codes of an answer that is no message. */
const BEAT = 100;
/** Nothing is there, or the time is up. */
const USUAL_ENDS: ReadonlySet<number> = new Set([404, 408]);
const CONFLICT = 409;
/** Conflicts after which another pull is answered; after others (deleted, push based) none is. */
const PASSING = /^(Exceeded MaxWaiting|Leadership Change|Server Shutdown|Batch Completed)/;

function statusOf({ headers, data }: Msg): Status | undefined {
  if (!headers || headers.code === 0 || data.length > 0) return undefined;
  return { code: headers.code, description: headers.description };
}
/** Why the server gives nothing, unless that is usual. */
function refusalOf({ code, description }: Status, consumer: string): Unavailable | undefined {
  if (code === BEAT || USUAL_ENDS.has(code)) return undefined;
  if (code !== CONFLICT) return gone(consumer, `answers ${code}`);
  return PASSING.test(description) ? undefined : gone(consumer, `ended the pull: ${description}`);
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
