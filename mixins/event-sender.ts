// A worker's outcomes over JetStream. The stream's own acknowledgement says only that NATS has a
// message, which may be emptied at any moment: an outcome is settled by the word of its owner, sent
// back by the server that has put it before that one. Without the word it goes another way.
import { createHash } from "node:crypto";
import { createInbox, headers, type Msg, type NatsConnection } from "nats";
import type { Settings } from "../schemas/env.ts";
import { Unavailable } from "../schemas/errors.ts";
import type { Json } from "../schemas/json.ts";
import type { OutcomeRequest } from "./actor-service.ts";
import { ANSWER_TO, eventSubject, EVENTS_BYTES_MAX, type EventMessage } from "./event-stream.ts";
import type { NatsPort } from "./jetstream.ts";
import { jsonSize, splitBySize } from "./json-size.ts";
import type { ResultStore } from "./result-store/index.ts";
import { unlessLost } from "./unless-lost.ts";
import { eventOf, type Granted } from "./worker-events.ts";

/** An owner that has not been heard of after this is asked by another way. */
const WORD_MS = 5_000;
const PUBLISH_MS = 3_000;
const BATCH_MAX = 500;
/** Answers are no messages of a stream: whoever watches them can tell them by this. */
const INBOX = "_INBOX.noetl_events";

/** By outcome; undefined for one whose owner has not settled it yet. */
type Words = (Granted | undefined)[];

interface Waiting {
  words: Words;
  end: () => void;
}

export interface EventSenderOptions {
  nats: NatsPort;
  settings: Pick<Settings, "events">;
  results: ResultStore;
}

export class EventSender {
  readonly counters = { settled: 0, unsettled: 0 };
  readonly #options: EventSenderOptions;
  readonly #waiting = new Map<string, Waiting>();
  #sent = 0;
  /** Where answers of a connection arrive. */
  #inbox: { connection: NatsConnection; subject: string } | undefined;

  constructor(options: EventSenderOptions) {
    this.#options = options;
  }

  /** Whether there is a connection to try. */
  isUp(): boolean {
    return this.#options.nats.line() !== undefined;
  }

  /**
   * One reply an outcome, in order: those of the owners, and of `otherwise` for outcomes whose
   * owner was not heard of in time.
   */
  async report(
    outcomes: OutcomeRequest[],
    otherwise: (outcomes: OutcomeRequest[]) => Promise<Granted[]>,
  ): Promise<Granted[]> {
    const byExecution = Map.groupBy(outcomes, outcome => outcome.execution_id);
    const messages = [...byExecution.values()].flatMap(group =>
      splitBySize(group, EVENTS_BYTES_MAX, BATCH_MAX, one => jsonSize(eventOf(one))),
    );
    const replies = new Map<OutcomeRequest, Granted | undefined>();
    const sent = messages.map(async message => {
      const words = await this.#send(message).catch((): Words => []);
      message.forEach((outcome, at) => replies.set(outcome, words[at]));
    });
    await Promise.all(sent);
    const silent = outcomes.filter(outcome => !replies.get(outcome));
    this.counters.settled += outcomes.length - silent.length;
    this.counters.unsettled += silent.length;
    if (silent.length > 0) {
      const told = await otherwise(silent);
      silent.forEach((outcome, at) => replies.set(outcome, told[at]));
    }
    return outcomes.map(outcome => replies.get(outcome) as Granted);
  }

  /** What the owners have said within the time; throws Unavailable when there is no connection. */
  async #send(outcomes: OutcomeRequest[]): Promise<Words> {
    const { nats, settings } = this.#options;
    const line = nats.line();
    const [first] = outcomes;
    if (!line || !first) throw new Unavailable("NATS is away");
    const { body, sha256 } = await this.#bodyOf(outcomes);
    this.#sent += 1;
    const id = String(this.#sent);
    const header = headers();
    header.set(ANSWER_TO, `${this.#inboxOf(line.connection)}.${id}`);
    const { promise: over, resolve: end } = Promise.withResolvers<void>();
    const waiting: Waiting = { words: outcomes.map(() => undefined), end };
    this.#waiting.set(id, waiting);
    const timer = setTimeout(end, WORD_MS);
    try {
      // The same content within the window is stored once; whether it is settled its owner says.
      const options = { msgID: sha256, headers: header, timeout: PUBLISH_MS };
      line.client
        .publish(eventSubject(settings, first.execution_id), body, options)
        .then(({ duplicate }) => duplicate && end(), end);
      await unlessLost(over, nats.lost()).catch(() => undefined);
      return waiting.words;
    } finally {
      clearTimeout(timer);
      this.#waiting.delete(id);
    }
  }

  /** A message fits into 64 KB: one outcome that does not is kept in a tier, and named. */
  async #bodyOf(outcomes: OutcomeRequest[]): Promise<{ body: Uint8Array; sha256: string }> {
    const events = outcomes.map(eventOf);
    const whole = encode({ events });
    const sha256 = createHash("sha256").update(whole).digest("base64url");
    if (whole.length <= EVENTS_BYTES_MAX) return { body: whole, sha256 };
    const [first] = outcomes;
    const name = `${first?.execution_id}/report/${sha256.slice(0, 16)}`;
    const kept = await this.#options.results.put(name, events as unknown as Json);
    const { extract: _copied, ...reference } = kept;
    return { body: encode({ reference }), sha256 };
  }

  #inboxOf(connection: NatsConnection): string {
    if (this.#inbox?.connection === connection) return this.#inbox.subject;
    const subject = createInbox(INBOX);
    this.#inbox = { connection, subject };
    // Reconnecting subscribes again by itself.
    const callback = (error: unknown, message: Msg) => void (error || this.#hear(message));
    connection.subscribe(`${subject}.*`, { callback });
    return subject;
  }

  /** What could not be settled comes before a server again, whose answer says the rest. */
  #hear({ subject, data }: Msg): void {
    const waiting = this.#waiting.get(subject.slice(subject.lastIndexOf(".") + 1));
    const replies = decode(data);
    if (!waiting || replies?.length !== waiting.words.length) return;
    const { words } = waiting;
    replies.forEach((reply, at) => {
      if (reply.status !== "failed") words[at] ??= reply;
    });
    if (words.every(word => word !== undefined)) waiting.end();
  }
}

function encode(message: EventMessage): Uint8Array {
  return Buffer.from(JSON.stringify(message));
}

function decode(data: Uint8Array): Granted[] | undefined {
  try {
    const { results } = JSON.parse(Buffer.from(data).toString("utf8")) as { results?: Granted[] };
    return Array.isArray(results) ? results : undefined;
  } catch {
    return undefined;
  }
}
